"""Tables from users: UTF-8, with commas, semicolons, tabs or bars between the cells."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from reprlib import repr as shorten
from typing import NamedTuple

from sercli.errors import SerError
from sercli.text import compose, format_count

DELIMITERS = ",\t;|"
TAB_SUFFIXES = (".tsv", ".tab")
EXPECTED = "expected CSV, or TSV, in UTF-8"
# Three thousand years: times may be counted in samples, and some tables write a huge end time.
MOST_SECONDS = 1e11
# Most digits of an index or a count.
MOST_DIGITS = 9


class Row(NamedTuple):
    """Row of a table.

    Parameters
    ----------
    where
        Path and line, with which error messages begin.
    cells
        Texts of the cells by column name, unchanged.
    """

    where: str
    cells: Mapping[str, str]


class Table(NamedTuple):
    """Table of which the header has been read.

    Parameters
    ----------
    columns
        Column names, composed and without surrounding spaces; several may be empty.
    rows
        Iterator over the rows that are not empty; it reads them one by one.
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
        Path of the file. Its delimiter is the tab if its suffix is one of `TAB_SUFFIXES` and its
        header contains tabs, else the delimiter that is most frequent in the header.
    error
        Class of the error to raise.
    content
        Content of the file, if already read.
    undecodable
        Handling of bytes that are not UTF-8: the ``errors`` argument of `bytes.decode`.
    may_be_empty
        Whether a table without rows is accepted.

    Raises
    ------
    error
        If the file cannot be read, has two columns of the same name or no row, or a quote is not
        closed; and, while rows are read, if one is not as long as the header, not counting empty
        cells at its end.
    """
    try:
        content = path.read_bytes() if content is None else content
        text = content.decode("utf-8-sig", undecodable)
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}; {EXPECTED}") from reason
    except UnicodeDecodeError as reason:
        line = reason.object[: reason.start].count(b"\n") + 1
        raise error(
            f"{path}, line {line}: is not UTF-8: {reason}; {EXPECTED} (in Excel, CSV UTF-8)"
        ) from reason
    if "\0" in text:
        raise error(f"{path}: contains a NUL byte, so it is not text; {EXPECTED}")
    lines = _read_lines(path, text, error)
    _, header = next(lines, (0, []))
    columns = tuple(compose(cell.strip()) for cell in header)
    if not columns:
        raise error(f"{path}: is empty; {EXPECTED}, with the names of the columns first")
    if twice := [name for name, n in Counter(filter(None, columns)).items() if n > 1]:
        raise error(f"{path}: has two columns {twice[0]!r}; expected each once")
    return Table(columns, _read_rows(path, lines, columns, error, may_be_empty=may_be_empty))


def parse_seconds(text: str, where: str, error: type[SerError]) -> float:
    """Return a time in seconds.

    Parameters
    ----------
    text
        Text of the cell.
    where
        Beginning of the error message: the place and the meaning of the text.
    error
        Class of the error to raise.

    Raises
    ------
    error
        If the text is not a number from 0 to `MOST_SECONDS`.
    """
    try:
        seconds = -1.0 if "_" in text else float(text)  # which reads 1_0 as 10
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= MOST_SECONDS:  # also false for NaN
        raise error(
            f"{where} is {shorten(text)}; expected seconds, with a decimal point, from 0 to "
            f"{MOST_SECONDS:g}"
        )
    return seconds


def parse_count(text: str) -> int | None:
    """Return a count, or an index from 0; None if the text is not one, or has too many digits.

    Parameters
    ----------
    text
        Text of the cell.
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
    """Yield the cells of each row that is not empty, and the line where it begins."""
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
        if not any(cells[len(columns) :]):  # spreadsheets pad rows with empty cells
            cells = cells[: len(columns)]
        if len(cells) != len(columns):
            found = format_count(len(cells), "cell")
            raise error(f"{where}: has {found}; expected {len(columns)}, as in the header")
        may_be_empty = True
        yield Row(where, dict(zip(columns, cells, strict=True)))
    if not may_be_empty:
        raise error(f"{path}: has no row below its header; expected at least one")
