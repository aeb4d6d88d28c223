"""Output of a run: labels, the run record, and exports for other programs."""
