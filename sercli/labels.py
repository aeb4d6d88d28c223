"""Canonical emotion labels.

The names are audformat's (``emotion`` scheme), in alphabetical order. That order is also the
column order of every table and every probability vector of a model trained here. How corpora
spell them is data: ``data/labels.json``.
"""

# What most speech is said in.
CALM = "neutral"
EMOTIONS: tuple[str, ...] = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")
