"""What a run before had: the labels of files that need not be heard again.

It is found in the output of that run, file by file, and in the run record beside it, which tells
what became of each file and how large and old it was. Nothing is kept in memory but where the rows
of each file are.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from sercli.discovery import Found
from sercli.errors import OutputError
from sercli.report import RunInfo
from sercli.schema import printable_path
from sercli.writers import JSON_INDENT, record_path

# Of the options, those that bear on the labels; the others may be others.
BEARING = (
    "target",
    "adapt",
    "precision",
    "labels",
    "mode",
    "max_segment",
    "min_segment",
    "max_gap",
    "window",
    "hop",
    "vad_threshold",
    "channels",
    "segments",
    "segments_sha256",
    "format",
)

# What the record must have of a file.
NEEDED = {"path", "status", "bytes", "modified", "duration", "n_segments"}

# Path of a file, number of its rows, and where they begin and end in the output, in bytes.
Place = tuple[str, int, int, int]


@dataclass(frozen=True)
class Earlier:
    """The results of a run before.

    Parameters
    ----------
    target
        Its output.
    entries
        Of its record, by the path of the file: those whose rows are there.
    places
        Where in the output these are, in bytes.
    """

    target: Path
    entries: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    places: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, target: Path, info: RunInfo) -> Self:
        """Find the results of a run before; there are none if it left neither output nor record.

        Parameters
        ----------
        target
            Its output.
        info
            Of the run that goes on.

        Raises
        ------
        OutputError
            If it was a run with another model or other settings, or what it left cannot be read.
        """
        record = record_path(str(target))
        if not target.exists() and not record.exists():
            return cls(target)
        try:
            data = json.loads(record.read_text(encoding="utf-8"))
            entries = {entry["path"]: entry for entry in data["files"] if set(entry) >= NEEDED}
            _refuse_others(target, data, info)
            with target.open("rb") as stream:
                places = list(INDEXES[info.options["format"]](stream))
        except (OSError, UnicodeError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise OutputError(
                f"{target}: cannot be gone on with: {error}; expected the output of a run, and its "
                f"record {record} beside it. Begin anew with --overwrite"
            ) from error
        found = {path: (start, end) for path, n, start, end in places if _count(entries, path) == n}
        if info.options["format"] != "json":
            # What has no rows is in no table.
            found |= {path: (0, 0) for path in entries if not _count(entries, path)}
        return cls(target, {path: entries[path] for path in found}, found)

    def find(self, found: Found) -> dict[str, Any] | None:
        """Return what the record has of a file that was heard to its end and has not changed.

        Parameters
        ----------
        found
            An input.
        """
        entry = self.entries.get(printable_path(found.path))
        if found.error is not None or entry is None or entry["status"] == "failed":
            return None
        try:
            status = os.stat(found.path)
        except OSError:
            return None
        now = (status.st_size, status.st_mtime)
        return entry if now == (entry["bytes"], entry["modified"]) else None

    def read_rows(self, entry: Mapping[str, Any]) -> str:
        """Return the rows of a file, as they are in the output.

        Parameters
        ----------
        entry
            Of `find`.
        """
        start, end = self.places[entry["path"]]
        if start == end:
            return ""
        with self.target.open("rb") as stream:
            stream.seek(start)
            return stream.read(end - start).decode("utf-8")


def _refuse_others(target: Path, data: Mapping[str, Any], info: RunInfo) -> None:
    """Refuse to go on with labels that would not be the same today."""
    before = {"ser": data["ser_version"], "model": data["model"]["sha256"]}
    now = {"ser": info.version, "model": info.model["sha256"]}
    before |= {name: data["options"].get(name) for name in BEARING}
    # As JSON has them.
    now |= json.loads(json.dumps({name: info.options.get(name) for name in BEARING}))
    for name, value in now.items():
        if before[name] != value:
            raise OutputError(
                f"{target}: was made with another {name}: {before[name]}, now it is {value}; go "
                "on with the same, or begin anew with --overwrite"
            )


def _count(entries: Mapping[str, Mapping[str, Any]], path: str) -> int | None:
    return entries[path]["n_segments"] if path in entries else None


def _group(rows: Iterator[tuple[str, int, int]]) -> Iterator[Place]:
    """Give the rows of each file together; they follow each other."""
    place: Place | None = None
    for path, start, end in rows:
        if place is not None and place[0] == path:
            place = (path, place[1] + 1, place[2], end)
            continue
        if place is not None:
            yield place
        place = (path, 1, start, end)
    if place is not None:
        yield place


def _index_csv(stream: BinaryIO) -> Iterator[Place]:
    # A field may hold line ends: the reader takes as many lines as a row has.
    ends = [0]

    def lines() -> Iterator[str]:
        for line in stream:
            ends[0] += len(line)
            yield line.decode("utf-8")

    def rows() -> Iterator[tuple[str, int, int]]:
        reader = csv.reader(lines())
        next(reader, None)
        start = ends[0]
        for row in reader:
            yield row[0], start, ends[0]
            start = ends[0]

    yield from _group(rows())


def _index_json_lines(stream: BinaryIO) -> Iterator[Place]:
    def rows() -> Iterator[tuple[str, int, int]]:
        start = 0
        for line in stream:
            yield json.loads(line)["file"], start, start + len(line)
            start += len(line)

    yield from _group(rows())


def _index_json(stream: BinaryIO) -> Iterator[Place]:
    # A line for each file.
    start = 0
    for line in stream:
        if line.startswith(JSON_INDENT.encode() + b"{"):
            text = line.strip().removesuffix(b",")
            entry = json.loads(text)
            first = start + len(JSON_INDENT)
            yield entry["path"], len(entry["segments"]), first, first + len(text)
        start += len(line)


INDEXES: Mapping[str, Callable[[BinaryIO], Iterator[Place]]] = {
    "csv": _index_csv,
    "json": _index_json,
    "jsonl": _index_json_lines,
}
