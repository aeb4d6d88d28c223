"""Journal of a run, from which another run resumes if it is killed.

While an output is written under its temporary name, there is a journal beside it. It has a line for
each file: the file's entry in the run record, and the size and SHA-256 of the output at the end of
its rows. A run that ends properly removes its journal; one that is killed, or whose disk is full,
leaves both for the next run to resume.
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
    JOURNAL,
    ORPHANED_S,
    TELL_RESUMED,
    TEMPORARY,
    copy_mode,
    prefix_temporary,
    remove_file,
    remove_orphans,
    resolve_target,
)
from sercli.json_text import parse_json
from sercli.output.report import RunInfo
from sercli.output.writers import WRITERS, Writer, record_path

# Seconds within which a run writes the first line of its journal.
STARTING_S = 10.0


class Journal:
    """Journal of the current run; a context manager that keeps the file locked.

    Parameters
    ----------
    writer
        Writer of the output, to a file.
    info
        Description of the run.
    replaces
        Whether the run replaces an output, or what unfinished runs left of it, whose rows a resumed
        run must not keep.

    Raises
    ------
    OutputError
        If it cannot be written.
    """

    def __init__(self, writer: Writer, info: RunInfo, *, replaces: bool = False) -> None:
        self._writer = writer
        self._path = Path(f"{writer.temporary}{JOURNAL}")
        self._is_broken = False
        try:
            self._stream = self._path.open("x", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written: {error.strerror}") from error
        try:
            if writer.temporary is not None:
                copy_mode(writer.temporary, self._path)
            _lock(self._stream, wait=True)
            header = info.header() | {"directory": info.directory, "replaces": replaces}
            self._put(header | {"host": node(), "pid": os.getpid()})
        except BaseException:
            self.remove()
            raise

    def note(self, entry: Mapping[str, Any]) -> None:
        """Add a line for the file that was written last.

        Parameters
        ----------
        entry
            Entry of the file in the run record.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._put({"file": entry})

    def close(self) -> None:
        """Close the journal, which unlocks it."""
        with suppress(OSError):  # a full disk, which was reported before
            self._stream.close()

    def remove(self) -> None:
        """Close and remove the journal, when the output is complete or discarded."""
        self.close()
        remove_file(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, data: Mapping[str, Any]) -> None:
        # Lines after an incomplete one could not be read.
        if self._is_broken:
            raise OutputError(f"{self._path}: could not be written before")
        state = {"end": self._writer.n_bytes, "sha256": self._writer.sha256}
        try:
            self._stream.write(json.dumps({**state, **data}, ensure_ascii=False) + "\n")
            self._stream.flush()
        except OSError as error:
            self._is_broken = True
            raise OutputError(
                f"{self._path}: cannot be written: {error.strerror}; {TELL_RESUMED}"
            ) from error


class Told(NamedTuple):
    """Content of a journal or a run record.

    Parameters
    ----------
    header
        Header of the run, as `RunInfo.header` returns it, with some more fields.
    entries
        Entries of files by their paths.
    end
        Number of bytes of the output with the rows of these files.
    sha256
        SHA-256 of these bytes; None if a run record does not have it.
    """

    header: dict[str, Any]
    entries: dict[str, dict[str, Any]]
    end: int
    sha256: str | None

    @property
    def replaces(self) -> bool:
        """Whether the run was to replace what earlier runs left."""
        return self.header.get("replaces") is True


