"""Ending in order: what ends a program, once, and what is not cut in two by it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

# Signals that end a process, where the system has them: of a user, a system or scheduler, a
# terminal that closes.
ENDING = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))
)

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let a system that shuts down, a scheduler or a closed terminal do what Ctrl-C does.

    Once it has begun to end, it is not interrupted again: what it has done is being written.
    """
    is_ending = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_ending
        if not is_ending:
            is_ending = True
            raise KeyboardInterrupt

    usual = (signal.SIG_DFL, signal.default_int_handler)
    # What somebody handles or ignores already, as nohup does, stays.
    with _handling(interrupt, lambda found: found in usual):
        yield


@contextmanager
def delay_interrupts() -> Iterator[None]:
    """Let signals that end a process wait for the end of a block, where Python handles them."""
    came: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}
    try:
        with _handling(lambda *signal_: came.append(signal_), callable) as before:
            yield
    finally:
        for number, frame in came:
            before[number](number, frame)


@contextmanager
def _handling(handler: Handler, wanted: Callable[[Any], bool]) -> Iterator[dict[int, Any]]:
    """Handle the signals whose handlers are wanted, and give these.

    Only the main thread may, and none arrives in others.
    """
    before: dict[int, Any] = {}
    if current_thread() is main_thread():
        before = {one: found for one in ENDING if wanted(found := signal.getsignal(one))}
    try:
        for one in before:
            signal.signal(one, handler)
        yield before
    finally:
        for one, found in before.items():
            signal.signal(one, found)
