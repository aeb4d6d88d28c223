"""Fixed-length feature vectors of segments of speech."""
