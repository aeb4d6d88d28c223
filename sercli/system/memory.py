"""Settings of the memory allocator, and return of idle memory, if the C library is glibc."""

import ctypes
import os
import sys
from pathlib import Path
from typing import Any, Final

# Parameters of mallopt, from <malloc.h>.
M_ARENA_MAX: Final = -8
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
# Memory that may be idle in this process. Returning it to the system takes some hundredths of a
# second, and so does requesting it again.
MAX_IDLE_BYTES: Final = 300_000_000
# Blocks up to this size are allocated from the heap, and this much idle memory is kept at its top.
LARGE_BYTES: Final = 16_000_000
TOP_BYTES: Final = 32_000_000

# Environment variables that oneDNN and PyTorch's cache around it read once. Both cache code and
# buffers for each shape, by default for 1,024 shapes, and almost every batch has a new one.
CACHES: Final = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "16"}

_STATUS: Final = Path("/proc/self/status")


def keep_less() -> None:
    """Limit idle memory and caches; to be called before PyTorch is imported.

    All threads allocate from one arena. By default each has its own, and keeps its peak: with two
    workers, 200 MB of idle memory. Workers seldom allocate, and large blocks, so they hardly wait
    for each other. Large blocks are allocated from the heap, too: by default each is requested from
    the system, which clears its pages first, for a tenth of the time of a transformer.

    The caches of PyTorch are limited: with bfloat16, they would hold 300 MB after half an hour of
    audio. Recomputing their content takes little time if batches have few shapes, as those of a
    transformer do. Environment variables that are set already are kept.
    """
    for name, capacity in CACHES.items():
        os.environ.setdefault(name, capacity)
    mallopt = _find_function("mallopt")
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, TOP_BYTES)


class IdleMemory:
    """Returns idle memory between allocated blocks to the system when it may have become large.

    Blocks of varying sizes leave gaps that fit no other block: with two workers of a transformer,
    some 100 MB in a second, and more over hours.
    """

    def __init__(self) -> None:
        self._trim = _find_function("malloc_trim")
        self._least = self._last = measure_allocated()

    def check(self) -> None:
        """Return idle memory to the system if the process has grown by `MAX_IDLE_BYTES`."""
        if self._trim is None:
            return
        held = measure_allocated()
        self._least = min(self._least, held)
        # Growth is measured from the minimum, as much may be in use right after a trim; and from
        # the last trim, so as not to trim again and again if that much remains in use.
        if held > max(self._least + MAX_IDLE_BYTES, self._last + MAX_IDLE_BYTES // 2):
            self._trim(0)
            self._last = measure_allocated()


def measure_allocated() -> int:
    """Return the anonymous memory of this process in bytes; 0 if the system does not report it."""
    return _read_status("RssAnon") or 0


def measure_peak_memory() -> int | None:
    """Return the peak memory of this process in bytes; None if the system does not report it."""
    if (peak := _read_status("VmHWM")) is not None:
        return peak
    try:
        import resource  # on Linux, its peak may be that of the program that started this one
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _read_status(name: str) -> int | None:
    """Return a size in bytes that Linux reports of this process, or None."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)


def _find_function(name: str) -> Any:
    """Return a function of the C library, or None if it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
