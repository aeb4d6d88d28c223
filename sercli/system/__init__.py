"""The process that a run is: its memory, its end, and limits that several runs share."""
