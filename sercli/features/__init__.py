"""A fixed-length description of how a stretch of speech sounds."""
