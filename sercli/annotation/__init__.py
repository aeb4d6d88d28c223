"""Annotation: from recordings to labelled segments, in one streaming pass."""
