"""What `ser annotate` wrote, read back."""

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from sercli.errors import DatasetError
from sercli.schema import PROBABILITY_PREFIX, FileResult, Segment
from sercli.writers import record_path


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
        with path.open(encoding="utf-8-sig", newline="") as stream:
            is_document = stream.readline().rstrip() == "{"
            stream.seek(0)
            if is_document:
                document = json.load(stream)
                labels = tuple(document["model"]["labels"])
                return [
                    _read_file(entry, [_read_segment(row) for row in entry["segments"]], labels)
                    for entry in document["files"]
                ]
            rows: dict[str, list[Segment]] = {}
            labels = ()
            for row in _read_table(stream):
                labels = labels or _find_labels(row)
                rows.setdefault(row["file"], []).append(_read_segment(row))
        record = record_path(path)
        told = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {"files": []}
        labels = tuple(told["model"]["labels"]) if "model" in told else labels
        files = [_read_file(one, rows.pop(one["path"], []), labels) for one in told["files"]]
    except (OSError, UnicodeError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DatasetError(
            f"{path}: cannot be read: {error}; expected what ser annotate wrote"
        ) from error
    # Without a record, nothing else is known.
    rest = (FileResult(one, "ok", tuple(some), labels=labels) for one, some in rows.items())
    return [*files, *rest]


def _read_table(stream: TextIO) -> Iterator[Mapping[str, Any]]:
    """Give the rows of a table in CSV, or in JSON Lines."""
    first = stream.read(1)
    stream.seek(0)
    if first not in ("", "{"):
        reader = csv.DictReader(stream)
        if "emotion" not in (reader.fieldnames or ()):
            raise ValueError(f"its columns are {', '.join(reader.fieldnames or ['none'])}")
        yield from reader
        return
    yield from map(json.loads, stream)


def _find_labels(row: Mapping[str, Any]) -> tuple[str, ...]:
    names = (name for name in row if name.startswith(PROBABILITY_PREFIX))
    return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in names)


def _read_file(
    entry: Mapping[str, Any], segments: Iterable[Segment], labels: tuple[str, ...]
) -> FileResult:
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
    return Segment(
        row["channel"],
        float(row["start"]),
        float(row["end"]),
        row["emotion"],
        float(row["confidence"]),
        tuple(map(float, probabilities.values())),
        row.get("speaker") or None,
    )
