"""Files that appear whole or not at all, and what to say where they cannot be written."""

import glob
import json
import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from time import time
from typing import Any, TextIO, TypeGuard

from sercli.errors import OutputError
from sercli.text import list_spellings

AnyPath = str | os.PathLike[str]

# Stands for standard output where a file may be named.
STDOUT = "-"
# What the name of a file ends with until it takes its place.
TEMPORARY = ".tmp"
# Before that, a number is drawn.
DRAWN_BYTES = 4
DRAWN = re.compile(rf"[0-9a-f]{{{2 * DRAWN_BYTES}}}")
# Seconds after which a temporary file is nobody's: those in use are written to, or have a journal.
ORPHANED_S = 600.0
# Bytes of a name to which that and a journal's suffix can be added: file systems have 255.
LONGEST = 220
# No number is as large that is written on purpose, and floats hold it.
LARGE = 1e300


class AtomicFile:
    """A text file that takes its place when it is closed.

    Parameters
    ----------
    path
        The target; of a link, what it leads to.
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
        self._overwrite = overwrite
        self.temporary = _name_temporary(path)
        try:
            self.stream: TextIO = self.temporary.open("x", encoding="utf-8", newline="")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Put the file in its place.

        Raises
        ------
        OutputError
            If it cannot be there, as on Windows while another program has the old one open, or if
            there is one now that must not be replaced.
        """
        try:
            self.stream.flush()
            os.fsync(self.stream.fileno())  # or a power cut may leave the name without the content
            self.stream.close()
            if not self._overwrite and os.path.exists(self._path):  # a link may lead to it
                raise OutputError(
                    f"{self._path}: appeared meanwhile; what was to be there is {self.temporary}. "
                    "Move the other away, unless it is of a run, too, and go on by --resume"
                )
            os.replace(self.temporary, resolve_target(self._path))
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be replaced: {error.strerror}; close what has it open. "
                f"What was to be there is {self.temporary}"
            ) from error

    def leave(self) -> None:
        """Leave it under its temporary name, as it could not be written to its end."""
        with suppress(OSError):  # what it is left for
            self.stream.close()

    def discard(self) -> None:
        """Remove it, as nothing of it is of use."""
        self.leave()
        self.temporary.unlink(missing_ok=True)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Refuse a target that exists, or that cannot be made.

    Raises
    ------
    OutputError
        With what to do.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        folder = resolve_target(path).parent
        if not folder.is_dir():
            raise OutputError(
                f"{path}: the folder {folder} does not exist; make it first"
            ) from None
        return
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is a directory; expected a file name")
    if not stat.S_ISREG(mode):
        raise OutputError(
            f"{path}: is no regular file; expected a file name, or {STDOUT} for standard output"
        )
    if not overwrite:
        raise OutputError(f"{path}: exists already; give another name or --overwrite")


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
    check_target(path, overwrite=overwrite)
    write_bytes(path, (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode())


def parse_json(text: str) -> Any:
    """Return what JSON holds that somebody may have altered.

    Parameters
    ----------
    text
        All of it.

    Raises
    ------
    ValueError
        If it is no JSON, or is nested as nothing is that this package writes.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value of JSON, which has integers of any size and NaN, is of use as one."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGE


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
    temporary = _name_temporary(path)
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, resolve_target(path))
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def resolve_target(path: Path) -> Path:
    """Return what is written where a path is asked for: of a link, what it leads to."""
    return Path(os.path.realpath(path))


def find_file(folder: Path, name: str) -> Path | None:
    """Return where a file is, or None; in whatever form of Unicode its name is there.

    Parameters
    ----------
    folder
        Where to look.
    name
        Its path from there, as somebody wrote it.
    """
    places = (folder / one for one in list_spellings(name))
    return next(filter(os.path.lexists, places), None)


def prefix_temporary(target: Path) -> str:
    """Return what the names begin with that a file has until it takes its place.

    Parameters
    ----------
    target
        Its place, which no link leads to.
    """
    name = os.fsencode(target.name)
    return f".{target.name if len(name) <= LONGEST else sha256(name).hexdigest()}."


def remove_orphans(target: Path, companion: str) -> None:
    """Remove what was written under temporary names by who did not live to say how far it is whole.

    Parameters
    ----------
    target
        Its place.
    companion
        What the name of the file that would say so ends with, after the temporary name: what has
        one stays.
    """
    oldest = time() - ORPHANED_S
    prefix = prefix_temporary(resolve_target(target))
    for path in target.parent.glob(f"{glob.escape(prefix)}*{TEMPORARY}"):
        drawn = path.name.removeprefix(prefix).removesuffix(TEMPORARY)
        with suppress(OSError):  # another may have removed it
            is_old = DRAWN.fullmatch(drawn) and path.stat().st_mtime < oldest
            if is_old and not path.with_name(path.name + companion).exists():
                path.unlink()


def _name_temporary(path: Path) -> Path:
    target = resolve_target(path)
    return target.with_name(f"{prefix_temporary(target)}{token_hex(DRAWN_BYTES)}{TEMPORARY}")
