"""Turns in a diarisation in RTTM."""

import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from reprlib import repr as shorten

from sercli.delimited import parse_count, parse_seconds
from sercli.errors import ConfigError
from sercli.speech.turn import Turn
from sercli.text import compose

SUFFIX = ".rttm"
# Fields of a turn: type, file, channel, start, duration, and the speaker after two more.
LEAST_FIELDS, MOST_FIELDS = 8, 10
COMMENT = ";;"
# Unknown values.
UNKNOWN = "<NA>"


def read_rttm(path: Path, content: bytes) -> tuple[dict[str, tuple[Turn, ...]], dict[str, int]]:
    """Read a diarisation.

    Parameters
    ----------
    path
        Path of the file, for error messages.
    content
        Content of the file.

    Returns
    -------
    turns : dict of str to tuple of Turn
        Turns by the name of the recording. They have channels only where a recording has several,
        as most diarisations are made from a mix, but name a channel nevertheless.
    lines : dict of str to int
        Line at which each name first appears.

    Raises
    ------
    ConfigError
        If it is not UTF-8, has no turns, or a turn lacks fields, a time or a valid channel.
    """
    found: dict[str, list[Turn]] = {}
    lines: dict[str, int] = {}
    for number, name, turn in _read_lines(path, content):
        found.setdefault(name, []).append(turn)
        lines.setdefault(name, number)
    if not found:
        raise ConfigError(f"{path}: has no turns; expected lines that begin with SPEAKER")
    for turns in found.values():
        if len({turn.channel for turn in turns}) == 1:
            turns[:] = [turn._replace(channel=None) for turn in turns]
    return {name: tuple(turns) for name, turns in found.items()}, lines


def _read_lines(path: Path, content: bytes) -> Iterator[tuple[int, str, Turn]]:
    """Yield the line number, the name of the recording and the turn, for each turn."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}, line {number}: is not UTF-8: {error}; expected RTTM in UTF-8"
        ) from error
    for number, line in enumerate(StringIO(text, newline=""), start=1):
        # Other white space, such as that of Japanese, may be within a name.
        fields = re.split(r"[ \t]+", line.strip(" \t\r\n"))
        if fields[0] != "SPEAKER":
            continue
        comment = next((i for i, one in enumerate(fields) if one.startswith(COMMENT)), None)
        fields = fields[:comment]
        where = f"{path}, line {number}"
        if len(fields) > MOST_FIELDS:
            raise ConfigError(
                f"{where}: a turn is {line.strip()!r}; expected at most {MOST_FIELDS} fields, so "
                "names without spaces"
            )
        if len(fields) < LEAST_FIELDS:
            raise ConfigError(
                f"{where}: a turn is {line.strip()!r}; expected {LEAST_FIELDS} fields or more"
            )
        start, duration = (
            parse_seconds(field, f"{where}: {name}", ConfigError)
            for name, field in zip(("start", "duration"), fields[3:5], strict=True)
        )
        name = compose(fields[1])
        # In another recording, the same name is somebody else.
        speaker = None if fields[7] == UNKNOWN else f"{name}/{compose(fields[7])}"
        yield number, name, Turn(start, start + duration, _name_channel(fields[2], where), speaker)


def _name_channel(text: str, where: str) -> str | None:
    """Return the channel of a diarisation as results name it, or None for any."""
    try:
        is_below = float(text) < 1
    except ValueError:
        is_below = False
    # RTTM counts from 1: if counted from 0, each channel would be taken for the one before.
    if is_below:
        raise ConfigError(
            f"{where}: channel is {shorten(text)}; expected a number from 1 on, as RTTM counts "
            f"them, or {UNKNOWN}"
        )
    index = parse_count(text)
    return None if index is None else str(index - 1)
