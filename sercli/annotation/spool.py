"""Rows of many segments, in memory up to a limit and on disk beyond it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from tempfile import SpooledTemporaryFile, gettempdir
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sercli.arrays import IntArray
from sercli.errors import OutputError

# Bytes that are held in memory: some 800,000 segments of six labels.
MEMORY_LIMIT = 64_000_000
# Rows that are this close together are read at once, with those between them, which is faster.
MAX_GAP = 16


class RowStore:
    """Store of rows that are read and written by their numbers.

    Parameters
    ----------
    dtype
        Data type of a row.
    limit
        Size in bytes above which all rows move to a temporary file; `MEMORY_LIMIT` by default.
    """

    def __init__(self, dtype: DTypeLike, limit: int | None = None) -> None:
        self._dtype = np.dtype(dtype)
        self._limit = MEMORY_LIMIT if limit is None else limit
        self._n_rows = 0
        self._file = self._open()

    def __enter__(self) -> Self:
        """Return the store, whose file is closed at the end."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete all rows and close the file."""
        self._close()

    def append(self, rows: NDArray[Any]) -> range:
        """Append rows, and return their numbers."""
        numbers = range(self._n_rows, self._n_rows + len(rows))
        self._n_rows = numbers.stop
        self.write(numbers, rows)
        return numbers

    def read(self, numbers: Sequence[int]) -> NDArray[Any]:
        """Return rows by their numbers, which must be in rising order."""
        wanted = np.asarray(numbers, np.int64)
        rows = np.empty(len(wanted), self._dtype)
        with _told():
            for run in self._seek(wanted, MAX_GAP):
                places = wanted[run] - wanted[run.start]
                count = int(places[-1]) + 1
                content = self._file.read(count * self._dtype.itemsize)
                rows[run] = np.frombuffer(content, self._dtype, count)[places]
        return rows

    def write(self, numbers: Sequence[int], rows: NDArray[Any]) -> None:
        """Overwrite rows by their numbers, which must be in rising order."""
        with _told():
            for run in self._seek(np.asarray(numbers, np.int64)):
                self._file.write(np.ascontiguousarray(rows[run], self._dtype).tobytes())

    def clear(self) -> None:
        """Delete all rows; the store can be used again."""
        self._close()
        self._file = self._open()
        self._n_rows = 0

    def _close(self) -> None:
        with suppress(OSError):  # rows that could not be written are not needed any more
            self._file.close()

    def _open(self) -> "SpooledTemporaryFile[bytes]":
        # It has no name, or none for long: nobody else needs its content.
        return SpooledTemporaryFile(max_size=self._limit)

    def _seek(self, numbers: IntArray, gap: int = 1) -> Iterator[slice]:
        """Seek to each run of numbers that differ by `gap` at most, and yield its slice of them."""
        if not len(numbers):
            return
        firsts = [0, *(np.flatnonzero(np.diff(numbers) > gap) + 1).tolist()]
        for start, stop in zip(firsts, [*firsts[1:], len(numbers)], strict=True):
            self._file.seek(int(numbers[start]) * self._dtype.itemsize)
            yield slice(start, stop)


@contextmanager
def _told() -> Iterator[None]:
    """Turn an error of the temporary file, such as a full disk, into `OutputError`."""
    try:
        yield
    except OSError as error:
        folder = "the folder for temporary files"
        with suppress(OSError):  # it may be that there is none
            folder = gettempdir()
        raise OutputError(
            f"{folder}: temporary data cannot be written: {error.strerror}; free some space "
            "there, or set TMPDIR to another folder"
        ) from error
