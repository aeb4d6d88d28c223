"""Turns in a table, or in the output of `ser annotate`."""

import codecs
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sercli.delimited import Row, Table, parse_seconds, read_table
from sercli.errors import ConfigError
from sercli.files import resolve_folder
from sercli.json_text import FAILURES, check_text, parse_document, parse_line, tell_failure
from sercli.listed import find_listed, tidy_listed
from sercli.speech.turn import TIMES, Turn
from sercli.text import compose

# Columns of a table that says who speaks in the channels of every recording with several, and the
# key of its turns; no path of a recording is empty.
OF_CHANNELS = ("channel", "speaker")
EVERYWHERE = ""


def read_turn_table(
    path: Path, content: bytes, needed: Sequence[str]
) -> dict[str, tuple[Turn, ...]]:
    """Read a table of turns; see `sercli.speech.turns.Turns.read`.

    Parameters
    ----------
    path
        Path of the file, to whose folder paths are relative.
    content
        Content of the file.
    needed
        Columns that it must have in addition to file. If it is only the speaker, a table of
        channel and speaker alone says who speaks in the channels of every recording.

    Returns
    -------
    dict of str to tuple of Turn
        Turns by the real path of the recording, or by `EVERYWHERE`.

    Raises
    ------
    ConfigError
        If it cannot be read, lacks columns, a time is no number of seconds, or a recording has two
        speakers throughout.
    """
    # What `ser annotate` wrote of recordings without speech is empty, or has only a header.
    is_empty = not content and path.suffix.lower() == ".jsonl"
    text = content.removeprefix(codecs.BOM_UTF8)
    if is_empty or text.startswith(b"{"):
        table = _read_results(path, text)
    else:
        table = read_table(path, ConfigError, content, may_be_empty={*TIMES} <= {*needed})
    expected = ("file", *needed)
    told = {*table.columns} & {"file", *TIMES, *OF_CHANNELS}
    if expected == ("file", "speaker") and told == {*OF_CHANNELS}:
        expected = OF_CHANNELS
    if not set(expected) <= set(table.columns):
        others = [name for name in ("channel", *TIMES, "speaker") if name not in expected]
        raise ConfigError(
            f"{path}: has the columns {', '.join(filter(None, table.columns))}; expected "
            f"{', '.join(expected)}, and any of {', '.join(others)}"
        )
    # Tables have many consecutive rows of one file. Another call may be in another directory.
    find_file = lru_cache(maxsize=1)(_find_file)
    found: dict[str, list[Turn]] = {}
    whole: dict[str, dict[str | None, str]] = {}
    for where, cells in table.rows:
        turn = _read_turn(where, cells, expected)
        key = EVERYWHERE
        if "file" in expected:
            key = find_file(path.parent, tidy_listed(path.parent, cells["file"]))
        if turn[:2] == Turn()[:2]:
            _refuse_second(where, whole.setdefault(key, {}), turn)
        found.setdefault(key, []).append(turn)
    return {key: tuple(turns) for key, turns in found.items()}


def _read_turn(where: str, cells: Mapping[str, str], expected: Sequence[str]) -> Turn:
    """Return the turn of a row; raise if it lacks what is expected of each, or is impossible."""
    vital = ("file", "channel", *TIMES)
    empty = [name for name in vital if name in expected and not cells[name].strip()]
    if empty:
        raise ConfigError(f"{where}: has no {empty[0]}; expected one")
    start, end = (
        parse_seconds(cells[name], f"{where}: {name}", ConfigError) if cells.get(name) else missing
        for name, missing in zip(TIMES, (-math.inf, math.inf), strict=True)
    )
    # Turns of length 0 are allowed, as diarisations have them, and reported as too short later.
    if start > end:
        raise ConfigError(
            f"{where}: starts at {start:g} s and ends at {end:g} s; expected no end before the "
            "start"
        )
    channel, speaker = (cells.get(name, "").strip() for name in OF_CHANNELS)
    if "file" not in expected and not channel.isdecimal():
        raise ConfigError(f"{where}: channel is {channel!r}; expected its number, counted from 0")
    return Turn(start, end, channel or None, compose(speaker) or None)


def _read_results(path: Path, content: bytes) -> Table:
    """Read JSON or JSON Lines that `ser annotate` wrote, as a table."""
    columns = ("file", "channel", *TIMES, "speaker")
    rows: list[Row] = []
    where = str(path)

    def add(values: Mapping[str, Any]) -> None:
        found = {name: values.get(name) for name in columns}
        cells = {name: "" if one is None else check_text(one) for name, one in found.items()}
        rows.append(Row(where, cells))

    try:
        document = parse_document(path, content, ConfigError)
        for file in document["files"] if document else ():
            where = str(path)  # while the name is in doubt
            where = f"{path}: {check_text(file['path'])}"
            for segment in file["segments"]:
                add({"file": file["path"], **segment})
        # Of bytes: texts have more kinds of line ends, which may be within names.
        for number, line in enumerate(() if document else content.splitlines(), start=1):
            where = f"{path}, line {number}"
            if line.strip():
                add(parse_line(line))
    except FAILURES as error:
        raise ConfigError(
            f"{where}: cannot be read: {tell_failure(error)}; expected what `ser annotate` wrote, "
            "or a table"
        ) from error
    tells_speakers = any(row.cells["speaker"] for row in rows)
    return Table(columns if tells_speakers else columns[:-1], iter(rows))


def _refuse_second(where: str, known: dict[str | None, str], turn: Turn) -> None:
    """Raise if a whole recording, or a whole channel of it, has a second speaker."""
    if turn.speaker is None:
        return
    channels = known if turn.channel is None else (turn.channel, None)
    others = {known.get(channel) for channel in channels} - {None, turn.speaker}
    if others:
        raise ConfigError(
            f"{where}: {turn.speaker} speaks throughout, but an earlier row says so of "
            f"{others.pop()}; expected a single speaker, or the times or the channel of each"
        )
    known[turn.channel] = turn.speaker


def _find_file(folder: Path, name: str) -> str:
    return resolve_folder(find_listed(folder, name) or folder / name)
