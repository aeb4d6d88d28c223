"""A labelled recording, or a labelled stretch of one."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


def find_true_places(clips: Sequence[Clip]) -> list[str]:
    """Return the `place` of each clip with the real path of its file, however it was spelt."""
    paths = {path: os.path.realpath(path) for path in {clip.path for clip in clips}}
    return [stretch_name(paths[clip.path], clip.start, clip.end, clip.channel) for clip in clips]
