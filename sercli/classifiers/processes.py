"""Feature extraction in other processes, where the GIL would let one thread compute at a time."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Any, Final, Self

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE

Extract = Callable[[Sequence[FloatArray]], FloatArray]

# Seconds of audio from which starting the processes is worthwhile.
START_S: Final = 60.0
# Seconds of audio of a task: a batch is divided among the processes, or the last would be uneven.
TASK_S: Final = 30.0
# Interval in seconds at which a process checks that its parent is still alive.
WATCH_S: Final = 2.0
# Whether threads can block signals; not on Windows.
MASKS: Final = hasattr(signal, "pthread_sigmask")
# Environment variables that limit the threads of matrix products in a new process.
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class FeatureProcesses:
    """Thread-safe feature extraction in other processes, once there is enough audio.

    The processes start when they are first needed, and end with the context manager's block. If
    they cannot be started, or one of them is killed, features are extracted in this process from
    then on.

    Parameters
    ----------
    extract
        Maps segments to rows, shape (n_segments, n_features); it must be picklable.
    n_processes
        Number of processes.
    n_threads
        Number of threads with which each process computes.
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
        """Return this object; no process starts yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes, even if they are busy."""
        if self._executor is not None:
            self._executor.shutdown(kill_workers=True)

    def __call__(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        """Return rows of features, shape (n_segments, n_features).

        Parameters
        ----------
        waveforms
            Segments, each of shape (n_samples,).
        """
        executor = self._find_executor(sum(map(len, waveforms)) / SAMPLE_RATE)
        if executor is not None:
            try:
                with _deferring_interrupts():  # the first tasks start the processes
                    tasks = [executor.submit(self._extract, part) for part in _divide(waveforms)]
                return np.concatenate([task.result() for task in tasks])
            except (BrokenExecutor, OSError):
                self._is_broken = True
        return self._extract(waveforms)

    def _find_executor(self, seconds: float) -> Any:
        """Return the process pool; None if it is not worthwhile yet, or not possible."""
        with self._lock:
            self._seconds += seconds
            if self._is_broken or self._seconds < START_S:
                return None
            if self._executor is None:
                from multiprocessing import current_process

                # Daemonic processes cannot have children, nor can loky start any without streams.
                if current_process().daemon or None in (sys.stdout, sys.stderr):
                    self._is_broken = True
                    return None
                try:
                    if MASKS:
                        from multiprocessing import resource_tracker

                        # The pool needs it, and to start it later would unblock interrupts.
                        resource_tracker.ensure_running()
                    # Unlike the standard library's pool, it does not re-run the calling script.
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


def _divide(waveforms: Sequence[FloatArray]) -> Iterator[list[FloatArray]]:
    """Yield the segments in tasks of about `TASK_S` seconds, one after the other."""
    part, seconds = list[FloatArray](), 0.0
    for waveform in waveforms:
        part.append(waveform)
        seconds += len(waveform) / SAMPLE_RATE
        if seconds >= TASK_S:
            yield part
            part, seconds = [], 0.0
    if part:
        yield part


@contextmanager
def _deferring_interrupts() -> Iterator[None]:
    """Block interrupts in this thread, and for good in the processes that are started here.

    Ctrl-C reaches all processes of a terminal: one that is still importing would print where it was
    interrupted.
    """
    if not MASKS:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """Leave interrupts to the parent process, and exit when it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)
