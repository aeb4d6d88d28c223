"""Atomic writing of files, which appear whole or not at all, and checks of their targets."""

import glob
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from time import time
from typing import Any, BinaryIO

from sercli.errors import OutputError
from sercli.system.interrupts import delay_interrupts

AnyPath = str | os.PathLike[str]

# The file name that stands for standard output.
STDOUT = "-"
# Suffix of a temporary file, which is renamed to its target when it is complete.
TEMPORARY = ".tmp"
# Suffix that a journal's name adds to it.
JOURNAL = ".journal"
# Before the suffix, a random number in hexadecimal digits.
DRAWN_BYTES = 4
DRAWN = re.compile(rf"[0-9a-f]{{{2 * DRAWN_BYTES}}}")
# Seconds after which a temporary file is abandoned: those in use are written to, or have a journal.
ORPHANED_S = 600.0
# Most bytes of a name to which these suffixes and a journal's can be added: file systems allow 255.
LONGEST = 220
# Remedy when a run cannot write on.
TELL_RESUMED = "once that is mended, continue with --resume"


class AtomicFile:
    """File that is renamed to its target when it is closed.

    Parameters
    ----------
    path
        Path of the target; of a link, the file that it points to is replaced.
    overwrite
        Whether an existing target may be replaced.

    Raises
    ------
    OutputError
        If the target exists or its folder cannot be written.

    Attributes
    ----------
    temporary
        Path of the temporary file that is written until then.
    stream
        Stream that writes to it.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        check_target(path, overwrite=overwrite)
        self._path = path
        self._overwrite = overwrite
        self.temporary = _name_temporary(path)
        try:
            self.stream: BinaryIO = self.temporary.open("xb")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        copy_mode(path, self.temporary)

    def write(self, content: bytes) -> None:
        """Write bytes, and flush them.

        Raises
        ------
        OutputError
            If they cannot be written, as on a full disk.
        """
        try:
            self.stream.write(content)
            self.stream.flush()
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be written: {error.strerror}; {TELL_RESUMED}"
            ) from error

    def close(self) -> None:
        """Rename the file to its target.

        Raises
        ------
        OutputError
            If it cannot be written or renamed, as on Windows while another program has the old
            file open, or if the target exists by now and must not be replaced.
        """
        try:
            self.stream.flush()
            os.fsync(self.stream.fileno())  # or a power cut may leave the name without the content
            self.stream.close()
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be written: {error.strerror}; {self._tell_temporary()}"
            ) from error
        try:
            if not self._overwrite and os.path.exists(self._path):  # also by way of a link
                raise OutputError(
                    f"{self._path}: another program created this file meanwhile; "
                    f"{self._tell_temporary()}. Move the other file away, unless it is from a "
                    "run, too, and continue with --resume"
                )
            os.replace(self.temporary, resolve_target(self._path))
        except OSError as error:
            raise OutputError(
                f"{self._path}: cannot be replaced: {error.strerror}; close the program that has "
                f"it open; {self._tell_temporary()}"
            ) from error

    def _tell_temporary(self) -> str:
        if os.path.exists(self.temporary):
            return f"the output is in {self.temporary}"
        return f"the temporary output, {self.temporary}, was removed by another program"

    def leave(self) -> None:
        """Close the file under its temporary name, because it could not be written completely."""
        with suppress(OSError):  # closing writes the buffer, which may fail again
            self.stream.close()

    def discard(self) -> None:
        """Remove the temporary file.

        Raises
        ------
        OutputError
            If it cannot be removed.
        """
        self.leave()
        remove_file(self.temporary)


def check_target(path: Path, *, overwrite: bool) -> None:
    """Raise if a target exists or cannot be created.

    Parameters
    ----------
    path
        Path of the target.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    OutputError
        If the target is a directory or another special file, exists and may not be replaced, or
        its folder does not exist.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        folder = resolve_target(path).parent
        if not folder.is_dir():
            raise OutputError(
                f"{path}: the folder {folder} does not exist; create it first"
            ) from None
        return
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    if stat.S_ISDIR(mode):
        raise OutputError(f"{path}: is a directory; expected a file name")
    if not stat.S_ISREG(mode):
        raise OutputError(
            f"{path}: is not a regular file; expected a file name, or {STDOUT} for standard output"
        )
    if not overwrite:
        raise OutputError(f"{path}: already exists; give another name or --overwrite")


def remove_file(path: Path) -> None:
    """Remove a file that a run has left or no longer needs, if it is there.

    Parameters
    ----------
    path
        Path of the file.

    Raises
    ------
    OutputError
        If it cannot be removed, as on Windows while another program has it open.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed: {error.strerror}; {TELL_RESUMED}") from error


def make_folder(folder: Path, kind: str = "folder") -> None:
    """Create a folder and its parents, unless they exist.

    Parameters
    ----------
    folder
        Path of the folder.
    kind
        Name for the folder in error messages.

    Raises
    ------
    OutputError
        If it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder}: the {kind} cannot be created: {error.strerror}; name another folder"
        ) from error


