"""Parsing of JSON that a user may have edited."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from sercli.errors import SerError

# Suffix that a run record's name adds to that of the output.
RECORD_SUFFIX = ".run.json"
# Larger than any number that is written on purpose; a float can hold it.
LARGE = 1e300
# Errors of JSON that is not as expected.
FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def parse_json(text: str) -> Any:
    """Parse JSON that a user may have edited.

    Parameters
    ----------
    text
        The whole document.

    Raises
    ------
    ValueError
        If it is not valid JSON, or is nested too deeply for Python to parse.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_document(path: Path, content: bytes, error: type[SerError]) -> Any:
    """Parse the JSON document of an output of `ser annotate`.

    Parameters
    ----------
    path
        Path of the file.
    content
        Its content, without a byte order mark.
    error
        Class of the error to raise for a run record.

    Returns
    -------
    Any
        The document; None for a table: CSV, or JSON Lines.

    Raises
    ------
    error
        If it is a run record, which has no segments.
    LookupError, TypeError, ValueError
        If it is no such document.
    """
    content = content.lstrip()
    if not content.startswith(b"{"):
        return None
    if content.split(b"\n", 1)[0].rstrip() == b"{":  # as it was written: tell what is wrong with it
        document = parse_json(content.decode("utf-8"))
    else:
        try:
            document = parse_json(content.decode("utf-8"))
        except ValueError:  # more than one line of objects
            return None
        if "files" not in document:
            return None
    if not all(isinstance(entry, Mapping) for entry in document["files"]):
        raise TypeError("its files are no objects")
    if any("segments" not in entry for entry in document["files"]):
        raise error(
            f"{path}: is a run record; expected the labels that it lies beside, "
            f"{path.name.removesuffix(RECORD_SUFFIX)}"
        )
    return document


def parse_line(content: bytes) -> Any:
    """Parse a line of JSON Lines that a user may have edited.

    Parameters
    ----------
    content
        The line.

    Raises
    ------
    ValueError
        If it is not valid JSON in UTF-8; the message does not number the line.
    """
    try:
        return parse_json(content.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}: column {error.colno}") from error


def check_text(value: Any) -> str:
    """Return a JSON value as text.

    Parameters
    ----------
    value
        The value.

    Raises
    ------
    ValueError
        If the text cannot be part of a path or an output.
    """
    text = str(value)
    text.encode()
    if "\0" in text:
        raise ValueError(f"{text!r} contains a NUL character")
    return text


def tell_failure(error: BaseException) -> str:
    """Return what one of the `FAILURES` tells, as a part of a sentence.

    Parameters
    ----------
    error
        The error.
    """
    return f"has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether a JSON value is a number below `LARGE` in magnitude; booleans do not count."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGE
