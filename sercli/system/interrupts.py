"""Handling of signals that end the process."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

# Signals that end a process, if the system has them: from a user (Ctrl-C), from the system or a
# scheduler, from a terminal that closes.
ENDING = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None))
)

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Raise `KeyboardInterrupt` on SIGTERM and SIGHUP too, as Ctrl-C does on SIGINT.

    Only the first signal does so: later ones are ignored, while results are being written.
    """
    is_ending = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal is_ending
        if not is_ending:
            is_ending = True
            raise KeyboardInterrupt

    usual = (signal.SIG_DFL, signal.default_int_handler)
    # Signals that are handled or ignored already, as by nohup, are left alone.
    with _handling(interrupt, lambda found: found in usual):
        yield


@contextmanager
def delay_interrupts() -> Iterator[None]:
    """Delay signals that end the process to the end of the block, if they have Python handlers."""
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
    """Set a handler for the signals whose present handler is `wanted`; yield the present ones.

    Does nothing outside the main thread: only that may set handlers, and signals arrive only there.
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