def identify(path: AnyPath) -> tuple[int, int] | None:
    """Return device and inode, which identify a file whatever its path; None if there is none.

    Parameters
    ----------
    path
        Path of the file.
    """
    status = _find_status(path)
    return None if status is None else (status.st_dev, status.st_ino)


def find_size_and_time(path: AnyPath) -> tuple[int | None, float | None]:
    """Return the size of a file in bytes and the time of its last change; None if unknown.

    Parameters
    ----------
    path
        Path of the file.
    """
    status = _find_status(path)
    return (None, None) if status is None else (status.st_size, status.st_mtime)


def _find_status(path: AnyPath) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # ValueError: the path contains NUL
        return None


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON file atomically.

    Parameters
    ----------
    path
        Path of the file; an existing file is replaced.
    data
        Content of the file.

    Raises
    ------
    OutputError
        If the target cannot be written.
    """
    check_target(path, overwrite=True)
    write_bytes(path, (json.dumps(data, ensure_ascii=False, indent=1) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: at any moment there is either the old file or the new one.

    Parameters
    ----------
    path
        Path of the file; an existing file is replaced.
    content
        The whole content.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_together({path: content})


def write_together(contents: Mapping[Path, bytes], outdated: Iterable[Path] = ()) -> None:
    """Write files that belong together: none is replaced before all are written.

    Each is atomic, as by `write_bytes`. A process that is killed leaves the old files, unless that
    happens in the moment between two renamings.

    Parameters
    ----------
    contents
        Path and whole content of each file, in the order in which they get their names.
    outdated
        Files that do not go with them, which need not exist; removed when all others are written,
        and before any gets its name.

    Raises
    ------
    OutputError
        If one cannot be written, or an outdated one cannot be removed.
    """
    written: list[tuple[Path, Path]] = []
    path = Path()
    try:
        for path, content in contents.items():
            temporary = _name_temporary(path)
            written.append((path, temporary))
            with temporary.open("xb") as stream:
                copy_mode(path, temporary)
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        with delay_interrupts():  # or an interrupt could leave old files among the new ones
            for path in outdated:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    raise OutputError(
                        f"{path}: cannot be removed: {error.strerror}; remove it, or name another "
                        "folder"
                    ) from error
            for path, temporary in written:
                os.replace(temporary, resolve_target(path))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        for _, temporary in written:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def resolve_target(path: Path) -> Path:
    """Return the real path of a target: of a link, the path that it points to."""
    return Path(os.path.realpath(path))


def resolve_folder(path: AnyPath) -> str:
    """Return the path of a file without links to folders; the file itself may be a link.

    Parameters
    ----------
    path
        Path of the file, which need not exist.
    """
    folder, name = os.path.split(os.path.abspath(path))
    # Unlike `Path.resolve`, `realpath` does not fail on a loop of links.
    return os.path.join(os.path.realpath(folder), name)


def copy_mode(source: Path, path: Path) -> None:
    """Give a file the permissions of another one, if there is one.

    Not on Windows, where a file that only may be read could not be replaced or removed.

    Parameters
    ----------
    source
        Path of the other file.
    path
        Path of the file, which stays writable for its owner.
    """
    if os.name != "nt":
        with suppress(OSError):  # some file systems have none
            path.chmod(stat.S_IMODE(source.stat().st_mode) | stat.S_IWUSR)


def prefix_temporary(target: Path) -> str:
    """Return the prefix that the names of a target's temporary files have in common.

    Parameters
    ----------
    target
        Real path of the target, as `resolve_target` returns it.
    """
    name = os.fsencode(target.name)
    return f".{target.name if len(name) <= LONGEST else sha256(name).hexdigest()}."


def remove_orphans(target: Path, age: float = ORPHANED_S) -> None:
    """Remove abandoned temporary files of a target, left by runs that were killed early.

    Only files that are older than `age` and have no journal are removed.

    Parameters
    ----------
    target
        Path of the target.
    age
        Age in seconds; 0 if no other process can be writing the target.
    """
    oldest = time() - age
    prefix = prefix_temporary(resolve_target(target))
    for path in target.parent.glob(f"{glob.escape(prefix)}*{TEMPORARY}"):
        drawn = path.name.removeprefix(prefix).removesuffix(TEMPORARY)
        with suppress(OSError):  # another process may have removed it
            is_old = DRAWN.fullmatch(drawn) and (not age or path.stat().st_mtime < oldest)
            if is_old and not path.with_name(path.name + JOURNAL).exists():
                path.unlink()


def _name_temporary(path: Path) -> Path:
    target = resolve_target(path)
    return target.with_name(f"{prefix_temporary(target)}{token_hex(DRAWN_BYTES)}{TEMPORARY}")
