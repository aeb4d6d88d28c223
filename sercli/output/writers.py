"""Writers of labels as CSV, JSON or JSON Lines, to a file or to standard output.

Files are written under a temporary name beside the target and renamed at the end, also when a run
is interrupted: finished rows are kept, and the run record says that the run was not complete.
"""

import csv
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from hashlib import sha256
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

from sercli.errors import OutputError
from sercli.files import STDOUT, AtomicFile, identify
from sercli.json_text import RECORD_SUFFIX
from sercli.output.report import RunInfo, describe_file
from sercli.schema import (
    PROBABILITY_PREFIX,
    FileResult,
    Segment,
    columns,
    printable,
    printable_path,
)

# Decimals: milliseconds for detected times, all decimals of given times; of probabilities so many
# that the sum of the rounded ones is 1 to five decimals.
TIME_DIGITS = 3
GIVEN_TIME_DIGITS = 9
PROBABILITY_DIGITS = 6


class StandardOutput:
    """Standard output as a stream of bytes, whatever its encoding.

    Raises
    ------
    OutputError
        If standard output is closed, or does not accept bytes.
    """

    def __init__(self) -> None:
        if sys.stdout is None:
            raise OutputError("standard output is closed; expected a file, by -o FILE")
        if not hasattr(sys.stdout, "buffer"):
            raise OutputError(
                "standard output does not accept bytes, as in a notebook; expected a file"
            )
        sys.stdout.flush()  # so that earlier output comes first
        self._stream: BinaryIO = sys.stdout.buffer

    def write(self, content: bytes) -> None:
        """Write bytes, and flush them.

        Raises
        ------
        BrokenPipeError
            If the reader has closed the pipe, which is not an error of the output.
        OutputError
            If they cannot be written for another reason.
        """
        rest = memoryview(content)
        try:
            while rest:  # without a buffer (python -u), a part may be written at once
                rest = rest[self._stream.write(rest) :]
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"the output cannot be written: {error.strerror}") from error


