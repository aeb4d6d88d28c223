"""Results of earlier runs, from which a run resumes: the rows of files that have not changed.

The rows are in the output of an earlier run, and the run record beside it has the status, size and
modification time of each file. Or they are in the temporary file of a killed run, with its journal
instead of a record. Only the positions of the rows are kept in memory.
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
from sercli.files import AnyPath, parse_json
from sercli.output.journal import Unfinished
from sercli.output.report import RunInfo, check_file
from sercli.output.writers import JSON_INDENT, record_path
from sercli.schema import FileResult, columns, printable_path
from sercli.text import format_count

# Options that affect the labels, and must be the same as before.
BEARING = (
    "target",
    "adapt",
    "speakers_pattern",
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

Stamp = tuple[int, int, int]
# Path of a file, number of its rows, and where they begin and end in the output, in bytes.
Place = tuple[str, int, int, int]
Entries = Mapping[str, dict[str, Any]]


class Rows(NamedTuple):
    """Position of the rows of a file.

    Parameters
    ----------
    output
        Path of the output that has them.
    start, end
        Start and end in bytes; the same if there are no rows.
    stamp
        Stamp of the output when the rows were found; see `find_stamp`.
    """

    output: Path
    start: int
    end: int
    stamp: Stamp | None


@dataclass(frozen=True)
class Earlier:
    """Results of earlier runs.

    Parameters
    ----------
    entries
        Entries of run records and journals by the path of the file, of files whose rows exist.
    places
        Positions of these rows, by the path of the file.
    """

    entries: Entries = field(default_factory=dict)
    places: Mapping[str, Rows] = field(default_factory=dict)

    @classmethod
    def read(cls, target: Path, info: RunInfo, unfinished: Sequence[Unfinished] = ()) -> Self:
        """Find the results of earlier runs of an output; they may be empty.

        Parameters
        ----------
        target
            Path of the output.
        info
            Description of the run that resumes.
        unfinished
            Files that unfinished runs of the output left, the oldest first; if several have rows of
            a file, the last counts.

        Raises
        ------
        OutputError
            If an earlier run had another model or other settings, or its files cannot be read or do
            not match each other.
        """
        entries: dict[str, dict[str, Any]] = {}
        places: dict[str, Rows] = {}
        record = record_path(target)
        anew = [number for number, one in enumerate(unfinished) if one.replaces]
        if anew:  # the last run with --overwrite replaces all that was before it
            unfinished = unfinished[anew[-1] :]
        # A run whose output is in its place has copied all that is older.
        last = max((number for number, one in enumerate(unfinished) if one.in_place), default=0)
        unfinished = unfinished[last:]
        in_place = [one for one in unfinished if one.in_place]
        # A run that could not write its output may have written its record.
        has_output = target.exists() or (record.exists() and not unfinished)
        if in_place or (has_output and not anew):
            beside = f"its journal {in_place[-1].journal}" if in_place else f"its record {record}"
            with _reading(target, beside):
                if in_place:  # the record may be that of the previous output
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
        """Return the entry of a file, however its path is spelled, or None.

        Parameters
        ----------
        found
            The file, an input of the run.
        """
        return self._by_place.get(_place_of(found.path))

    def still_holds(self, found: Found, entry: Mapping[str, Any], turns: str | None) -> bool:
        """Return whether the rows of a file are still valid: it did not fail, and has not changed.

        Parameters
        ----------
        found
            The file, an input of the run.
        entry
            Its entry in the record.
        turns
            Hash of the segments given for it, if any.
        """
        if found.error is not None or entry["status"] == "failed":
            return False
        if entry.get("turns_sha256") != turns:
            return False
        try:
            status = os.stat(found.path)
        except (OSError, ValueError):  # ValueError: the path contains NUL
            return False
        return (status.st_size, status.st_mtime) == (entry["bytes"], entry["modified"])

    def outlasts(self, entry: Mapping[str, Any], result: FileResult) -> bool:
        """Return whether to keep the earlier rows of a file that cannot be read now.

        They are kept if the file is missing or unchanged, as nothing shows that they are wrong.

        Parameters
        ----------
        entry
            Entry of the file in the record.
        result
            Result of the file in this run.
        """
        if result.status != "failed" or result.segments or not entry["n_segments"]:
            return False
        now = (result.size, result.modified)
        return now in ((None, None), (entry["bytes"], entry["modified"]))

    def find_others(self, inputs: Iterable[Found]) -> list[dict[str, Any]]:
        """Return the entries of files that are not among the inputs.

        Files that failed and have no rows are left out, as some have never existed.

        Parameters
        ----------
        inputs
            Inputs of the run.
        """
        named = {_place_of(found.path) for found in inputs}
        return [
            entry
            for place, entry in self._by_place.items()
            if place not in named and (entry["status"] != "failed" or entry["n_segments"])
        ]

    @cached_property
    def _by_place(self) -> dict[str, dict[str, Any]]:
        """The entries by absolute path, so that each file has its rows only once."""
        here = printable_path(os.getcwd())
        return {
            os.path.normpath(os.path.join(here, path)): entry
            for path, entry in self.entries.items()
        }

    def read_rows(self, entry: Mapping[str, Any]) -> str:
        """Return the rows of a file, as they are in the earlier output.

        Parameters
        ----------
        entry
            Entry of the file, from `find` or `find_others`.
        """
        output, start, end, stamp = self.places[entry["path"]]
        if start == end:
            return ""
        try:
            with output.open("rb") as stream:
                check_stamp(output, stamp, find_stamp(stream.fileno()))
                stream.seek(start)
                return stream.read(end - start).decode("utf-8")
        except (OSError, UnicodeError) as error:
            raise OutputError(
                f"{output}: cannot be read: {error}; go on with --resume when it can"
            ) from error


def find_stamp(path: AnyPath | int) -> Stamp | None:
    """Return inode, time of change and size of a file, which show a change; None if it is missing.

    Parameters
    ----------
    path
        Path of the file, or its descriptor.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def check_stamp(output: AnyPath, before: Stamp | None, now: Stamp | None) -> None:
    """Raise if an output has changed.

    Parameters
    ----------
    output
        Path of the output.
    before, now
        Its stamps; see `find_stamp`.

    Raises
    ------
    OutputError
        If the stamps differ.
    """
    if before != now:
        raise OutputError(
            f"{output}: another run or program has written it meanwhile; go on with that one, by "
            "--resume"
        )


