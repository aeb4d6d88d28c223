"""Corpora of labelled recordings: their clips, with emotion, speaker and split."""

from sercli.datasets.clip import Clip
from sercli.datasets.corpus import Corpus, class_indices
from sercli.datasets.labelling import parse_mapping
from sercli.datasets.reading import CORPORA, read_corpora, read_corpus

__all__ = [
    "CORPORA",
    "Clip",
    "Corpus",
    "class_indices",
    "parse_mapping",
    "read_corpora",
    "read_corpus",
]
