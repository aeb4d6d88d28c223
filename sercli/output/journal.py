"""What a run has written so far: not even one that is killed loses it.

While an output is written under its temporary name, a journal lies beside it: a line for each file
tells what became of it, and up to where the output is whole. A run that ends in order removes its
journal; one that was killed, or whose disk was full, leaves both, for the next to go on with.
"""

import glob
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from platform import node
from time import time
from typing import IO, Any, NamedTuple, Self

from sercli.errors import OutputError
from sercli.files import (
    ORPHANED_S,
    TEMPORARY,
    parse_json,
    prefix_temporary,
    remove_orphans,
    resolve_target,
)
from sercli.output.report import RunInfo
from sercli.output.writers import record_path

SUFFIX = ".journal"
# A run has written the first line of its journal by then.
STARTING_S = 10.0


class Journal:
    """Is written by a run that is under way; a context manager, locked until it is left.

    Parameters
    ----------
    rows
        The output, under its temporary name.
    info
        What the run was asked to do.
    replaces
        Whether it is to replace an output that is there, which is not to come back.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def __init__(self, rows: Path, info: RunInfo, *, replaces: bool = False) -> None:
        self._path = rows.with_name(rows.name + SUFFIX)
        self._is_broken = False
        try:
            self._stream = self._path.open("x", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error
        _lock(self._stream, wait=True)
        header = info.header() | {"directory": info.directory, "replaces": replaces}
        try:
            self._put(header | {"host": node(), "pid": os.getpid()})
        except OutputError:
            with suppress(OSError):
                self._stream.close()
            self.remove()
            raise

    def note(self, entry: Mapping[str, Any], end: int) -> None:
        """Tell what became of a file.

        Parameters
        ----------
        entry
            As the run record has it.
        end
            Of its rows in the output, in bytes.
        """
        self._put({"end": end, "file": entry})

    def remove(self) -> None:
        """Remove it, as the output is in its place."""
        self._path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of a full disk, which was told
            self._stream.close()

    def _put(self, data: Mapping[str, Any]) -> None:
        # After a line that is not whole, none could be read.
        if self._is_broken:
            raise OutputError(f"{self._path}: could not be written before")
        try:
            self._stream.write(json.dumps(data, ensure_ascii=False) + "\n")
            self._stream.flush()
        except OSError as error:
            self._is_broken = True
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error


class Told(NamedTuple):
    """What a journal tells.

    Parameters
    ----------
    header
        What every JSON result of the run starts with.
    entries
        Of the run record, by the path of the file.
    end
        Up to where the rows of these are whole, in bytes.
    """

    header: dict[str, Any]
    entries: dict[str, dict[str, Any]]
    end: int


@dataclass(frozen=True)
class Unfinished:
    """What a run left that did not come to its end.

    Parameters
    ----------
    rows
        Its output, under a temporary name.
    journal
        Of it.
    in_place
        The output has its name, but perhaps not yet its record.
    """

    rows: Path
    journal: Path
    in_place: bool = False

    def read(self) -> Told:
        """Return what the journal tells, of files whose rows are all there.

        Raises
        ------
        OSError, ValueError
            If it cannot be read, or is damaged before its end.
        """
        size = self.rows.stat().st_size
        # A full disk may have cut it within a character, too.
        text = self.journal.read_text(encoding="utf-8", errors="replace")
        header, *lines = text.split("\n")
        told = Told(parse_json(header) if lines else {}, {}, 0)
        for number, line in enumerate(lines[:-1], start=2):  # the last was not written to its end
            try:
                note = parse_json(line)
                end, path = int(note["end"]), note["file"]["path"]
            except (ArithmeticError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"line {number} is damaged: {error}") from error
            if end > size:
                break
            told = told._replace(end=end)
            told.entries[path] = note["file"]
        return told

    @property
    def replaces(self) -> bool:
        """Whether it was to replace the output that was there."""
        try:
            return self.read().header.get("replaces") is True
        except (OSError, ValueError, AttributeError):  # which is told when it is gone on with
            return False

    @property
    def is_empty(self) -> bool:
        """Whether it is known that no file was finished, and nothing was to be replaced."""
        try:
            return not self.read().entries and not self.replaces
        except (OSError, ValueError):
            return False

    def remove(self) -> None:
        """Remove it, as all that is of use is elsewhere."""
        self.journal.unlink(missing_ok=True)
        if not self.in_place:
            self.rows.unlink(missing_ok=True)


def find_unfinished(target: Path) -> list[Unfinished]:
    """Return what runs left that were to write an output, the oldest first.

    Parameters
    ----------
    target
        The output.

    Raises
    ------
    OutputError
        If one of them is not at its end yet.
    """
    found = []
    target = resolve_target(target)
    remove_orphans(target, SUFFIX)
    remove_orphans(record_path(target), SUFFIX)
    prefix = prefix_temporary(target)
    for journal in target.parent.glob(f"{glob.escape(prefix)}*{SUFFIX}"):
        # Not that of an output whose name only begins so.
        if "." in journal.name.removeprefix(prefix).removesuffix(TEMPORARY + SUFFIX):
            continue
        if _is_written(journal):
            raise OutputError(
                f"{target}: another run is writing it; wait for its end, or name another output"
            )
        one = Unfinished(journal.with_name(journal.name.removesuffix(SUFFIX)), journal)
        if not one.rows.exists() and target.exists():
            one = Unfinished(target, journal, in_place=True)
        if one.rows.exists() and not one.is_empty:
            found.append(one)
        else:  # no file was finished
            one.remove()
    return sorted(found, key=lambda one: one.journal.stat().st_mtime_ns)


def _lock(stream: IO[str], *, wait: bool = False) -> bool | None:
    """Lock a file until it is closed.

    Packages that do it take a tenth of a second to load, which every run would pay.

    Parameters
    ----------
    stream
        The open file.
    wait
        Wait until another process unlocks it.

    Returns
    -------
    bool or None
        False if another process has it locked, None if the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _is_written(journal: Path) -> bool:
    """Return whether the run that began a journal is still at work."""
    try:
        with journal.open("r+", encoding="utf-8") as stream:
            is_free = _lock(stream)
            age = time() - os.fstat(stream.fileno()).st_mtime
            header = stream.readline() if is_free is not False else ""
    except OSError:
        return False
    if is_free is False:
        return True
    if not header.endswith("\n"):  # it has just been created, and is about to be locked
        return age < STARTING_S
    return is_free is None and _is_at_work(header, age)


def _is_at_work(header: str, age: float) -> bool:
    """Return whether the run that wrote the first line of a journal is alive, without its lock."""
    try:
        told = parse_json(header)
        is_here, pid = told["host"] == node(), int(told["pid"])
    except (LookupError, TypeError, ValueError):
        return False
    if not is_here or sys.platform == "win32":  # where asking for a process would end it
        return age < ORPHANED_S
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
