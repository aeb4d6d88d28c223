"""Segments marked in Praat: the intervals of TextGrids."""

import codecs
import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from sercli.delimited import MOST_SECONDS
from sercli.errors import ConfigError
from sercli.speech.praat import Tier, parse_grid
from sercli.speech.turn import Turn
from sercli.text import compose

SUFFIX = ".textgrid"
# Tiers of emotions that were exported, with a voice: a channel, a speaker or both; and a layer.
EXPORTED = re.compile(r"emotion(?: (.+))?")
CHANNEL = re.compile(r"channel (\d+)|(.+) \(channel (\d+)\)")
LAYER = re.compile(r"(?:^| )\(layer \d+\)$")
# Names of speakers that would be read as something else.
RESERVED = re.compile(r"channel \d+|(?:.* )?\((?:channel \d+|layer \d+|speaker)\)")


class Interval(NamedTuple):
    """An interval with a text.

    Parameters
    ----------
    start, end
        Times in seconds.
    tier
        Name of its tier.
    speaker, channel
        Speaker and channel in the tier's name, if `sercli.export_labels` wrote the grid.
    text
        The text, without surrounding spaces.
    """

    start: float
    end: float
    tier: str
    speaker: str | None = None
    channel: str | None = None
    text: str = ""


def is_grid(path: Path) -> bool:
    """Return whether a path is a TextGrid by its suffix, or a folder, which may hold some."""
    return path.is_dir() or path.suffix.lower() == SUFFIX


def list_below(folder: Path) -> list[Path]:
    """Return what is in a folder at any depth, sorted, without what macOS puts beside files.

    On a drive of another system, and in an archive, it puts ``._NAME`` beside each file.

    Parameters
    ----------
    folder
        Path of the folder.
    """
    return sorted(one for one in folder.rglob("*") if not one.name.startswith("._"))


def read_grids(path: Path, tiers: Sequence[str]) -> tuple[dict[str, tuple[Turn, ...]], str]:
    """Read the intervals of a TextGrid, or of all TextGrids in a folder and its subfolders.

    Parameters
    ----------
    path
        Path of the file or the folder.
    tiers
        Names of the tiers to read; without any, each grid must have exactly one interval tier.

    Returns
    -------
    turns : dict of str to tuple of Turn
        Intervals with a text of each grid, tier by tier; none if a grid has none, so that its
        recording matches no other of that name. The keys are those of `read_intervals`.
    sha256 : str
        SHA-256 digest of all grids and the names of the tiers.

    Raises
    ------
    ConfigError
        If there is no grid, two grids have the same name, a grid cannot be read, has times below 0
        or beyond `MOST_SECONDS`, or none of the tiers, or a tier is in no grid.
    """
    try:
        found, sha256 = read_intervals(path, tiers)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    turns = {}
    for recording, intervals in found.items():
        for one in intervals:
            if not max(-one.start, one.end) <= MOST_SECONDS:  # also true for NaN
                raise ConfigError(
                    f"{path}: has an interval of {recording} from {one.start:g} to "
                    f"{one.end:g} s; expected times up to {MOST_SECONDS:g} s"
                )
        # In another recording, the same tier is another speaker.
        turns[recording] = tuple(
            Turn(
                one.start,
                one.end,
                one.channel,
                f"{recording}/{one.tier}" if len(tiers) > 1 else one.speaker,
            )
            for one in intervals
        )
    return turns, sha256


def read_intervals(
    path: Path, tiers: Sequence[str], *, emotions: bool = False
) -> tuple[dict[str, list[Interval]], str]:
    """Read the intervals of a TextGrid, or of all TextGrids in a folder and its subfolders.

    Parameters
    ----------
    path
        Path of the file or the folder.
    tiers
        Names of the tiers to read; without any, each grid must have exactly one interval tier.
    emotions
        Whether to read the tiers that `sercli.export_labels` names as those of emotions, whatever
        other tiers there are.

    Returns
    -------
    intervals : dict of str to list of Interval
        Intervals with a text of each grid, tier by tier. The keys are the paths of the grids
        relative to the folder, without suffix and with ``/`` between their parts; those of the
        recordings match them, with or without suffix.
    sha256 : str
        SHA-256 digest of all grids and the names of the tiers.

    Raises
    ------
    ValueError
        If there is no grid, two grids have the same name, a grid cannot be parsed, has times below
        0 or none of the tiers, or a tier is in no grid.
    OSError
        If a file cannot be read.
    """
    tiers = [compose(name) for name in tiers]
    grids = [path]
    if path.is_dir():
        grids = [one for one in list_below(path) if one.suffix.lower() == SUFFIX]
    if not grids:
        raise ValueError(
            "contains no TextGrid; expected one for each recording, with the same name"
        )
    names = [one.relative_to(path if path.is_dir() else path.parent) for one in grids]
    recordings = [compose(one.with_suffix("").as_posix()) for one in names]
    if twice := [name for name, n in Counter(recordings).items() if n > 1]:
        raise ValueError(
            f"contains two TextGrids named {twice[0]}; expected one for each recording"
        )
    # A name may have bytes that are not UTF-8; it is in no grid then.
    digest = hashlib.sha256("\0".join(tiers).encode(errors="backslashreplace"))
    found: dict[str, list[Interval]] = {}
    there: set[str] = set()
    for grid, recording in zip(grids, recordings, strict=True):
        content = grid.read_bytes()
        digest.update(hashlib.sha256(content).digest())
        where = "" if grid == path else f"{grid.relative_to(path)}: "
        read, exported = _read(_decode(content, where), where, tiers, emotions=emotions)
        there |= {compose(name) for name in read}
        found[recording] = [
            Interval(start, end, name, *exported.get(name, (None, None)), text)
            for name in read
            for start, end, text in read[name]
        ]
    if absent := [name for name in tiers if name not in there]:
        raise ValueError(f"has no tier {absent[0]} in any grid; expected it in at least one")
    return found, digest.hexdigest()