class Writer(ABC):
    """Base of the writers of results in one format; a context manager.

    The rows of a file are written at once, so that an interrupt cannot leave half of them. On exit,
    the output is finished, also after an error: finished rows must not be lost. After an
    `OutputError`, a file is left.

    Parameters
    ----------
    output
        File or standard output to write to.
    info
        Description of the run.

    Attributes
    ----------
    temporary
        Path of the output until it is renamed; None for standard output.
    n_bytes
        Number of bytes written so far.
    place
        Start and end of the rows of the last file, in bytes.
    """

    format: ClassVar[str]
    # Ends of what is before the rows, and of the output.
    header_end: ClassVar[str] = ""
    footer: ClassVar[str] = ""

    def __init__(self, output: AtomicFile | StandardOutput, info: RunInfo) -> None:
        self._output = output
        self._info = info
        self._labels: tuple[str, ...] = tuple(info.model["labels"])
        self._columns = columns(self._labels, speakers=info.speakers)
        is_given = info.options.get("segments_sha256") is not None
        self._time_digits = GIVEN_TIME_DIGITS if is_given else TIME_DIGITS
        self.temporary = output.temporary if isinstance(output, AtomicFile) else None
        self.n_bytes = 0
        self._hash = sha256()
        self._is_broken = False
        self._put(self._header())
        self.place = [self.n_bytes, self.n_bytes]

    @property
    def sha256(self) -> str:
        """SHA-256 of what was written so far."""
        return self._hash.hexdigest()

    def write(self, result: FileResult) -> None:
        """Write the rows of a file, and flush them.

        Parameters
        ----------
        result
            Result of the file.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        self.copy(self._body(result))

    def copy(self, rows: str, entry: Mapping[str, Any] | None = None) -> None:
        """Write the rows of a file from an earlier run, in the same format.

        Parameters
        ----------
        rows
            Rows as they are in the earlier output.
        entry
            Entry of the file in the run record, if it differs from that in the rows.
        """
        start = self.n_bytes
        self._put(rows)
        self.place = [start, self.n_bytes]

    def finish(self) -> None:
        """Complete the output, and rename a file to its target.

        Raises
        ------
        OutputError
            If it cannot be written or renamed.
        """
        if isinstance(self._output, AtomicFile):
            self._put(self.footer)
            self._output.close()
        elif not self._is_broken:
            self._put(self.footer)

    def leave(self) -> None:
        """Leave a file under its temporary name, from which another run can resume."""
        if isinstance(self._output, AtomicFile):
            self._output.leave()

    def discard(self) -> None:
        """Remove the temporary file."""
        if isinstance(self._output, AtomicFile):
            self._output.discard()

    def _put(self, text: str) -> None:
        # After an error, buffered text could still be written later, and was not counted.
        if self._is_broken:
            raise OutputError("the output could not be written before")
        try:
            content = text.encode()
            self._output.write(content)
            self.n_bytes += len(content)
            self._hash.update(content)
        except OutputError:
            self._is_broken = True
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OutputError) and isinstance(self._output, AtomicFile):
            self.leave()
        else:
            self.finish()

    def _list_values(self, segment: Segment) -> list[Any]:
        """Return the values of a segment for JSON, in the order of the columns after the file."""
        return [
            segment.channel,
            round(segment.start, self._time_digits),
            round(segment.end, self._time_digits),
            *self._tell_speaker(segment),
            segment.emotion,
            round(segment.confidence, PROBABILITY_DIGITS),
            *(round(probability, PROBABILITY_DIGITS) for probability in segment.probabilities),
        ]

    def _tell_speaker(self, segment: Segment) -> tuple[str, ...]:
        return (printable(segment.speaker or ""),) if self._info.speakers else ()

    def _header(self) -> str:
        return ""

    @abstractmethod
    def _body(self, result: FileResult) -> str: ...


class CsvWriter(Writer):
    """Writer of one row per segment, after RFC 4180: fields quoted if needed, lines end in CRLF."""

    format = "csv"
    header_end = "\r\n"

    def _header(self) -> str:
        return join_cells([self._columns])

    def _body(self, result: FileResult) -> str:
        path = printable_path(result.path)
        return join_cells(
            (
                path,
                segment.channel,
                self._spell_time(segment.start),
                self._spell_time(segment.end),
                *self._tell_speaker(segment),
                segment.emotion,
                *(
                    f"{value:.{PROBABILITY_DIGITS}f}"
                    for value in (segment.confidence, *segment.probabilities)
                ),
            )
            for segment in result.segments
        )

    def _spell_time(self, time: float) -> str:
        whole, _, digits = f"{time:.{self._time_digits}f}".partition(".")
        return f"{whole}.{digits.rstrip('0'):0<{TIME_DIGITS}}"


class JsonLinesWriter(Writer):
    """Writer of one JSON object per segment and line, with the names of the CSV columns."""

    format = "jsonl"

    def _body(self, result: FileResult) -> str:
        path = printable_path(result.path)
        rows = (
            dict(zip(self._columns, (path, *self._list_values(segment)), strict=True))
            for segment in result.segments
        )
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class JsonWriter(Writer):
    """Writer of one JSON document: the run, then every file with its status and segments."""

    format = "json"
    header_end = ',\n "files": ['
    footer = "\n ]\n}\n"
    _separator = "\n  "

    def copy(self, rows: str, entry: Mapping[str, Any] | None = None) -> None:
        """Write a file from an earlier run, with the fields of `entry` in place of the old ones."""
        rows = rows.lstrip(",\n ")  # the separator, which belongs to them
        if entry is not None:
            told = json.loads(rows)
            told |= {name: entry[name] for name in told if name in entry}
            rows = json.dumps(told, ensure_ascii=False)
        super().copy(self._separator + rows)
        self._separator = ",\n  "

    def _header(self) -> str:
        header = json.dumps(self._info.header(), ensure_ascii=False, indent=1)
        return header.removesuffix("\n}") + self.header_end

    def _body(self, result: FileResult) -> str:
        segments = [self._segment(segment) for segment in result.segments]
        return json.dumps(describe_file(result) | {"segments": segments}, ensure_ascii=False)

    def _segment(self, segment: Segment) -> dict[str, Any]:
        values = dict(zip(self._columns[1:], self._list_values(segment), strict=True))
        probabilities = {label: values.pop(PROBABILITY_PREFIX + label) for label in self._labels}
        return values | {"probabilities": probabilities}


WRITERS: Mapping[str, type[Writer]] = {
    writer.format: writer for writer in (CsvWriter, JsonWriter, JsonLinesWriter)
}


def choose_format(target: str, asked: str | None) -> str:
    """Return the format of a target: the one asked for, else by suffix; CSV on standard output.

    Parameters
    ----------
    target
        Path of the output, or ``"-"``.
    asked
        Name of the format, or None.

    Raises
    ------
    OutputError
        If there is no such format, or the suffix names none.
    """
    if asked is not None:
        if asked not in WRITERS:
            raise OutputError(f"format is {asked!r}; expected one of {', '.join(WRITERS)}")
        return asked
    if target == STDOUT:
        return CsvWriter.format
    suffix = Path(target).suffix.removeprefix(".").lower()
    if suffix not in WRITERS:
        raise OutputError(
            f"{target}: its suffix names no format; expected one of "
            f"{', '.join(f'.{name}' for name in WRITERS)}, or give --format"
        )
    return suffix


def open_writer(target: str, name: str, info: RunInfo, *, overwrite: bool = False) -> Writer:
    """Return a writer to a file or to standard output.

    Parameters
    ----------
    target
        Path of the output, or ``"-"``.
    name
        Name of the format.
    info
        Description of the run.
    overwrite
        Whether an existing target may be replaced.

    Raises
    ------
    OutputError
        If the target exists or cannot be written.
    """
    if target == STDOUT:
        return WRITERS[name](StandardOutput(), info)
    file = AtomicFile(Path(target), overwrite=overwrite)
    try:
        return WRITERS[name](file, info)
    except BaseException:
        file.discard()
        raise


def record_path(target: str | os.PathLike[str]) -> Path:
    """Return the path of a run record: ``labels.csv.run.json`` for ``labels.csv``."""
    return Path(f"{os.fspath(target)}{RECORD_SUFFIX}")


def identify_output(target: str | os.PathLike[str]) -> set[tuple[int, int]]:
    """Return the identities of an output and its run record, as far as they exist.

    Parameters
    ----------
    target
        Path of the output.
    """
    return {found for path in (target, record_path(target)) if (found := identify(path))}


def join_cells(rows: Iterable[Iterable[str]]) -> str:
    """Return rows as CSV after RFC 4180."""
    text = StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()
