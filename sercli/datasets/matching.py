"""Names by which clips and speakers are matched with rows of tables and with those of models."""

import re
from collections.abc import Collection, Hashable, Iterable, Sequence
from itertools import zip_longest
from pathlib import PurePath

from sercli.datasets.clip import Clip
from sercli.datasets.schemes import SCHEMES
from sercli.errors import DatasetError
from sercli.text import compose

# Namespace of speakers in manifests, which all share: if one is used to train and another to
# evaluate, the same name counts as the same speaker, and the overlap is reported.
NAMESPACE = "table"
# Most folders before a file's name by which a table may name it.
MOST_FOLDERS = 4
# Most digits of a speaker's number with leading zeros.
LONGEST_NUMBER = 4
# A speaker's number, or the name of a folder of RAVDESS.
NUMBER = re.compile(r"(?:Actor_)?([0-9]+)")


def clip_names(clip: Clip) -> tuple[str, ...]:
    """Return the names that a table may have for a clip, the most exact first.

    These are its name, its path, its name without suffix, the name of its file with up to four
    folders, with and without suffix, and its name without folders and suffix.

    Parameters
    ----------
    clip
        Clip to name.
    """
    name = PurePath(clip.name)
    is_part = clip.start or clip.end is not None or clip.channel is not None
    tails = [PurePath(*clip.path.parts[-n:]) for n in range(MOST_FOLDERS + 1, 0, -1)]
    of_file = [text.as_posix() for tail in tails for text in (tail, tail.with_suffix(""))]
    if is_part or not name.name:  # times and channels must not be cut off as a suffix
        return clip.name, str(clip.path), clip.name, *of_file, clip.path.stem
    bare = name.with_suffix("").as_posix()
    return clip.name, str(clip.path), bare, *of_file, name.stem


def is_published(clip: Clip) -> bool:
    """Return whether a clip's speaker is named by a published corpus, not by the user."""
    return clip.namespace is None and clip.corpus in SCHEMES


def speaker_names(clip: Clip, own: Iterable[str] = ()) -> list[str]:
    """Return the names across corpora that a clip's speaker may have; none if unknown.

    A table or a database may list clips of a published corpus, whatever its own name is: its
    speakers may be those of the same names in any published corpus. Numbers may have lost leading
    zeros, as in a spreadsheet, or have got some.

    Parameters
    ----------
    clip
        Clip of the speaker.
    own
        Names of corpora; the speaker may also have its name in those that are not published.
    """
    if clip.voice is None or clip.speaker is None:
        return []
    others = [NAMESPACE, *(one for one in own if one not in SCHEMES)]
    if not is_published(clip):
        others += SCHEMES
    within = clip.corpus if clip.namespace is None else clip.namespace
    spellings = _list_spellings(clip.speaker)
    return [f"{corpus}/{name}" for corpus in (within, *others) for name in spellings]


def _list_spellings(speaker: str) -> list[str]:
    """Return the spellings of a speaker's name, beginning with the given one."""
    found = NUMBER.fullmatch(speaker)
    if found is None:
        return [speaker]
    number = found[1].lstrip("0") or "0"
    padded = (number.zfill(width) for width in range(1, LONGEST_NUMBER + 1))
    return list(dict.fromkeys((speaker, number, *padded)))


def spell_speaker(clip: Clip) -> tuple[str, ...]:
    """Return the names that a table may have for a clip's speaker, the most exact first.

    These are its voice, its name, and further spellings of a number; none if it is unknown.

    Parameters
    ----------
    clip
        Clip of the speaker.
    """
    if clip.voice is None or clip.speaker is None:
        return ()
    return clip.voice, *_list_spellings(clip.speaker)


def join_voices(clips: Sequence[Clip]) -> list[str | None]:
    """Return the voice of each clip, the same for all that may be of one speaker; None if unknown.

    Voices that may be the same speaker (see `speaker_names`) are merged into the first of them in
    alphabetical order. This is transitive: two voices that may each be a third are merged, too.

    Parameters
    ----------
    clips
        Clips of one or several corpora.
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


def count_speakers(clips: Sequence[Clip]) -> int:
    """Return the number of known speakers of clips; see `join_voices`."""
    return len({*join_voices(clips)} - {None})


def match_rows(
    names: Sequence[Sequence[str]], rows: Collection[str], things: Sequence[Hashable], where: str
) -> list[str | None]:
    """Match clips with the rows of a table, each by the most exact name that is a row's.

    A row that matches one clip by a more exact name is not matched by a less exact name of another.

    Parameters
    ----------
    names
        Names of each clip, the most exact first.
    rows
        Names of the rows of the table, none empty. Their Unicode form does not matter.
    things
        What a row describes, for each clip: the clip itself, its file or its speaker.
    where
        Name of the table for error messages.

    Returns
    -------
    list of str or None
        Name of the row of each clip; None if no row matches.

    Raises
    ------
    DatasetError
        If a row matches two things by equally exact names, so that it is ambiguous.
    """
    by_form = {compose(row): row for row in rows}
    found: list[str | None] = [None] * len(names)
    thing_of: dict[str, Hashable] = {}
    for own_names in zip_longest(*names, fillvalue=""):
        told: dict[str, Hashable] = {}
        for index, name in enumerate(own_names):
            row = by_form.get(compose(name)) if found[index] is None else None
            if row is None or thing_of.get(row, things[index]) != things[index]:
                continue
            if told.setdefault(row, things[index]) != things[index]:
                raise DatasetError(
                    f"{where}: {row} is of {told[row]} and of {things[index]}; expected names "
                    f"that distinguish them, such as {told[row]}"
                )
            found[index] = row
        thing_of = told | thing_of
    return found