def _decode(content: bytes, where: str) -> str:
    if content.startswith(b"ooBinaryFile"):
        raise ValueError(f"{where}is binary; expected a TextGrid that Praat saved as text")
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if is_wide else "utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = (
            ("not UTF-16, although it has its byte order mark")
            if is_wide
            else f"neither UTF-8 (line {line}) nor UTF-16"
        )
        raise ValueError(
            f"{where}is {found}; expected a TextGrid in UTF-8 or UTF-16, as Praat saves it"
        ) from error


def _read(
    text: str, where: str, tiers: Sequence[str], *, emotions: bool
) -> tuple[dict[str, list[tuple[float, float, str]]], dict[str, tuple[str | None, str | None]]]:
    """Return the intervals with a text in each tier to read, and its voice."""
    try:
        read = parse_grid(text)
    except ValueError as error:
        raise ValueError(
            f"{where}is not a TextGrid ({error}); expected one as Praat saves it, as text in UTF-8 "
            "or UTF-16"
        ) from error
    there = {tier.name: _find_told(tier, where) for tier in read}
    for name, entries in there.items():
        for start, end, _ in entries:
            if start < 0:
                raise ValueError(
                    f"{where}the tier {name} has an interval from {start:g} to {end:g} s; expected "
                    "no time below 0"
                )
    exported = {} if tiers else _find_exported(there, alone=not emotions)
    wanted = tiers or {compose(name) for name in exported or there}
    names = [name for name in there if compose(name) in wanted]
    if not names or (len(names) > 1 and not tiers and not exported):
        others = "name it with --columns emotion=TIER" if emotions else "name some with --tier"
        raise ValueError(
            f"{where}has the interval tiers {', '.join(there) or 'none'}; expected "
            + (f"{' or '.join(tiers)}" if tiers else f"only one, or {others}")
        )
    counts = Counter(tier.name for tier in read)
    if twice := [name for name in names if counts[name] > 1]:
        raise ValueError(f"{where}has several tiers {twice[0]}; expected each name once")
    return {name: there[name] for name in names}, exported


def _find_told(tier: Tier, where: str) -> list[tuple[float, float, str]]:
    """Return the intervals of a tier that have a text, in order."""
    told = sorted((start, end, text.strip()) for start, end, text in tier.entries if text.strip())
    reached = -math.inf
    for start, end, text in told:
        found = f"{where}the tier {tier.name} has an interval {text} from {start} to {end} s"
        if not start < end:  # also true for NaN
            raise ValueError(f"{found}; expected a start before the end")
        if start < reached:
            raise ValueError(f"{found}, and one that ends at {reached} s; expected no overlap")
        reached = end
    return told


def _find_exported(
    names: Iterable[str], *, alone: bool
) -> dict[str, tuple[str | None, str | None]]:
    """Return speaker and channel of each tier of emotions, if `sercli.export_labels` wrote them.

    It writes a tier of confidences for each, and no other: if they are to be `alone`, any
    difference means that somebody else wrote the grid.
    """
    names = {*names}
    voices = {name: found[1] or "" for name in names if (found := EXPORTED.fullmatch(name))}
    if alone and names != {*voices, *(name.replace("emotion", "confidence", 1) for name in voices)}:
        return {}
    return {name: parse_voice(voice) for name, voice in voices.items()}


def name_voice(speaker: str | None, channel: str | None, layer: int) -> str:
    """Return a name for a tier by its speaker and channel, from which both can be read back.

    Parameters
    ----------
    speaker, channel
        Speaker and channel, as far as they are known.
    layer
        Number of the layer, from 1: overlapping segments are in different ones.
    """
    parts = []
    if speaker is not None:
        parts = [f"{speaker} (speaker)" if RESERVED.fullmatch(speaker) else speaker]
    if channel is not None:
        parts.append(f"(channel {channel})" if parts else f"channel {channel}")
    if layer > 1:
        parts.append(f"(layer {layer})")
    return " ".join(parts)


def parse_voice(voice: str) -> tuple[str | None, str | None]:
    """Return the speaker and the channel in a name of `name_voice`.

    Parameters
    ----------
    voice
        The name; it may be empty.
    """
    voice = LAYER.sub("", voice)
    found = CHANNEL.fullmatch(voice)
    speaker, channel = (found[2], found[1] or found[3]) if found else (voice, None)
    return (speaker or "").removesuffix(" (speaker)") or None, channel