@dataclass(frozen=True)
class Unfinished:
    """Files that an unfinished run left.

    Parameters
    ----------
    rows
        Path of its output, usually under the temporary name.
    journal
        Path of its journal.
    in_place
        Whether the output already has its final name, but perhaps no run record yet.
    """

    rows: Path
    journal: Path
    in_place: bool = False

    def read(self) -> Told:
        """Return the content of the journal, for files whose rows are complete.

        Raises
        ------
        OSError, ValueError
            If it cannot be read, or is damaged before its last line.
        """
        size = self.rows.stat().st_size
        # A full disk may have cut it within a character.
        text = self.journal.read_text(encoding="utf-8", errors="replace")
        *lines, _ = text.split("\n")  # the last is empty or incomplete
        told, footer = Told({}, {}, 0, ""), ""
        for number, line in enumerate(lines, start=1):
            try:
                note = parse_json(line)
                end, digest = int(note["end"]), note["sha256"]
                if number == 1:
                    told = Told(note, {}, end, digest)
                    footer = WRITERS[note["options"]["format"]].footer
                    continue
                entry = note["file"]
                if entry["rows"] != [told.end, end]:
                    raise ValueError("it does not follow the line before")
                path = str(entry["path"])
            except (ArithmeticError, KeyError, TypeError, ValueError) as error:
                raise ValueError(f"line {number} is damaged: {error}") from error
            if end > size and not self.in_place:
                break
            told = told._replace(end=end, sha256=digest)
            told.entries[path] = entry
        # An output in its place ends there, but for its footer.
        return told._replace(end=max(size - len(footer), 0)) if self.in_place else told

    @property
    def replaces(self) -> bool:
        """Whether the run was to replace what earlier runs left."""
        try:
            return self.read().replaces
        except (OSError, ValueError):  # reported when a run resumes from it
            return False

    @property
    def is_empty(self) -> bool:
        """Whether it is certain that no file was finished, and nothing was to be replaced."""
        try:
            told = self.read()
        except (OSError, ValueError):
            return False
        return not told.entries and not told.replaces

    def remove(self) -> None:
        """Remove the journal, and the output unless it has its final name."""
        remove_file(self.journal)
        if not self.in_place:
            remove_file(self.rows)


def find_unfinished(target: Path) -> list[Unfinished]:
    """Return the files that unfinished runs of an output left, the oldest first.

    Files of runs that did not finish a recording are removed.

    Parameters
    ----------
    target
        Path of the output.

    Raises
    ------
    OutputError
        If one of the runs is still writing, or its files cannot be removed.
    """
    found = []
    target = resolve_target(target)
    remove_orphans(target)
    remove_orphans(record_path(target))
    prefix = prefix_temporary(target)
    for journal in target.parent.glob(f"{glob.escape(prefix)}*{JOURNAL}"):
        # Skip the journal of another output, whose name begins with that of this one.
        if "." in journal.name.removeprefix(prefix).removesuffix(TEMPORARY + JOURNAL):
            continue
        if _is_written(journal):
            raise OutputError(
                f"{target}: another run is writing it; wait for its end, or name another output"
            )
        one = Unfinished(journal.with_name(journal.name.removesuffix(JOURNAL)), journal)
        if not one.rows.exists() and target.exists():
            one = Unfinished(target, journal, in_place=True)
        if one.rows.exists() and not one.is_empty:
            found.append(one)
        else:  # no file was finished, or the output is gone
            one.remove()
    return sorted(found, key=lambda one: one.journal.stat().st_mtime_ns)


def _lock(stream: IO[str], *, wait: bool = False) -> bool | None:
    """Lock a file until it is closed.

    Packages for this take a tenth of a second to import, in every run.

    Parameters
    ----------
    stream
        The open file.
    wait
        Whether to wait until another process unlocks it.

    Returns
    -------
    bool or None
        True if it is locked now, False if another process has locked it, None if the file system
        does not support locks.
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


def _open_journal(journal: Path) -> IO[str]:
    try:
        return journal.open("r+", encoding="utf-8")  # some file systems lock only such files
    except PermissionError:
        return journal.open(encoding="utf-8")


def _is_written(journal: Path) -> bool:
    """Return whether the run that created a journal is still writing it."""
    try:
        with _open_journal(journal) as stream:
            is_free = _lock(stream)
            age = time() - os.fstat(stream.fileno()).st_mtime
            header = stream.readline() if is_free is not False else ""
    except FileNotFoundError:  # that run has just ended
        return False
    except OSError:  # another user's, who must not lose it
        return True
    if is_free is False:
        return True
    if not header.endswith("\n"):  # it may have just been created, and not be locked yet
        return abs(age) < STARTING_S  # of clocks that do not agree, an age may be negative
    return is_free is None and _is_at_work(header, age)


def _is_at_work(header: str, age: float) -> bool:
    """Return whether the run that wrote a journal's first line is alive, if there are no locks."""
    try:
        told = parse_json(header)
        is_here, pid = told["host"] == node(), int(told["pid"])
    except (LookupError, TypeError, ValueError):
        return False
    if not is_here or sys.platform == "win32":  # on Windows, `os.kill` would end the process
        return abs(age) < ORPHANED_S
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
