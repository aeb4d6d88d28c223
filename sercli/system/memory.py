"""How this process gets its memory, and gives it back, where the C library is glibc."""

import ctypes
import os
from pathlib import Path
from typing import Any, Final

# Of <malloc.h>.
M_ARENA_MAX: Final = -8
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
# What may lie idle in this process. Giving it back takes some hundredths of a second, and so does
# asking for it anew.
MAX_IDLE_BYTES: Final = 300_000_000
# Blocks up to this size are taken from what lies idle, and so much at its end is kept.
LARGE_BYTES: Final = 16_000_000
TOP_BYTES: Final = 32_000_000

# Read by oneDNN and by what PyTorch has around it, once. Both keep code and buffers for each shape
# that they met, by default for 1,024 of them, and batches have ever other shapes.
CACHES: Final = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "16"}

_STATUS: Final = Path("/proc/self/status")


def keep_less() -> None:
    """Keep little that is not in use; to be called before PyTorch is imported.

    All threads allocate from one arena. By default each has its own, and keeps what it once needed:
    with two workers, 200 MB that lie idle. Workers allocate large blocks now and then, so that they
    hardly wait for each other. These blocks are taken from what lies idle, too: by default the
    system is asked for each, and clears its pages first, for a tenth of the time of a transformer.

    What PyTorch keeps for batches to come is limited: with bfloat16, it would be 300 MB after half
    an hour of audio. Making it anew takes little time where batches have few shapes, as those of a
    transformer have. What the environment says otherwise stays.
    """
    for name, capacity in CACHES.items():
        os.environ.setdefault(name, capacity)
    mallopt = _find_function("mallopt")
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
        mallopt(M_TRIM_THRESHOLD, TOP_BYTES)


class IdleMemory:
    """What lies idle between allocated blocks, which is given back once it may be much.

    Blocks of ever other sizes leave gaps that hold no other block: with two workers of a
    transformer, some 100 MB in a second, and more over hours.
    """

    def __init__(self) -> None:
        self._trim = _find_function("malloc_trim")
        self._least = self._last = measure_allocated()

    def check(self) -> None:
        """Give it back if this process has grown by as much as may lie idle."""
        if self._trim is None:
            return
        held = measure_allocated()
        self._least = min(self._least, held)
        # From the least on, since much may be in use when it is given back; but where that is in
        # use for good, not again and again.
        if held > max(self._least + MAX_IDLE_BYTES, self._last + MAX_IDLE_BYTES // 2):
            self._trim(0)
            self._last = measure_allocated()


def measure_allocated() -> int:
    """Return how many bytes this process holds besides files; 0 where that is not told."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def _find_function(name: str) -> Any:
    """Return a function of the C library, or None: this is not Linux, or another library."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError, TypeError):
        return None
