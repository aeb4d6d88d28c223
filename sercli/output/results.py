"""Reading of the outputs of `ser annotate`."""

import codecs
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from math import fsum
from pathlib import Path
from typing import Any

from sercli.delimited import MOST_SECONDS, read_table
from sercli.errors import DatasetError
from sercli.json_text import (
    FAILURES,
    check_text,
    parse_document,
    parse_json,
    parse_line,
    tell_failure,
)
from sercli.output.report import check_file
from sercli.output.writers import record_path
from sercli.schema import PROBABILITY_PREFIX, FileResult, Segment
from sercli.text import compose

EXPECTED = "expected what ser annotate wrote"
# The sum of rounded probabilities differs from 1 by less than this.
MOST_LACKING = 0.01


def read_results(path: str | os.PathLike[str]) -> list[FileResult]:
    """Read the output of `ser annotate`, in any of its formats.

    Parameters
    ----------
    path
        Path of the output. CSV and JSON Lines have only segments: the other facts about files are
        read from the run record beside them. Without one, all files are taken to be ``"ok"``.

    Returns
    -------
    list of FileResult
        Results in the order of the output, or of the run record. Paths have the escapes of the
        output, see `sercli.schema.printable_path`; groups are not read. Segments whose
        probabilities are incomplete, since columns were removed, have none.

    Raises
    ------
    DatasetError
        If it cannot be read, or is not an output of `ser annotate`.
    """
    results, _ = read_output(path)
    return results


def read_output(path: str | os.PathLike[str]) -> tuple[list[FileResult], str | None]:
    """Read the output of `ser annotate`, and tell what may be missing in it.

    Parameters
    ----------
    path
        As for `read_results`.

    Returns
    -------
    results : list of FileResult
        Results as `read_results` returns them.
    gap : str or None
        What may be missing in them, as a sentence without its full stop; None if nothing is.

    Raises
    ------
    DatasetError
        As for `read_results`.
    """
    path = Path(path)
    record: Mapping[str, Any] | None = None
    try:
        written = path.read_bytes()
        content = written.removeprefix(codecs.BOM_UTF8)
        document = parse_document(path, content, DatasetError)
        if document is None:
            record = _read_record(path)
            results = _read_table(path, content, record)
        else:
            with suppress(OSError, DatasetError):  # it tells nothing else
                record = _read_record(path)
            labels = _parse_labels(document["model"])
            names = {_compose(label): label for label in labels}
            results = [
                _read_file(entry, _read_segments(entry, names), labels)
                for entry in document["files"]
            ]
    except (OSError, *FAILURES) as error:
        raise DatasetError(f"{path}: cannot be read: {tell_failure(error)}; {EXPECTED}") from error
    gap = None
    if record is not None and not record.get("completed", True):
        gap = "the run was not completed, and files that it did not reach may be missing"
    elif document is None and record is None:
        gap = (
            "it has no run record beside it, and files without speech or that failed may be missing"
        )
    elif document is None and record and record.get("output_sha256") not in (None, _hash(written)):
        gap = "it was changed after its run record was written, which may no longer fit it"
    return results, gap


def _hash(content: bytes) -> str:
    return sha256(content).hexdigest()


def _read_record(path: Path) -> Mapping[str, Any] | None:
    """Return the run record beside an output, checked; None if there is none."""
    place = record_path(path)
    if not place.exists():
        return None
    try:
        record: Mapping[str, Any] = parse_json(place.read_text(encoding="utf-8"))
        _parse_labels(record["model"])
        for entry in record["files"]:
            check_file(entry)
    except (OSError, *FAILURES) as error:
        raise DatasetError(
            f"{place}: cannot be read: {tell_failure(error)}; expected the run record of "
            f"{path.name}. Move it away to read the labels alone"
        ) from error
    return record


