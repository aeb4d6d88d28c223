"""The process of a run: its memory, its signals, and limits that several runs share."""
