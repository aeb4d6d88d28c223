"""Results of earlier runs, from which a run resumes: the rows of files that have not changed.

The rows are in the output of an earlier run. The run record beside it has the SHA-256 of the output
and, for each file, its status, size, modification time, and where its rows begin and end. Or the
rows are in the temporary file of a killed run, with its journal instead of a record.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Self

from sercli.discovery import Found
from sercli.errors import OutputError
from sercli.files import AnyPath, find_size_and_time
from sercli.json_text import parse_json
from sercli.output.journal import Told, Unfinished
from sercli.output.report import RunInfo, check_file
from sercli.output.writers import WRITERS, Writer, record_path
from sercli.schema import FileResult, printable_path

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

# Bytes of an output that are read at once.
CHUNK_SIZE = 1 << 20

Entry = Mapping[str, Any]
Stamp = tuple[int, int, int]


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
            f"{output}: another run or program has written to it meanwhile; continue from there "
            "with --resume"
        )


class EarlierFile(NamedTuple):
    """File that an earlier run labelled, and the place of its rows.

    Parameters
    ----------
    entry
        Its entry in the run record or the journal.
    output
        Path of the output that has its rows.
    stamp
        Stamp of the output when it was checked; see `find_stamp`.
    """

    entry: Entry
    output: Path
    stamp: Stamp | None

    def read_rows(self) -> str:
        """Return the rows, as they are in the earlier output.

        Raises
        ------
        OutputError
            If the output cannot be read, or has changed since it was checked.
        """
        start, end = self.entry["rows"]
        try:
            with self.output.open("rb") as stream:
                check_stamp(self.output, self.stamp, find_stamp(stream.fileno()))
                stream.seek(start)
                return stream.read(end - start).decode("utf-8")
        except (OSError, UnicodeError) as error:
            raise OutputError(
                f"{self.output}: cannot be read: {error}; continue with --resume when it can be "
                "read"
            ) from error

    def still_holds(self, found: Found, turns: str | None) -> bool:
        """Return whether the rows are still valid: the file did not fail, and has not changed.

        Parameters
        ----------
        found
            The file, an input of the run.
        turns
            Hash of the segments and speakers given for it, if any.
        """
        if found.error is not None or self.entry["status"] == "failed":
            return False
        if self.entry.get("turns_sha256") != turns:
            return False
        size, modified = find_size_and_time(found.path)
        return size is not None and self._is_of(size, modified)

    def outlasts(self, result: FileResult) -> bool:
        """Return whether to keep the rows although the file cannot be read now.

        They are kept if the file is missing or unchanged, as nothing shows that they are wrong.

        Parameters
        ----------
        result
            Result of the file in this run.
        """
        if result.status != "failed" or result.segments or not self.entry["n_segments"]:
            return False
        is_missing = result.size is None and result.modified is None
        return is_missing or self._is_of(result.size, result.modified)

    def _is_of(self, size: int | None, modified: float | None) -> bool:
        return (size, modified) == (self.entry["bytes"], self.entry["modified"])


@dataclass(frozen=True)
class Earlier:
    """Results of earlier runs.

    Parameters
    ----------
    files
        Files that they labelled, by absolute path, so that each has its rows only once however its
        path is spelled.
    """

    files: Mapping[str, EarlierFile] = field(default_factory=dict)

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
            If an earlier run had another model or other settings, or its files cannot be read or
            were edited.
        """
        files: dict[str, EarlierFile] = {}
        for source in _list_sources(target, unfinished):
            files |= source.read_files(info)
        return cls(files)

    def find(self, found: Found) -> EarlierFile | None:
        """Return what is known of a file, however its path is spelled, or None.

        Parameters
        ----------
        found
            The file, an input of the run.
        """
        return self.files.get(_make_absolute(printable_path(found.path)))

    def find_others(self, inputs: Iterable[Found]) -> list[EarlierFile]:
        """Return the files that are not among the inputs.

        Files that failed, have no rows and are not there are left out: some have never existed.

        Parameters
        ----------
        inputs
            Inputs of the run.
        """
        named = {_make_absolute(printable_path(found.path)) for found in inputs}
        return [
            file
            for path, file in self.files.items()
            if path not in named
            and (
                file.entry["status"] != "failed"
                or file.entry["n_segments"]
                or os.path.lexists(path)
            )
        ]


