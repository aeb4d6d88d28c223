"""What runs before had: the labels of files that need not be heard again.

It is found in the output of a run, file by file, and in the run record beside it, which tells what
became of each file and how large and old it was; or in what a run left that was killed, and in the
journal beside that. Nothing is kept in memory but where the rows of each file are.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from sercli.discovery import Found
from sercli.errors import OutputError
from sercli.files import parse_json
from sercli.output.journal import Unfinished
from sercli.output.report import RunInfo, check_file
from sercli.output.writers import JSON_INDENT, record_path
from sercli.schema import FileResult, columns, printable_path
from sercli.text import format_count

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
    "format",
)

# Path of a file, number of its rows, and where they begin and end in the output, in bytes.
Place = tuple[str, int, int, int]
Entries = Mapping[str, dict[str, Any]]


class Rows(NamedTuple):
    """Where the rows of a file are.

    Parameters
    ----------
    output
        That holds them.
    start, end
        In bytes; the same if there are none.
    """

    output: Path
    start: int
    end: int


@dataclass(frozen=True)
class Earlier:
    """The results of runs before.

    Parameters
    ----------
    entries
        Of their records, by the path of the file: those whose rows are there.
    places
        Where these are.
    """

    entries: Entries = field(default_factory=dict)
    places: Mapping[str, Rows] = field(default_factory=dict)

    @classmethod
    def read(cls, target: Path, info: RunInfo, unfinished: Sequence[Unfinished] = ()) -> Self:
        """Find the results of runs before; there are none if they left nothing.

        Parameters
        ----------
        target
            Their output.
        info
            Of the run that goes on.
        unfinished
            What others left that were to write it; of a file, the last counts.

        Raises
        ------
        OutputError
            If it was a run with another model or other settings, or what it left cannot be read, or
            does not go together.
        """
        entries: dict[str, dict[str, Any]] = {}
        places: dict[str, Rows] = {}
        record = record_path(target)
        anew = [number for number, one in enumerate(unfinished) if one.replaces]
        if anew:  # what was there before is to be gone
            unfinished = unfinished[anew[-1] :]
        in_place = [one for one in unfinished if one.in_place]
        # A run that could not write its output may have written its record.
        has_output = target.exists() or (record.exists() and not unfinished)
        if in_place or (has_output and not anew):
            beside = f"its journal {in_place[-1].journal}" if in_place else f"its record {record}"
            with _reading(target, beside):
                if in_place:  # the record may be that of the output before
                    data, found, _ = in_place[-1].read()
                else:
                    data = parse_json(record.read_text(encoding="utf-8"))
                    found = {entry["path"]: entry for entry in data["files"]}
                _refuse_others(target, data, info)
                _refuse_elsewhere(target, data, found, info)
                _place(found, target, target.stat().st_size, info, entries, places)
        for one in unfinished:
            if one.in_place:
                continue
            with _reading(one.rows, f"its journal {one.journal}"):
                told = one.read()
                _refuse_others(one.rows, told.header, info)
                _refuse_elsewhere(one.rows, told.header, told.entries, info)
                _place(told.entries, one.rows, told.end, info, entries, places)
        return cls(entries, places)

    def find(self, found: Found) -> dict[str, Any] | None:
        """Return what the record has of a file, however its path was spelled.

        Parameters
        ----------
        found
            An input.
        """
        return self._by_place.get(_place_of(found.path))

    def still_holds(self, found: Found, entry: Mapping[str, Any], turns: str | None) -> bool:
        """Return whether a file was heard to its end, and has not changed.

        Parameters
        ----------
        found
            An input.
        entry
            What the record has of it.
        turns
            Digest of the segments that are given for it, if any are.
        """
        if found.error is not None or entry["status"] == "failed":
            return False
        if entry.get("turns_sha256") != turns:
            return False
        try:
            status = os.stat(found.path)
        except (OSError, ValueError):  # no path holds NUL
            return False
        return (status.st_size, status.st_mtime) == (entry["bytes"], entry["modified"])

    def outlasts(self, entry: Mapping[str, Any], result: FileResult) -> bool:
        """Return whether the rows of a file stay, as it cannot be heard now.

        Nothing tells that they are wrong: the file is away, or as it was.

        Parameters
        ----------
        entry
            What the record has of the file.
        result
            What became of it now.
        """
        if result.status != "failed" or result.segments or not entry["n_segments"]:
            return False
        now = (result.size, result.modified)
        return now in ((None, None), (entry["bytes"], entry["modified"]))

    def find_others(self, inputs: Iterable[Found]) -> list[dict[str, Any]]:
        """Return what the record has of files that are not among some inputs.

        But for those that failed and have no rows: some have never been there.

        Parameters
        ----------
        inputs
            What is labelled now.
        """
        named = {_place_of(found.path) for found in inputs}
        return [
            entry
            for place, entry in self._by_place.items()
            if place not in named and (entry["status"] != "failed" or entry["n_segments"])
        ]

    @cached_property
    def _by_place(self) -> dict[str, dict[str, Any]]:
        """The entries by where the files are: of each, there are to be rows once."""
        return {os.path.abspath(path): entry for path, entry in self.entries.items()}

    def read_rows(self, entry: Mapping[str, Any]) -> str:
        """Return the rows of a file, as they are in the output.

        Parameters
        ----------
        entry
            Of `find`.
        """
        output, start, end = self.places[entry["path"]]
        if start == end:
            return ""
        with output.open("rb") as stream:
            stream.seek(start)
            return stream.read(end - start).decode("utf-8")


def _place_of(path: str) -> str:
    return os.path.abspath(printable_path(path))


@contextmanager
def _reading(output: Path, beside: str) -> Iterator[None]:
    """Turn what may go wrong with what a run left into an error that says what to do."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, csv.Error) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise OutputError(
            f"{output}: cannot be gone on with: {reason}; expected the output of a run, and "
            f"{beside} beside it, both as they were written. Put them back, or begin anew with "
            "--overwrite"
        ) from error


