"""Notes on the recordings of clips: repairs by the decoder, and audio that it did not read."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Notes(NamedTuple):
    """Warnings about a recording, as far as it was decoded.

    Parameters
    ----------
    n_samples
        Number of samples per channel that were decoded.
    warnings
        Sentences about repairs and unread audio; see `sercli.audio.reading.AudioFile`.
    """

    n_samples: int = 0
    warnings: tuple[str, ...] = ()


def join_notes(parts: Iterable[Mapping[str, Notes]]) -> dict[str, Notes]:
    """Return the notes of the recordings that have warnings, by their paths.

    Clips of one recording may be decoded in several passes, each from its start: the notes of the
    pass that came furthest are complete.

    Parameters
    ----------
    parts
        Notes of several sets of clips.
    """
    found: dict[str, Notes] = {}
    for part in parts:
        for path, notes in part.items():
            best = max(found.get(path, Notes()), notes, key=lambda one: (one[0], len(one[1])))
            if best.warnings:
                found[path] = best
    return found
