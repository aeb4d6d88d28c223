"""How fast recordings are annotated on a machine, and why."""