def _read_table(path: Path, content: bytes, record: Mapping[str, Any] | None) -> list[FileResult]:
    """Return the results in a CSV or JSON Lines file."""
    if content and not content.lstrip().startswith(b"{"):
        lines: Iterator[tuple[str, Mapping[str, Any]]]
        columns, lines = read_table(path, DatasetError, content, may_be_empty=True)
        if "emotion" not in columns:
            raise ValueError(f"its columns are {', '.join(columns)}")
        found = tuple(_find_probabilities(dict.fromkeys(columns)))
    else:
        found, lines = (), _read_lines(path, content)
    labels = found if record is None else _parse_labels(record["model"])
    names = {_compose(label): label for label in labels}
    rows: dict[str, list[Segment]] = {}
    for where, row in lines:
        try:
            told = _find_probabilities(row)
            names = names or {name: name for name in told}
            if record is None and told and told.keys() != names.keys():
                raise ValueError(
                    f"its probabilities are of {', '.join(told)}, and those before of "
                    f"{', '.join(names)}"
                )
            rows.setdefault(check_text(row["file"]), []).append(_read_segment(row, told, names))
        except FAILURES as error:
            raise DatasetError(
                f"{where}: cannot be read: {tell_failure(error)}; {EXPECTED}"
            ) from error
    labels = tuple(names.values())
    files = [] if record is None else record["files"]
    results = [_read_file(one, rows.pop(one["path"], []), labels) for one in files]
    # Files that are not in a record have only their segments.
    rest = (FileResult(one, "ok", tuple(some), labels=labels) for one, some in rows.items())
    return [*results, *rest]


def _read_lines(path: Path, content: bytes) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the place and the object of each line of a JSON Lines file."""
    for number, line in enumerate(content.splitlines(), start=1):
        where = f"{path}, line {number}"
        try:
            if line.strip():
                yield where, parse_line(line)
        except FAILURES as error:
            raise DatasetError(
                f"{where}: cannot be read: {tell_failure(error)}; {EXPECTED}"
            ) from error


def _parse_labels(model: Mapping[str, Any]) -> tuple[str, ...]:
    labels = tuple(model["labels"])
    if not all(isinstance(label, str) for label in labels):
        raise ValueError(f"its labels are {labels}")
    return labels


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


def _read_segments(entry: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[Segment]:
    """Yield the segments of a file in a JSON document."""
    for number, row in enumerate(entry["segments"], start=1):
        try:
            yield _read_segment(row, _find_probabilities(row), names)
        except FAILURES as error:
            raise ValueError(
                f"segment {number} of {entry['path']}: {tell_failure(error)}"
            ) from error


def _read_segment(
    row: Mapping[str, Any], found: Mapping[str, Any], names: Mapping[str, str]
) -> Segment:
    """Return the segment of a row, with its probabilities and the labels as in `_compose`."""
    probabilities: list[float] = []
    if found.keys() >= names.keys():
        probabilities = [_parse_share(found[name], f"probability of {name}") for name in names]
        if abs(fsum(probabilities) - 1) > MOST_LACKING:  # columns were added or removed
            probabilities = []
    elif not found.keys() <= names.keys():  # else columns were removed
        raise ValueError(
            f"its probabilities are of {', '.join(found)}; expected {', '.join(names.values())}"
        )
    start, end = (_parse_number(row[name], name) for name in ("start", "end"))
    if not 0 <= start < end <= MOST_SECONDS:  # also true for NaN
        raise ValueError(f"a segment is from {start:g} to {end:g} s")
    speaker, emotion = row.get("speaker"), check_text(row["emotion"])
    return Segment(
        check_text(row["channel"]),
        start,
        end,
        names.get(_compose(emotion), emotion),
        _parse_share(row["confidence"], "confidence"),
        tuple(probabilities),
        None if speaker in (None, "") else check_text(speaker),
    )


def _find_probabilities(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the probabilities of a row by label: columns may have been put in another order."""
    told: Mapping[str, Any] | None = row.get("probabilities")
    if told is None:
        names = (name for name in row if name.startswith(PROBABILITY_PREFIX))
        told = {name.removeprefix(PROBABILITY_PREFIX): row[name] for name in names}
    return {_compose(label): value for label, value in told.items()}


@cache
def _compose(label: str) -> str:
    """Return a label as it is in the name of a column of a table that was read."""
    return compose(f"{PROBABILITY_PREFIX}{label}".strip()).removeprefix(PROBABILITY_PREFIX)


def _parse_number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"its {name} is no number: {error}") from error


def _parse_share(value: Any, name: str) -> float:
    share = _parse_number(value, name)
    if not 0 <= share <= 1:  # also true for NaN
        raise ValueError(f"a probability is {share}, and not from 0 to 1")
    return share
