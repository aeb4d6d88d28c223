"""Timing of the stages of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import Literal, get_args

Stage = Literal["decode", "speech", "features", "model", "write"]


class Stopwatch:
    """Total time spent in each stage, over all threads.

    Attributes
    ----------
    seconds
        Seconds spent in each stage, summed over all workers: two that are busy for one second
        make two.
    """

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = dict.fromkeys(get_args(Stage), 0.0)
        self._lock = Lock()

    @contextmanager
    def measure(self, stage: Stage) -> Iterator[None]:
        """Add the time spent in the block to a stage, also if the block ends in an error.

        Parameters
        ----------
        stage
            Stage that the block is part of.
        """
        start = perf_counter()
        try:
            yield
        finally:
            spent = perf_counter() - start
            with self._lock:
                self.seconds[stage] += spent
