"""From recordings to their labelled segments, in one streaming pass."""
