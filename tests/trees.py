"""Corpora of empty files, and what is read of them."""

from pathlib import Path

from sercli.datasets import Corpus


def make_tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def summary(corpus: Corpus) -> list[tuple[str, str | None, str]]:
    return [(clip.name, clip.speaker, clip.emotion) for clip in corpus.clips]