class _Source(NamedTuple):
    """Output that an earlier run left, with its record or journal."""

    output: Path
    beside: str
    read: Callable[[], Told]
    is_complete: bool = False

    def read_files(self, info: RunInfo) -> dict[str, EarlierFile]:
        """Return the files by absolute path, if their rows may be among those of a run."""
        with self._explaining():
            told = self.read()
            _refuse_others(self.output, told.header, info)
            _refuse_elsewhere(self.output, told, info)
            stamp = self._check_content(told)
            files = {
                _make_absolute(path): EarlierFile(
                    check_file(entry, recorded=True), self.output, stamp
                )
                for path, entry in told.entries.items()
            }
            if files and self.is_complete:  # those of a journal were checked as it was read
                self._check_places(told, WRITERS[info.options["format"]])
            return files

    def _check_places(self, told: Told, writer: type[Writer]) -> None:
        """Raise if the rows of all files are not what is between header and footer."""
        edges = [*chain.from_iterable(entry["rows"] for entry in told.entries.values())]
        start, end = edges[0], edges[-1]
        fits = edges[1:-1:2] == edges[2::2] and [0, *edges] == sorted([0, *edges])
        fits &= end == told.end - len(writer.footer)
        if fits:  # then the file is as long
            header_end = writer.header_end.encode()
            with self.output.open("rb") as stream:
                head = stream.read(start)
            fits = head.endswith(header_end) and head.count(header_end) == 1
        if not fits:
            raise ValueError("its record has the rows of files in other places")

    def _check_content(self, told: Told) -> Stamp | None:
        """Raise if the output was edited since it was written; return its stamp."""
        if told.sha256 is None:
            raise KeyError("output_sha256")
        with self.output.open("rb") as stream:
            stamp = find_stamp(stream.fileno())
            found = sha256()
            while chunk := stream.read(min(CHUNK_SIZE, told.end - stream.tell())):
                found.update(chunk)
        if found.hexdigest() != told.sha256:
            raise OutputError(
                f"{self.output}: was edited since it was written: its SHA-256 is not that in "
                f"{self.beside}. Put back what was written, and edit a copy of it; or keep it, and "
                "label new files into another output; or start again with --overwrite"
            )
        return stamp

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Turn errors in reading the files into `OutputError` with a remedy."""
        try:
            yield
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise OutputError(
                f"{self.output}: cannot be continued: {reason}; expected the output of a run, and "
                f"{self.beside} beside it, both as they were written. Put them back, or start "
                "again with --overwrite"
            ) from error


def _list_sources(target: Path, unfinished: Sequence[Unfinished]) -> Iterator[_Source]:
    """Yield the outputs whose rows count, the oldest first."""
    # What was before a run is of no use if that run was to replace it, or has copied it into an
    # output that is in its place.
    first = [number for number, one in enumerate(unfinished) if one.replaces or one.in_place]
    record = record_path(target)
    if not first and (target.exists() or (not unfinished and _has_output(record))):
        yield _Source(
            target, f"its record {record}", partial(_read_record, target), is_complete=True
        )
    for one in unfinished[first[-1] if first else 0 :]:
        yield _Source(one.rows, f"its journal {one.journal}", one.read)


def _has_output(record: Path) -> bool:
    """Return whether a run record, if there is one, has an output, which may have been moved.

    A run that could not write its output leaves a record without one.
    """
    try:
        return parse_json(record.read_text(encoding="utf-8")).get("output_sha256") is not None
    except FileNotFoundError:
        return False
    except (OSError, ValueError, AttributeError):
        return True


def _read_record(target: Path) -> Told:
    """Return the content of the run record of an output."""
    record = parse_json(record_path(target).read_text(encoding="utf-8"))
    entries = {entry["path"]: entry for entry in record["files"]}
    if len(entries) != record["counts"]["files"]:  # their rows would be lost
        raise ValueError(f"its record has {len(entries)} of {record['counts']['files']} files")
    return Told(record, entries, target.stat().st_size, record.get("output_sha256"))


def _make_absolute(path: str) -> str:
    """Return the absolute path of a file, given as in the output."""
    return os.path.normpath(os.path.join(printable_path(os.getcwd()), path))


def _refuse_others(output: Path, header: Mapping[str, Any], info: RunInfo) -> None:
    """Raise if the model, the version or a setting that affects labels has changed."""
    mine = json.loads(json.dumps(info.header()))  # in JSON types, as the earlier one
    before, now = _list_bearing(header), _list_bearing(mine)
    for name, value in now.items():
        if before[name] == value:
            continue
        was, is_now = before[name], value
        if name == "model":
            was, is_now = (
                f"{one['name']} ({one['sha256']})" for one in (header["model"], mine["model"])
            )
        raise OutputError(
            f"{output}: was made with another {name}: {was}, now it is {is_now}; continue with "
            "the same, or start again with --overwrite"
        )


def _list_bearing(header: Mapping[str, Any]) -> dict[str, Any]:
    """Return what affects the labels of all files.

    Whether segments are given does; which ones, affects single files, see
    `EarlierFile.still_holds`.
    """
    options = header["options"]
    return {
        "ser": header["ser_version"],
        "model": header["model"]["sha256"],
        "list of labels": ", ".join(header["model"]["labels"]),
        "segments": "those given" if options.get("segments_sha256") else "those found",
        "speakers": "told" if options.get("tells_speakers") else "not told",
        **{name: options.get(name) for name in BEARING},
    }


def _refuse_elsewhere(output: Path, told: Told, info: RunInfo) -> None:
    """Raise if paths are relative to another directory, as all files would be added again.

    Not if they exist from the current directory instead, as in a project that was moved.
    """
    before = told.header.get("directory", info.directory)
    relative = [path for path in told.entries if not os.path.isabs(path)]
    if before == info.directory or not relative:
        return
    # Another folder may have files of the same names.
    was_moved = not any(os.path.exists(os.path.join(before, path)) for path in relative)
    if was_moved and any(_has_size(path, told.entries[path]["bytes"]) for path in relative):
        return
    raise OutputError(
        f"{output}: its paths, such as {relative[0]}, are relative to {before}, but the current "
        f"directory is {info.directory}; continue in that directory, or start again with "
        "--overwrite"
    )


def _has_size(path: str, n_bytes: int | None) -> bool:
    try:
        return os.path.getsize(path) == n_bytes
    except OSError:
        return False
