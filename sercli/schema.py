"""Results as they cross modules: segments with labels, and files with a status.

Times are seconds from the start of the file, half-open ``[start, end)``.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "no speech", "failed"]

# Channel name of a row that judges the mean of several channels.
MIX = "mix"

# What stands for an undecodable byte in a text.
ESCAPE = re.compile(r"\\(x[0-9a-f]{2})")

# Columns of probabilities are named by it and the label.
PROBABILITY_PREFIX = "prob_"


@dataclass(frozen=True)
class Segment:
    """A stretch of one channel with its label.

    Parameters
    ----------
    channel
        Index of the channel from 0, or ``"mix"`` for the mean of several.
    start, end
        Seconds from the start of the file.
    emotion
        The label with the highest probability.
    confidence
        Calibrated probability of that label, in ``[0, 1]``.
    probabilities
        One per label, in the order of the model's labels; they sum to 1.
    speaker
        Who speaks, where that was told.
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
    """Segments that are judged by a baseline of their own.

    Parameters
    ----------
    name
        The recording, channel or speaker, or ``"corpus"``.
    n_segments
        Of all files.
    adapted
        Whether they were judged by it; else there were too few, and each was judged by itself.
    """

    name: str
    n_segments: int
    adapted: bool


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    Parameters
    ----------
    path
        The path as it was given.
    status
        ``"ok"``, ``"no speech"`` or ``"failed"``; a file that fails half-way keeps the segments
        found until then.
    segments
        Sorted by start, then channel.
    labels
        Of the model, in the order of their probabilities; empty where that is not known.
    duration
        Seconds that were decoded.
    sample_rate
        The file's own, in Hz; None if it could not be opened.
    channels
        Number of channels in the file; None if it could not be opened.
    error
        Why the file failed, else None.
    warnings
        What a user should know of a file that did not fail.
    groups
        Whose baselines its segments were judged by, if by any.
    size, modified
        Bytes of the file, and when it was last changed, in seconds since 1970; None if there is no
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
        The model's labels in order.
    speakers
        Whether it was told who speaks.
    """
    place = ("file", "channel", "start", "end", *(("speaker",) if speakers else ()))
    return (*place, "emotion", "confidence", *(PROBABILITY_PREFIX + label for label in labels))


def printable_path(path: str) -> str:
    r"""Return a path that any encoder can write, undecodable bytes escaped as ``\xNN``.

    A path that spells such an escape has its backslash escaped, too, so that no two are alike;
    but on Windows, where backslashes separate folders, and no name has undecodable bytes.

    Parameters
    ----------
    path
        A path as Python holds it, where undecodable bytes are lone surrogates.
    """
    if os.name != "nt":
        path = ESCAPE.sub(r"\\x5c\1", path)
    return printable(path)


def printable(text: str) -> str:
    r"""Return a text that any encoder can write, undecodable bytes escaped as ``\xNN``.

    Parameters
    ----------
    text
        Such as a message with paths in it, as Python holds them.
    """
    # Whatever the encoding of names is here: of a table, they may be in any script.
    strays = "surrogatepass" if os.name == "nt" else "surrogateescape"
    return text.encode("utf-8", strays).decode("utf-8", "backslashreplace")
