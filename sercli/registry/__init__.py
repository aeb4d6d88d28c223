"""Model folders: how they are found, described and verified."""