def _place_of(path: str) -> str:
    return printable_path(os.path.abspath(path))


@contextmanager
def _reading(output: Path, beside: str) -> Iterator[None]:
    """Turn errors in reading an earlier run's files into `OutputError` with a remedy."""
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
    """Add the entries of an output, and the positions of their rows up to `end` in bytes.

    Raises `ValueError` if a row belongs to no entry, as it would be lost.
    """
    if not found and not end:  # the run was killed before its first file
        return
    for entry in found.values():
        check_file(entry)
    kind = info.options["format"]
    names = columns(info.model["labels"], speakers=info.speakers)
    # Files without rows do not appear in tables.
    left = {path: one["n_segments"] for path, one in found.items()}
    absent = [path for path, n_rows in left.items() if not n_rows and kind != "json"]
    placed = {path: Rows(output, 0, 0, None) for path in absent}
    with output.open("rb") as stream:
        stamp = find_stamp(stream.fileno())
        for path, n_rows, first, last in INDEXES[kind](_read_lines(stream, end), names):
            if path in placed or left.get(path) != n_rows:
                told = left.get(path, "none")
                raise ValueError(
                    f"it has {format_count(n_rows, 'row')} of {path} together, and was written "
                    f"with {told}"
                )
            placed[path] = Rows(output, first, last, stamp)
    if lost := found.keys() - placed.keys():
        raise ValueError(f"it has no row of {min(lost)}, and was written with {left[min(lost)]}")
    entries |= found
    places |= placed


def _read_lines(stream: BinaryIO, end: int) -> Iterator[bytes]:
    """Yield lines up to the byte `end`; the last one may lack its line end."""
    while (left := end - stream.tell()) > 0:
        yield stream.readline(left)


def _refuse_others(target: Path, data: Mapping[str, Any], info: RunInfo) -> None:
    """Raise if the model, the version or a setting that affects labels has changed."""
    before = {"ser": data["ser_version"], "model": data["model"]["sha256"]}
    now = {"ser": info.version, "model": info.model["sha256"]}
    before |= _list_bearing(data["options"])
    # In JSON types, as the earlier ones.
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
    target: Path, data: Mapping[str, Any], entries: Entries, info: RunInfo
) -> None:
    """Raise if paths are relative to another directory, as all files would be added again.

    Not if they exist from the current directory instead, as in a project that was moved.
    """
    before = data.get("directory", info.directory)
    relative = [path for path in entries if not os.path.isabs(path)]
    if before == info.directory or not relative:
        return
    # Another folder may have files of the same names.
    was_moved = not any(os.path.exists(os.path.join(before, path)) for path in relative)
    if was_moved and any(_has_size(path, entries[path]["bytes"]) for path in relative):
        return
    raise OutputError(
        f"{target}: its paths, such as {relative[0]}, are relative to {before}, and this is "
        f"{info.directory}; go on in that directory, or begin anew with --overwrite"
    )


def _has_size(path: str, n_bytes: int | None) -> bool:
    try:
        return os.path.getsize(path) == n_bytes
    except OSError:
        return False


def _list_bearing(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that affect labels of all files.

    Whether segments are given is one; which ones, affects single files, see `Earlier.still_holds`.
    """
    source = "those given" if options.get("segments_sha256") else "those found"
    speakers = "told" if options.get("tells_speakers") else "not told"
    return {
        "segments": source,
        "speakers": speakers,
        **{name: options.get(name) for name in BEARING},
    }


def _group(rows: Iterator[tuple[str, int, int]]) -> Iterator[Place]:
    """Yield the place of each run of consecutive rows of the same file."""
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
    # A field may contain line ends: the reader consumes as many lines as a row has.
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
    # Each file is on a line of its own.
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