def _place(
    found: Entries,
    output: Path,
    end: int,
    info: RunInfo,
    entries: dict[str, dict[str, Any]],
    places: dict[str, Rows],
) -> None:
    """Add what is known of files whose rows are in an output, which is whole up to its `end`.

    Every row is to have its place: those that have none would be lost.
    """
    if not found and not end:  # of a run that was killed before its first file
        return
    for entry in found.values():
        check_file(entry)
    kind = info.options["format"]
    names = columns(info.model["labels"], speakers=info.speakers)
    # What has no rows is in no table.
    left = {path: one["n_segments"] for path, one in found.items()}
    placed = {
        path: Rows(output, 0, 0) for path, n_rows in left.items() if not n_rows and kind != "json"
    }
    with output.open("rb") as stream:
        for path, n_rows, first, last in INDEXES[kind](_read_lines(stream, end), names):
            if path in placed or left.get(path) != n_rows:
                told = left.get(path, "none")
                raise ValueError(
                    f"it has {format_count(n_rows, 'row')} of {path} together, and was written "
                    f"with {told}"
                )
            placed[path] = Rows(output, first, last)
    if lost := found.keys() - placed.keys():
        raise ValueError(f"it has no row of {min(lost)}, and was written with {left[min(lost)]}")
    entries |= found
    places |= placed


def _read_lines(stream: BinaryIO, end: int) -> Iterator[bytes]:
    """Give lines up to a place, of which the last may lack its end."""
    while (left := end - stream.tell()) > 0:
        yield stream.readline(left)


def _refuse_others(target: Path, data: Mapping[str, Any], info: RunInfo) -> None:
    """Refuse to go on with labels that would not be the same today."""
    before = {"ser": data["ser_version"], "model": data["model"]["sha256"]}
    now = {"ser": info.version, "model": info.model["sha256"]}
    before |= _list_bearing(data["options"])
    # As JSON has them.
    now |= json.loads(json.dumps(_list_bearing(info.options)))
    for name, value in now.items():
        if before[name] != value:
            was, is_now = before[name], value
            if name == "model":
                was, is_now = (
                    f"{one['name']} ({one['sha256']})" for one in (data[name], info.model)
                )
            raise OutputError(
                f"{target}: was made with another {name}: {was}, now it is {is_now}; go on with "
                "the same, or begin anew with --overwrite"
            )


def _refuse_elsewhere(
    target: Path, data: Mapping[str, Any], entries: Iterable[str], info: RunInfo
) -> None:
    """Refuse paths that begin at another directory: all files would be there twice.

    Not where they lead to files from here, as in a project that was moved.
    """
    before = data.get("directory", info.directory)
    relative = [path for path in entries if not os.path.isabs(path)]
    if before == info.directory or not relative or any(map(os.path.exists, relative)):
        return
    raise OutputError(
        f"{target}: its paths, such as {relative[0]}, are relative to {before}, and this is "
        f"{info.directory}; go on in that directory, or begin anew with --overwrite"
    )


def _list_bearing(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what bears on the labels of any file; which segments are given, on those of one."""
    source = "those given" if options.get("segments_sha256") else "those found"
    speakers = "told" if options.get("tells_speakers") else "not told"
    return {
        "segments": source,
        "speakers": speakers,
        **{name: options.get(name) for name in BEARING},
    }


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


def _index_csv(stream: Iterable[bytes], names: Sequence[str]) -> Iterator[Place]:
    # A field may hold line ends: the reader takes as many lines as a row has.
    ends = [0]

    def lines() -> Iterator[str]:
        for line in stream:
            ends[0] += len(line)
            yield line.decode("utf-8")

    def rows() -> Iterator[tuple[str, int, int]]:
        reader = csv.reader(lines(), strict=True)
        header = next(reader, [])
        if header != [*names]:
            raise ValueError(
                f"its columns are {','.join(header)!r}, and were written as {','.join(names)!r}"
            )
        start = ends[0]
        for row in reader:
            if len(row) != len(names):
                found = format_count(len(row), "cell")
                raise ValueError(f"line {reader.line_num} has {found} in {len(names)} columns")
            yield row[0], start, ends[0]
            start = ends[0]

    yield from _group(rows())


def _index_json_lines(stream: Iterable[bytes], names: Sequence[str]) -> Iterator[Place]:
    def rows() -> Iterator[tuple[str, int, int]]:
        start = 0
        for number, line in enumerate(stream, start=1):
            row = parse_json(line.decode("utf-8"))
            if [*row] != [*names]:
                raise ValueError(
                    f"line {number} tells {','.join(row)!r}, and was written with "
                    f"{','.join(names)!r}"
                )
            yield row["file"], start, start + len(line)
            start += len(line)

    yield from _group(rows())


def _index_json(stream: Iterable[bytes], _: Sequence[str]) -> Iterator[Place]:
    # A line for each file.
    start = 0
    for line in stream:
        if line.startswith(JSON_INDENT.encode() + b"{"):
            text = line.strip().removesuffix(b",")
            entry = parse_json(text.decode("utf-8"))
            first = start + len(JSON_INDENT)
            yield entry["path"], len(entry["segments"]), first, first + len(text)
        start += len(line)


INDEXES: Mapping[str, Callable[[Iterable[bytes], Sequence[str]], Iterator[Place]]] = {
    "csv": _index_csv,
    "json": _index_json,
    "jsonl": _index_json_lines,
}
