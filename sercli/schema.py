"""Results that modules exchange: segments with labels, and files with a status.

Times are seconds from the start of the file, half-open ``[start, end)``.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "no speech", "failed"]

# Channel name of a segment of the mean of several channels.
MIX = "mix"

# The escape that stands for an undecodable byte, in a text and in the bytes of one.
ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
ESCAPED = re.compile(ESCAPE.pattern.encode())

# The name of a column of probabilities is this and the label.
PROBABILITY_PREFIX = "prob_"


@dataclass(frozen=True)
class Segment:
    """Stretch of one channel with its label.

    Parameters
    ----------
    channel
        Index of the channel from 0, or ``"mix"`` for the mean of several.
    start, end
        Times in seconds from the start of the file.
    emotion
        The label with the highest probability.
    confidence
        Calibrated probability of that label, in ``[0, 1]``.
    probabilities
        Calibrated probability of each label, in the order of the model's labels; they sum to 1.
    speaker
        Name of the speaker, if known.
    """

    channel: str
    start: float
    end: float
    emotion: str
    confidence: float
    probabilities: tuple[float, ...]
    speaker: str | None = None


@dataclass(frozen=True)
class Group:
    """Group of segments that share a baseline.

    Parameters
    ----------
    name
        Name of the recording, channel or speaker, or ``"corpus"``.
    n_segments
        Number of its segments in all files; of those that are longer than 30 s, of their parts.
    adapted
        Whether the baseline was used; if not, the group has too few segments, and each was scored
        by itself.
    """

    name: str
    n_segments: int
    adapted: bool


@dataclass(frozen=True)
class FileResult:
    """Result of one file: its status, its segments and facts about it.

    Parameters
    ----------
    path
        The path as it was given.
    status
        ``"ok"``, ``"no speech"`` or ``"failed"``; a file that fails half-way keeps the segments
        found until then.
    segments
        Labelled segments, sorted by start, end and channel.
    labels
        Labels of the model, in the order of the probabilities; empty if unknown.
    duration
        Decoded duration in seconds.
    sample_rate
        Sample rate of the file in Hz; None if it could not be opened.
    channels
        Number of channels in the file; None if it could not be opened.
    error
        Why the file failed, else None.
    warnings
        Warnings about the file.
    groups
        Groups whose baselines its segments were scored with; empty without baselines.
    size, modified
        Size in bytes, and time of the last change in seconds since 1970; None if there is no
        file.
    """

    path: str
    status: Status
    segments: tuple[Segment, ...] = ()
    labels: tuple[str, ...] = field(default=(), kw_only=True)
    duration: float = 0.0
    sample_rate: int | None = None
    channels: int | None = None
    error: str | None = None
    warnings: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    size: int | None = None
    modified: float | None = None


def columns(labels: Sequence[str], *, speakers: bool = False) -> tuple[str, ...]:
    """Return the column names of a table of segments, in order.

    Parameters
    ----------
    labels
        Labels of the model, in order.
    speakers
        Whether to include a column of speakers.
    """
    place = ("file", "channel", "start", "end", *(("speaker",) if speakers else ()))
    return (*place, "emotion", "confidence", *(PROBABILITY_PREFIX + label for label in labels))


def printable_path(path: str) -> str:
    r"""Return a path that any encoder can write, undecodable bytes escaped as ``\xNN``.

    In a path that spells such an escape, the backslash is escaped too, so that no two paths become
    the same. Not on Windows, where backslashes separate folders and no name has undecodable bytes.

    Parameters
    ----------
    path
        Path as Python holds it, with undecodable bytes as lone surrogates.
    """
    if os.name != "nt":
        path = ESCAPE.sub(r"\\x5cx\1", path)
    return printable(path)


def parse_path(text: str) -> str:
    """Return the path whose `printable_path` is a text, or would be.

    Parameters
    ----------
    text
        A path in a table, such as the output of `ser annotate`.
    """
    if os.name == "nt":
        return text
    return os.fsdecode(ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(text)))


def printable(text: str) -> str:
    r"""Return a text that any encoder can write, undecodable bytes escaped as ``\xNN``.

    Parameters
    ----------
    text
        Text, such as a message that contains paths, with undecodable bytes as lone surrogates.
    """
    # UTF-8 whatever the file system's encoding: names from a table may be in any script.
    strays = "surrogatepass" if os.name == "nt" else "surrogateescape"
    return text.encode("utf-8", strays).decode("utf-8", "backslashreplace")
