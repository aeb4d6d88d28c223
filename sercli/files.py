"""Files that appear whole or not at all, and what to say where they cannot be written."""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from sercli.errors import OutputError

# Stands for standard output where a file may be named.
STDOUT = "-"
# What the name of a file ends with until it takes its place.
TEMPORARY = ".tmp"


class AtomicFile:
    """A text file that takes its place when it is closed.

    Parameters
    ----------
    path
        The target.
    overwrite
        Whether an existing target may be replaced.

    Raises
    ------
    OutputError
        If the target exists or its folder cannot be written.

    Attributes
    ----------
    temporary
        Where it is written until then.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        check_target(path, overwrite=overwrite)
        self._path = path
        try:
            descriptor, name = tempfile.mkstemp(TEMPORARY, f".{path.name}.", path.parent)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        self.temporary = Path(name)
        _open_to_others(name)
        self.stream: TextIO = open(  # noqa: SIM115
            descriptor, "w", encoding="utf-8", newline=""
        )

    def close(self) -> None:
        """Put the file in its place."""
        self.stream.close()
        os.replace(self.temporary, self._path)

    def leave(self) -> None:
        """Leave it under its temporary name, as it could not be written to its end."""
        with suppress(OSError):  # what it is left for
            self.stream.close()


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a target that exists, or that cannot be made.

    Raises
    ------
    OutputError
        With what to do.
    """
    if path.is_dir():
        raise OutputError(f"{path}: is a directory; expected a file name")
    if path.exists() and not path.is_file():
        raise OutputError(
            f"{path}: is no regular file; expected a file name, or {STDOUT} for standard output"
        )
    if path.exists() and not overwrite:
        raise OutputError(f"{path}: exists already; give another name or --overwrite")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; make it first")


def make_folder(folder: Path, kind: str = "folder") -> None:
    """Make a folder, and those above it, where it is not there yet.

    Parameters
    ----------
    folder
        Where it is to be.
    kind
        What an error calls it.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: the {kind} cannot be made: {error.strerror}; name another folder"
        ) from error


def write_json(path: Path, data: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write a JSON file in one piece.

    Raises
    ------
    OutputError
        If the target exists or cannot be written.
    """
    file = AtomicFile(path, overwrite=overwrite)
    try:
        file.stream.write(json.dumps(data, ensure_ascii=False, indent=1) + "\n")
        file.close()
    except OSError as error:
        file.leave()
        file.temporary.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that at any moment it is the old one or the new one, whatever happens.

    Parameters
    ----------
    path
        The file; it is replaced.
    content
        All of it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(TEMPORARY, f".{path.name}.", path.parent)
        _open_to_others(temporary)
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _open_to_others(temporary: str) -> None:
    """Give a temporary file, which is private, the rights that any new file gets."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(temporary, 0o666 & ~mask)
