"""How long the stages of a run take."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import Literal, get_args

Stage = Literal["decode", "speech", "features", "model", "write"]


class Stopwatch:
    """Adds up what each stage takes, in all threads.

    Attributes
    ----------
    seconds
        Of each stage: of all workers together, so that two that are busy for a second make two.
    """

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = dict.fromkeys(get_args(Stage), 0.0)
        self._lock = Lock()

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time that is spent in the block, also if that ends in an error.

        Parameters
        ----------
        stage
            That it is part of.
        """
        start = perf_counter()
        try:
            yield
        finally:
            spent = perf_counter() - start
            with self._lock:
                self.seconds[stage] += spent
