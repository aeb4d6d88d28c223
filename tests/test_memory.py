"""What a process holds of memory, and gives back."""

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sercli.system import memory
from sercli.system.memory import (
    IdleMemory,
    keep_less,
    measure_allocated,
    measure_peak_memory,
)


def test_glibc_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Glibc:
        @staticmethod
        def mallopt(*given: int) -> None:
            asked.append(given)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Glibc)
    monkeypatch.setattr(os, "environ", {"LRU_CACHE_CAPACITY": "7"})
    keep_less()
    # M_ARENA_MAX, M_MMAP_THRESHOLD (32 MB at most, or it is refused), M_TRIM_THRESHOLD.
    assert asked == [(-8, 1), (-3, 16_000_000), (-1, 32_000_000)]
    assert os.environ == {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "7"}


@pytest.mark.parametrize("error", [OSError, TypeError, AttributeError])
def test_other_libraries_are_left_alone(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", fail)
    monkeypatch.setattr(os, "environ", {})
    held = [0]
    monkeypatch.setattr(memory, "measure_allocated", lambda: held[0])
    keep_less()
    # The caches are those of PyTorch, whatever the C library is.
    assert os.environ == {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "16"}
    idle = IdleMemory()
    held[0] = 10 * memory.MAX_IDLE_BYTES
    idle.check()
    assert (idle._least, idle._last) == (0, 0)  # nothing was given back


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_gaps_are_given_back_once_they_are_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_IDLE_BYTES", 60_000_000)
    idle = IdleMemory()
    # Small enough to lie side by side, and all of them touched.
    blocks = [np.ones(100_000, np.uint8) for _ in range(1500)]
    idle.check()
    kept = blocks[::50]
    idle._least = idle._last = measure_allocated() - 150_000_000  # as before the blocks
    del blocks
    before = measure_allocated()
    idle.check()
    assert before - measure_allocated() > 100_000_000
    assert all(block.all() for block in kept)


def test_less_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first when it begins, and one more after each time that it is given back.
    held = iter([100, 300, 349, 90, 339, 341, 220, 344, 346, 400, 520, 526, 90])
    trims: list[int] = []
    monkeypatch.setattr(memory, "MAX_IDLE_BYTES", 250)
    monkeypatch.setattr(memory, "measure_allocated", lambda: next(held))
    idle = IdleMemory()
    idle._trim = trims.append
    for expected in (0, 0, 0, 0, 1, 1, 2, 2, 3):
        idle.check()
        assert len(trims) == expected


def test_the_peak_is_that_of_this_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    # Linux cuts names, also within a character.
    status.write_bytes(
        b"Name:\tanalys\xc3\nVmPeak:\t  999 kB\nVmHWM:\t   250 kB\nRssAnon:\t   125 kB\n"
    )
    monkeypatch.setattr(memory, "_STATUS", status)
    assert (measure_peak_memory(), measure_allocated()) == (256_000, 128_000)
    status.unlink()
    assert measure_allocated() == 0
    peak = measure_peak_memory()
    assert peak is None or 20_000_000 < peak < 100_000_000_000
