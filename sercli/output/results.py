"""Reading of the outputs of `ser annotate`."""

import codecs
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sercli.delimited import MOST_SECONDS, read_table
from sercli.errors import DatasetError
from sercli.files import parse_json
from sercli.output.report import check_file
from sercli.output.writers import RECORD_SUFFIX, record_path
from sercli.schema import PROBABILITY_PREFIX, FileResult, Segment

EXPECTED = "expected what ser annotate wrote"
# Errors that files edited by users may cause.
FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def read_results(path: str | os.PathLike[str]) -> list[FileResult]:
    """Read the output of `ser annotate`, in any of its formats.

    Parameters
    ----------
    path
        Path of the output. CSV and JSON Lines have only segments: the other facts about files are
        read from the run record beside them, if there is one.

    Returns
    -------
    list of FileResult
        Results in the order of the output, or of the run record. Paths have the escapes of the
        output, see `sercli.schema.printable_path`; groups are not read.

    Raises
    ------
    DatasetError
        If it cannot be read, or is not an output of `ser annotate`.
    """
    path = Path(path)
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        if (document := _parse_document(content)) is not None:
            labels = tuple(document["model"]["labels"])
            if any("segments" not in entry for entry in document["files"]):
                raise DatasetError(
                    f"{path}: is a run record; expected the labels that it lies beside, "
                    f"{path.name.removesuffix(RECORD_SUFFIX)}"
                )
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
    # Files that are not in a record have only their segments.
    rest = (FileResult(one, "ok", tuple(some), labels=labels) for one, some in rows.items())
    return [*files, *rest]


def _parse_document(content: bytes) -> Any:
    """Return the JSON document, or None for a table: CSV, or JSON Lines."""
    if not content.startswith(b"{"):
        return None
    if content.split(maxsplit=1)[0] == b"{":  # as it was written: tell what is wrong with it
        return parse_json(content.decode("utf-8"))
    try:
        document = parse_json(content.decode("utf-8"))
    except ValueError:  # more than one line of objects
        return None
    return document if "files" in document else None


def _read_table(path: Path, content: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the place and the cells of each row of a CSV or JSON Lines file."""
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
