"""Positions of the rows of each file in an output, so that a later run can copy them.

Only positions are kept in memory.
"""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from sercli.errors import OutputError
from sercli.files import AnyPath, parse_json
from sercli.output.writers import JSON_INDENT
from sercli.text import format_count

Stamp = tuple[int, int, int]
# Path of a file, and where a row of it begins and ends in the output, in bytes.
Row = tuple[str, int, int]
# Path of a file, number of its consecutive rows, and where they begin and end.
Block = tuple[str, int, int, int]


class Rows(NamedTuple):
    """Position of the rows of a file.

    Parameters
    ----------
    output
        Path of the output that has them.
    start, end
        Start and end in bytes.
    stamp
        Stamp of the output when the rows were found; see `find_stamp`.
    """

    output: Path
    start: int
    end: int
    stamp: Stamp | None

    def read(self) -> str:
        """Return the rows, as they are in the output.

        Raises
        ------
        OutputError
            If the output cannot be read, or has changed since the rows were found.
        """
        try:
            with self.output.open("rb") as stream:
                check_stamp(self.output, self.stamp, find_stamp(stream.fileno()))
                stream.seek(self.start)
                return stream.read(self.end - self.start).decode("utf-8")
        except (OSError, UnicodeError) as error:
            raise OutputError(
                f"{self.output}: cannot be read: {error}; continue with --resume when it can be "
                "read"
            ) from error


def find_rows(
    output: Path, end: int, expected: Mapping[str, int], format_: str, names: Sequence[str]
) -> dict[str, Rows]:
    """Find the rows of each file in an output; files without rows are left out of a table.

    Parameters
    ----------
    output
        Path of the output.
    end
        End of the rows, in bytes.
    expected
        Number of rows of each file, by its path.
    format_
        Format of the output.
    names
        Columns of the output.

    Raises
    ------
    ValueError
        If a file has other rows than expected, as they would be lost.
    """
    found: dict[str, Rows] = {}
    with output.open("rb") as stream:
        stamp = find_stamp(stream.fileno())
        blocks = _list_blocks(_read_lines(stream, end), format_, names)
        for path, n_rows, first, last in blocks:
            if path in found or expected.get(path) != n_rows:
                raise ValueError(
                    f"it has {format_count(n_rows, 'row')} of {path} together, and was written "
                    f"with {expected.get(path, 'none')}"
                )
            found[path] = Rows(output, first, last, stamp)
    # A JSON document lists all files.
    wanted = {path for path, n_rows in expected.items() if n_rows or format_ == "json"}
    if lost := wanted - found.keys():
        raise ValueError(
            f"it has no row of {min(lost)}, but was written with {expected[min(lost)]}"
        )
    return found


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


def _read_lines(stream: BinaryIO, end: int) -> Iterator[bytes]:
    """Yield lines up to the byte `end`; the last one may lack its line end."""
    while (left := end - stream.tell()) > 0:
        yield stream.readline(left)


def _list_blocks(lines: Iterable[bytes], format_: str, names: Sequence[str]) -> Iterator[Block]:
    """Yield the blocks of an output in order."""
    if format_ == "json":
        return _list_documented(lines)
    list_rows = _list_csv_rows if format_ == "csv" else _list_json_rows
    return _group(list_rows(lines, names))


def _group(rows: Iterable[Row]) -> Iterator[Block]:
    """Yield a block for consecutive rows of the same file."""
    for path, some in groupby(rows, key=itemgetter(0)):
        block = [*some]
        yield path, len(block), block[0][1], block[-1][2]


def _list_csv_rows(lines: Iterable[bytes], names: Sequence[str]) -> Iterator[Row]:
    end = 0

    def decode() -> Iterator[str]:
        nonlocal end
        for line in lines:
            end += len(line)
            yield line.decode("utf-8")

    # A field may contain line ends: the reader consumes as many lines as a row has.
    reader = csv.reader(decode(), strict=True)
    header = next(reader, None)
    if header is not None:  # a run that was killed before its first file has noted no header
        _check_names(1, header, names)
    start = end
    for row in reader:
        if len(row) != len(names):
            found = format_count(len(row), "cell")
            raise ValueError(f"line {reader.line_num} has {found} in {len(names)} columns")
        yield row[0], start, end
        start = end


def _list_json_rows(lines: Iterable[bytes], names: Sequence[str]) -> Iterator[Row]:
    start = 0
    for number, line in enumerate(lines, start=1):
        row = parse_json(line.decode("utf-8"))
        _check_names(number, row, names)
        yield row["file"], start, start + len(line)
        start += len(line)


def _list_documented(lines: Iterable[bytes]) -> Iterator[Block]:
    """Yield the files of a JSON document, each of which is on a line of its own."""
    start = 0
    for line in lines:
        if line.startswith(JSON_INDENT.encode() + b"{"):
            text = line.strip().removesuffix(b",")
            entry = parse_json(text.decode("utf-8"))
            first = start + len(JSON_INDENT)
            yield entry["path"], len(entry["segments"]), first, first + len(text)
        start += len(line)


def _check_names(number: int, found: Iterable[str], names: Sequence[str]) -> None:
    if [*found] != [*names]:
        raise ValueError(
            f"line {number} has the columns {','.join(found)!r}, but was written with "
            f"{','.join(names)!r}"
        )
