"""What is to be known of the recordings that clips are of: what was repaired, or is not heard."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Notes(NamedTuple):
    """What decoding tells of a recording, as far as it came.

    Parameters
    ----------
    n_samples
        That were decoded until then, per channel.
    warnings
        What was repaired in them, or is not heard, a sentence each; see
        `sercli.audio.reading.AudioFile`.
    """

    n_samples: int = 0
    warnings: tuple[str, ...] = ()


def join_notes(parts: Iterable[Mapping[str, Notes]]) -> dict[str, Notes]:
    """Return the notes of recordings of which there is something to tell, by their paths.

    Clips of one recording may be decoded in several passes, and each counts from its start: what
    tells all is that which came furthest.

    Parameters
    ----------
    parts
        Of some clips each.
    """
    found: dict[str, Notes] = {}
    for part in parts:
        for path, notes in part.items():
            best = max(found.get(path, Notes()), notes, key=lambda one: (one[0], len(one[1])))
            if best.warnings:
                found[path] = best
    return found
