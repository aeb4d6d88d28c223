"""A labelled recording, or a labelled stretch of one."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Clip:
    """A labelled recording, or a labelled stretch of one.

    Parameters
    ----------
    path
        Path of the audio file.
    emotion
        Canonical label, or the corpus's own if there is no canonical one.
    speaker
        Name of the speaker within the corpus, or None if unknown.
    name
        Name of the clip, unique within the corpus.
    corpus
        Name of the corpus.
    start, end
        Stretch of the file in seconds; without `end`, up to the end of the file.
    split
        ``"train"``, ``"dev"`` or ``"test"`` if the corpus or the user defines splits, else None.
    channel
        Index of the channel, from 0; None for the mean of all.
    namespace
        Scope in which the name of the speaker is unique; None for the corpus.
    traits
        Further facts, by the name of a breakdown: ``sex``, ``age_group``, ``sentence``,
        ``intensity``, ``language``, ...
    """

    path: Path
    emotion: str
    speaker: str | None = None
    name: str = ""
    corpus: str = ""
    start: float = 0.0
    end: float | None = None
    split: str | None = None
    channel: int | None = None
    namespace: str | None = None
    traits: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def voice(self) -> str | None:
        """Name of the speaker across corpora, such as ``"cremad/1001"``, or None."""
        within = self.corpus if self.namespace is None else self.namespace
        return None if self.speaker is None else f"{within}/{self.speaker}"

    @property
    def place(self) -> str:
        """Path, followed by the stretch of the file and the channel, if any."""
        return stretch_name(str(self.path), self.start, self.end, self.channel)


def stretch_name(file: str, start: float, end: float | None, channel: int | None = None) -> str:
    """Return the name of a file, of its stretch ``#START-END`` in seconds, and ``@CHANNEL``."""
    own = "" if channel is None else f"@{channel}"
    if start == 0.0 and end is None:
        return f"{file}{own}"
    return f"{file}#{start:.10g}-{'' if end is None else f'{end:.10g}'}{own}"


def group_by_place(clips: Iterable[Clip]) -> list[list[Clip]]:
    """Return the clips of each stretch of a file, however its path is spelt, in the given order."""
    find_path = cache(os.path.realpath)
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        place = stretch_name(find_path(clip.path), clip.start, clip.end, clip.channel)
        groups.setdefault(place, []).append(clip)
    return [*groups.values()]
