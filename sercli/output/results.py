"""What `ser annotate` wrote, read back."""

import codecs
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sercli.delimited import MOST_SECONDS, read_table
from sercli.errors import DatasetError
from sercli.files import parse_json
from sercli.output.report import check_file
from sercli.output.writers import record_path
from sercli.schema import PROBABILITY_PREFIX, FileResult, Segment

EXPECTED = "expected what ser annotate wrote"
# What may be wrong with what was altered.
FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read_results(path: str | os.PathLike[str]) -> list[FileResult]:
    """Read the output of `ser annotate`, in any of its formats.

    Parameters
    ----------
    path
        The output. If it is a table, which has only segments, what else is known of the files is
        taken from the run record beside it, if that is there.

    Returns
    -------
    list of FileResult
        In the order of the output, or of the record. Paths are escaped where they were written so,
        and groups are not read.

    Raises
    ------
    DatasetError
        If it cannot be read, or is something else.
    """
    path = Path(path)
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        if content.split(maxsplit=1)[:1] == [b"{"]:
            document = parse_json(content.decode("utf-8"))
            labels = tuple(document["model"]["labels"])
            return [
                _read_file(entry, [_read_segment(row) for row in entry["segments"]], labels)
                for entry in document["files"]
            ]
        rows: dict[str, list[Segment]] = {}
        labels = ()
        for where, row in _read_table(path, content):
            labels = labels or _find_labels(row)
            try:
                rows.setdefault(str(row["file"]), []).append(_read_segment(row))
            except FAILURES as error:
                raise DatasetError(f"{where}: cannot be read: {error}; {EXPECTED}") from error
        record = record_path(path)
        told = parse_json(record.read_text(encoding="utf-8")) if record.exists() else {"files": []}
        labels = tuple(told["model"]["labels"]) if "model" in told else labels
        files = [_read_file(one, rows.pop(one["path"], []), labels) for one in told["files"]]
    except (OSError, *FAILURES) as error:
        raise DatasetError(f"{path}: cannot be read: {error}; {EXPECTED}") from error
    # Without a record, nothing else is known.
    rest = (FileResult(one, "ok", tuple(some), labels=labels) for one, some in rows.items())
    return [*files, *rest]


def _read_table(path: Path, content: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give place and cells of the rows of a table in CSV, or in JSON Lines."""
    if content and not content.startswith(b"{"):
        columns, rows = read_table(path, DatasetError, content, may_be_empty=True)
        if "emotion" not in columns:
            raise ValueError(f"its columns are {', '.join(columns)}")
        yield from rows
        return
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            if line.strip():
                yield where, parse_json(line.decode("utf-8"))
        except FAILURES as error:
            raise DatasetError(f"{where}: cannot be read: {error}; {EXPECTED}") from error


def _find_labels(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = (name for name in row if name.startswith(PROBABILITY_PREFIX))
    return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in names)


def _read_file(
    entry: Mapping[str, Any], segments: Iterable[Segment], labels: tuple[str, ...]
) -> FileResult:
    check_file(entry)
    return FileResult(
        entry["path"],
        entry["status"],
        tuple(segments),
        entry["duration"],
        entry["sample_rate"],
        entry["channels"],
        entry["error"],
        tuple(entry["warnings"]),
        labels=labels,
        size=entry["bytes"],
        modified=entry["modified"],
    )


def _read_segment(row: Mapping[str, Any]) -> Segment:
    probabilities = row.get("probabilities")
    if probabilities is None:
        probabilities = {label: row[PROBABILITY_PREFIX + label] for label in _find_labels(row)}
    start, end = float(row["start"]), float(row["end"])
    if not 0 <= start < end <= MOST_SECONDS:  # also true for NaN
        raise ValueError(f"a segment is from {start:g} to {end:g} s")
    return Segment(
        str(row["channel"]),
        start,
        end,
        str(row["emotion"]),
        float(row["confidence"]),
        tuple(map(float, probabilities.values())),
        row.get("speaker") or None,
    )
