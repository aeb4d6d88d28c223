"""Features in processes of their own, where Python would let one thread compute at a time."""

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from threading import Lock, Thread
from typing import Any, Final, Self

from sercli.arrays import FloatArray
from sercli.audio.reading import SAMPLE_RATE

Extract = Callable[[Sequence[FloatArray]], FloatArray]

# For less audio than this, it is not worth to start them.
START_S: Final = 60.0
# How often a process looks whether the one that started it is still there.
WATCH_S: Final = 2.0
# What limits the threads of matrix products in a process that starts.
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class FeatureProcesses:
    """Computes features, from some audio on in other processes; several threads may call it.

    They start when they are first needed, and end with the block that this manages. Where there can
    be none, or one of them is killed, the features are computed in this process from then on.

    Parameters
    ----------
    extract
        From segments to rows, shape (n_segments, n_features); it can be pickled.
    n_processes
        Number of them.
    n_threads
        With which each computes.
    """

    def __init__(self, extract: Extract, n_processes: int, n_threads: int) -> None:
        self._extract = extract
        self._n_processes = n_processes
        self._n_threads = n_threads
        self._lock = Lock()
        self._seconds = 0.0
        self._is_broken = False
        self._executor: Any = None

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes, whatever they are at."""
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)

    def __call__(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        """Return rows, shape (n_segments, n_features).

        Parameters
        ----------
        waveforms
            Segments, each of shape (n_samples,).
        """
        executor = self._find_executor(sum(map(len, waveforms)) / SAMPLE_RATE)
        if executor is not None:
            try:
                rows: FloatArray = executor.submit(self._extract, list(waveforms)).result()
            except (BrokenExecutor, OSError):
                self._is_broken = True
            else:
                return rows
        return self._extract(waveforms)

    def _find_executor(self, seconds: float) -> Any:
        """Return what computes in processes; None if it is not worth it, or not possible."""
        with self._lock:
            self._seconds += seconds
            if self._is_broken or self._seconds < START_S:
                return None
            if self._executor is None:
                from multiprocessing import current_process

                if current_process().daemon:  # one of a pool may have none of its own
                    self._is_broken = True
                    return None
                try:
                    # Unlike the standard library's, it does not run a script once more that calls
                    # this.
                    from loky import ProcessPoolExecutor

                    self._executor = ProcessPoolExecutor(
                        self._n_processes,
                        initializer=_begin,
                        initargs=(os.getpid(),),
                        env=dict.fromkeys(THREAD_VARIABLES, str(self._n_threads)),
                    )
                except (ImportError, NotImplementedError, OSError):  # no semaphores here
                    self._is_broken = True
            return self._executor


def _begin(parent: int) -> None:
    """Leave interrupts to the process that started this one, and end if that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)
