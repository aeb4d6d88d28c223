"""Canonical emotion labels and how corpora spell them.

The names are audformat's (``emotion`` scheme), in alphabetical order. That order is also the
column order of every table and every probability vector of a model trained here.
"""

from collections.abc import Mapping
from types import MappingProxyType

EMOTIONS: tuple[str, ...] = ("anger", "disgust", "fear", "happiness", "neutral", "sadness")

# Third field of a CREMA-D file name.
CREMAD_CODES: Mapping[str, str] = MappingProxyType(
    {
        "ANG": "anger",
        "DIS": "disgust",
        "FEA": "fear",
        "HAP": "happiness",
        "NEU": "neutral",
        "SAD": "sadness",
    }
)
