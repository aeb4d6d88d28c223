"""Locks of folders between processes."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sercli.errors import OutputError


@contextmanager
def keep_out(folder: Path) -> Iterator[None]:
    """Lock a folder against other trainings meanwhile, where folders can be locked.

    Parameters
    ----------
    folder
        Path of the folder.

    Raises
    ------
    OutputError
        If another training has locked it, or it may not be read.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be read: {error.strerror}; allow reading, or name another folder"
        ) from error
    try:
        with suppress(OSError):  # some file systems have no locks
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OutputError(
                    f"{folder}: another training is writing it; wait until it ends, or name "
                    "another folder"
                ) from error
        yield
    finally:
        os.close(lock)
