"""How this process gets its memory, where the C library is glibc."""

import ctypes

# Of <malloc.h>.
M_ARENA_MAX = -8


def share_arena() -> None:
    """Let all threads allocate from one arena.

    By default each has its own, and keeps what it once needed: with two workers, 200 MB that lie
    idle. Workers allocate large blocks now and then, so that they hardly wait for each other.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not on Linux, or another C library
        return
    mallopt(M_ARENA_MAX, 1)
