"""Canonical emotion labels.

The names are audformat's (``emotion`` scheme), in alphabetical order. That order is also the
column order of every table and every probability vector of a model trained here. The spellings
that corpora use are in ``data/labels.json``.
"""

# The label of most everyday speech.
CALM = "neutral"
EMOTIONS: tuple[str, ...] = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")
