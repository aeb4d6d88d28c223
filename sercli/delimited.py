"""Tables that people write: UTF-8, with commas, semicolons or tabs between the cells."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from reprlib import repr as shorten
from typing import NamedTuple

from sercli.errors import SerError
from sercli.text import format_count

DELIMITERS = ",\t;"
TAB_SUFFIXES = (".tsv", ".tab")
EXPECTED = "expected CSV, or TSV, in UTF-8"
# Three thousand years: times may be counted in samples, and some write a large one for the end.
MOST_SECONDS = 1e11
# Of an index or a count.
MOST_DIGITS = 9


class Row(NamedTuple):
    """A row of a table.

    Parameters
    ----------
    where
        Path and line, as an error begins.
    cells
        By the name of the column, as they stand there.
    """

    where: str
    cells: Mapping[str, str]


class Table(NamedTuple):
    """A table of which the header was read.

    Parameters
    ----------
    columns
        Names, without spaces around them; several may have none.
    rows
        Those that are not empty, read one by one.
    """

    columns: tuple[str, ...]
    rows: Iterator[Row]


def read_table(
    path: Path,
    error: type[SerError],
    content: bytes | None = None,
    *,
    undecodable: str = "strict",
    may_be_empty: bool = False,
) -> Table:
    """Read a table.

    Parameters
    ----------
    path
        The file; tabs are between its cells if its suffix says so and its header has some, else
        what there is most of there.
    error
        What to raise.
    content
        Of the file, if it was read.
    undecodable
        What becomes of bytes that are no UTF-8, as for `bytes.decode`.
    may_be_empty
        Whether a header alone will do.

    Raises
    ------
    error
        If it cannot be read, has two columns of one name or no row, a quote is not closed, or,
        when the rows are read, one is not as long as the header, but for empty cells at its end.
    """
    try:
        content = path.read_bytes() if content is None else content
        text = content.decode("utf-8-sig", undecodable)
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}; {EXPECTED}") from reason
    except UnicodeDecodeError as reason:
        line = reason.object[: reason.start].count(b"\n") + 1
        raise error(f"{path}, line {line}: is no UTF-8: {reason}; {EXPECTED}") from reason
    if "\0" in text:
        raise error(f"{path}: holds NUL, which no text does; {EXPECTED}")
    lines = _read_lines(path, text, error)
    _, header = next(lines, (0, []))
    columns = tuple(cell.strip() for cell in header)
    if not columns:
        raise error(f"{path}: is empty; {EXPECTED}, with the names of the columns first")
    if twice := [name for name, n in Counter(filter(None, columns)).items() if n > 1]:
        raise error(f"{path}: has two columns {twice[0]!r}; expected each once")
    return Table(columns, _read_rows(path, lines, columns, error, may_be_empty=may_be_empty))


def parse_seconds(text: str, where: str, error: type[SerError]) -> float:
    """Return a time.

    Parameters
    ----------
    text
        What stands there.
    where
        What an error begins with: the place, and what it is.
    error
        What to raise.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= MOST_SECONDS:  # also false for NaN
        raise error(
            f"{where} is {shorten(text)}; expected seconds, with a decimal point, from 0 to "
            f"{MOST_SECONDS:g}"
        )
    return seconds


def parse_count(text: str) -> int | None:
    """Return a number of things, or an index from 0; None if it is none that is of use.

    Parameters
    ----------
    text
        What stands there.
    """
    is_count = text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS
    return int(text) if is_count else None


def _find_delimiter(path: Path, text: str) -> str:
    def count(delimiter: str) -> int:
        rows = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
        return len(next(filter(any, rows), []))

    if path.suffix.lower() in TAB_SUFFIXES and count("\t") > 1:
        return "\t"
    return max(DELIMITERS, key=count)


def _read_lines(path: Path, text: str, error: type[SerError]) -> Iterator[tuple[int, list[str]]]:
    """Give the cells of what is not empty, and the line where they begin."""
    line = 1
    try:
        delimiter = _find_delimiter(path, text)
        reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for cells in reader:
            if any(cells):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as reason:
        raise error(
            f"{path}, line {line}: cannot be read: {reason}; expected cells whose quotes are "
            "closed, and doubled within"
        ) from reason


def _read_rows(
    path: Path,
    lines: Iterator[tuple[int, list[str]]],
    columns: tuple[str, ...],
    error: type[SerError],
    *,
    may_be_empty: bool,
) -> Iterator[Row]:
    for line, cells in lines:
        where = f"{path}, line {line}"
        if not any(cells[len(columns) :]):  # as spreadsheets fill up what they save
            cells = cells[: len(columns)]
        if len(cells) != len(columns):
            found = format_count(len(cells), "cell")
            raise error(f"{where}: has {found}; expected {len(columns)}, as in the header")
        may_be_empty = True
        yield Row(where, dict(zip(columns, cells, strict=True)))
    if not may_be_empty:
        raise error(f"{path}: has no row below its header; expected one at least")
