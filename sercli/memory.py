"""How this process gets its memory, and gives it back, where the C library is glibc."""

import ctypes
from functools import cache
from typing import Any

# Of <malloc.h>.
M_ARENA_MAX = -8


def share_arena() -> None:
    """Let all threads allocate from one arena.

    By default each has its own, and keeps what it once needed: with two workers, 200 MB that lie
    idle. Workers allocate large blocks now and then, so that they hardly wait for each other.
    """
    library = _find_library()
    if library is not None:
        library.mallopt(M_ARENA_MAX, 1)


def release() -> None:
    """Give back to the system what is free between blocks that are in use.

    Blocks of many different sizes leave gaps, which would become more and more for hours.
    """
    library = _find_library()
    if library is not None:
        library.malloc_trim(0)


@cache
def _find_library() -> Any:
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError, TypeError):  # not on Linux, or another C library
        return None
