"""Rows that wait in memory, or in a file beyond a limit."""

import numpy as np
import pytest

from sercli.annotation import spool
from sercli.annotation.spool import RowStore
from sercli.errors import OutputError

ROW = np.dtype({"names": ("number", "shares"), "formats": ("i4", (np.float64, (3,)))})


def make_rows(first: int, count: int) -> np.ndarray:
    rows = np.empty(count, ROW)
    rows["number"] = np.arange(first, first + count)
    rows["shares"] = rows["number"][:, None] * [1, 10, 100]
    return rows


@pytest.mark.parametrize("limit", [10, 1_000_000])
def test_rows_come_back_by_their_numbers(limit: int) -> None:
    with RowStore(ROW, limit) as store:
        assert [store.append(make_rows(first, 7)) for first in (0, 7)] == [range(7), range(7, 14)]
        assert store.append(make_rows(0, 0)) == range(14, 14)
        numbers = [1, 2, 3, 6, 7, 13]
        rows = store.read(numbers)
        assert rows["number"].tolist() == numbers
        rows["shares"] /= 2
        store.write(numbers, rows)
        whole = store.read(range(14))
        expected = make_rows(0, 14)
        expected["shares"][numbers] /= 2
        np.testing.assert_array_equal(whole, expected)
        assert store.append(make_rows(14, 1)) == range(14, 15)
        assert store.read([14])["number"] == 14
        assert not len(store.read([]))


@pytest.mark.parametrize("limit", [10, 1_000_000])
def test_rows_that_are_close_together_are_read_at_once(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RowStore(ROW, limit) as store:
        store.append(make_rows(0, 100))
        read, sizes = store._file.read, list[int]()

        def note(size: int) -> bytes:
            sizes.append(size // ROW.itemsize)
            return read(size)

        monkeypatch.setattr(store._file, "read", note)
        numbers = [3, 5, 8, 8 + spool.MAX_GAP, 80, 99]
        np.testing.assert_array_equal(store.read(numbers), make_rows(0, 100)[numbers])
        assert sizes == [6 + spool.MAX_GAP, 1, 1]
        # What lies between them is never overwritten.
        store.write(numbers, make_rows(200, 6))
        expected = make_rows(0, 100)
        expected[numbers] = make_rows(200, 6)
        np.testing.assert_array_equal(store.read(range(100)), expected)


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with RowStore(ROW, 10) as store:
        monkeypatch.setattr(store._file, "write", fail)
        with pytest.raises(OutputError, match="No space left on device; free some space there"):
            store.append(make_rows(0, 7))


def test_that_there_is_no_folder_for_temporary_files_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("sercli.annotation.spool.gettempdir", fail)
    monkeypatch.setattr("tempfile.gettempdir", fail)
    with (
        RowStore(ROW, 10) as store,
        pytest.raises(OutputError, match=r"the folder for temporary files: .* set TMPDIR"),
    ):
        store.append(make_rows(0, 7))


@pytest.mark.parametrize("name", ["seek", "read"])
def test_a_full_disk_is_told_where_what_was_buffered_goes_out(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with RowStore(ROW, 10) as store:
        store.append(make_rows(0, 7))
        monkeypatch.setattr(store._file, name, fail)
        with pytest.raises(OutputError, match="No space left on device; free some space there"):
            store.read([3])


def test_what_is_forgotten_is_gone() -> None:
    with RowStore(ROW) as store:
        store.append(make_rows(0, 3))
        store.clear()
        assert store.append(make_rows(5, 1)) == range(1)
        assert store.read([0])["number"] == 5


def test_beyond_the_limit_nothing_is_held_in_memory() -> None:
    with RowStore(ROW, 100) as store:
        store.append(make_rows(0, 3))
        assert not store._file._rolled  # type: ignore[attr-defined]
        store.append(make_rows(3, 3))
        assert store._file._rolled  # type: ignore[attr-defined]
