"""Where somebody speaks in a recording, who it is, and where that is cut into segments."""
