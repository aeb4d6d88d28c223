"""By which names clips and speakers are found: in tables, and in what a model knows."""

from collections.abc import Collection, Hashable, Iterable, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from sercli.datasets.schemes import SCHEMES
from sercli.errors import DatasetError
from sercli.text import compose

if TYPE_CHECKING:
    from sercli.datasets.base import Clip

# One name in several tables is one speaker: who trains by one and measures by another is told.
NAMESPACE = "table"


def clip_names(clip: "Clip") -> tuple[str, ...]:
    """Return what a table may call a clip, the most exact first.

    Its name, its path, its name without suffix, the name of its file, and that without suffix.

    Parameters
    ----------
    clip
        The clip.
    """
    name = PurePath(clip.name)
    is_part = clip.start or clip.end is not None or clip.channel is not None
    if is_part or not name.name:  # times and channels are no suffix
        return clip.name, str(clip.path), clip.name, clip.path.name, clip.path.stem, clip.path.stem
    bare = name.with_suffix("").as_posix()
    return clip.name, str(clip.path), bare, clip.path.name, clip.path.stem, name.stem


def is_published(clip: "Clip") -> bool:
    """Return whether a clip's speaker is named by a corpus that is known, not by a user's own."""
    return clip.namespace is None and clip.corpus in SCHEMES


def speaker_names(clip: "Clip", own: Iterable[str] = ()) -> list[str]:
    """Return the names across corpora that a clip's speaker may have; none if unknown.

    Whether a table or a database lists clips of a published corpus is not known: its speakers may
    be those of any such corpus who have the same names.

    Parameters
    ----------
    clip
        The clip.
    own
        Names of corpora, of which those that are not published are looked for, too.
    """
    if clip.voice is None:
        return []
    others = [NAMESPACE, *(one for one in own if one not in SCHEMES)]
    if not is_published(clip):
        others += SCHEMES
    return [clip.voice, *(f"{corpus}/{clip.speaker}" for corpus in others)]


def join_voices(clips: "Sequence[Clip]") -> list[str | None]:
    """Return the voice of each clip, the same for all that may be of one speaker; None if unknown.

    Where two corpora name somebody who may be one speaker, see `speaker_names`, it is the first of
    these names in order; whoever has both with a third is one with both.

    Parameters
    ----------
    clips
        Of one or several corpora.
    """
    known = {clip.voice: clip for clip in clips if clip.voice is not None}
    earlier = {voice: voice for voice in known}

    def find_first(voice: str) -> str:
        while earlier[voice] != voice:
            voice = earlier[voice]
        return voice

    for voice, clip in known.items():
        for name in speaker_names(clip):
            if name in known:
                first, last = sorted((find_first(voice), find_first(name)))
                earlier[last] = first
    return [None if clip.voice is None else find_first(clip.voice) for clip in clips]


def count_speakers(clips: "Sequence[Clip]") -> int:
    """Return how many speakers are known of clips; see `join_voices`."""
    return len({*join_voices(clips)} - {None})


def match_rows(
    names: Sequence[Sequence[str]], rows: Collection[str], things: Sequence[Hashable], where: str
) -> list[str | None]:
    """Return the row of each clip, by the most exact of its names; None if none is one.

    What a row is called by a clip's more exact name, it is not by the less exact one of another.

    Parameters
    ----------
    names
        Of each clip, as many, the most exact first.
    rows
        Names of the rows of a table. The form of Unicode does not matter.
    things
        What a row is to tell something of: for each clip, itself, its file or its speaker.
    where
        What has the rows, for errors.

    Raises
    ------
    DatasetError
        If a row is that of two things: which is meant, it does not tell.
    """
    by_form = {compose(row): row for row in rows}
    found: list[str | None] = [None] * len(names)
    thing_of: dict[str, Hashable] = {}
    for own_names in zip(*names, strict=True):
        told: dict[str, Hashable] = {}
        for index, name in enumerate(own_names):
            row = by_form.get(compose(name)) if found[index] is None else None
            if row is None or thing_of.get(row, things[index]) != things[index]:
                continue
            if told.setdefault(row, things[index]) != things[index]:
                raise DatasetError(
                    f"{where}: {row} is of {told[row]} and of {things[index]}; expected names that "
                    f"tell them apart, such as {told[row]}"
                )
            found[index] = row
        thing_of = told | thing_of
    return found
