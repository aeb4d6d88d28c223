"""What a run leaves: labels, its record, and files for other programs."""
