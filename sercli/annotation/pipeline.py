"""Pipeline that runs recordings on all cores: each worker reads files and scores batches.

A reading worker decodes some seconds of a file. The segments that become final wait in a window,
which is divided into batches of similar lengths once it holds `WINDOW_S` of audio. A scoring worker
runs the model on a batch. Every worker does both, whichever is due, so that one long file keeps all
of them as busy as many short ones: it is read by one worker, and scored by all.

Batches do not depend on the timing of threads: a window holds the segments of one file in order, or
the last segments of several files in order. So two runs give the same results to the last bit.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from threading import Condition, Thread, current_thread, main_thread
from typing import NamedTuple

import numpy as np

from sercli.annotation.recording import Block, Recording
from sercli.arrays import DoubleArray, FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.classifiers.batches import group_by_length

# Audio in a window, in seconds, when it is divided into batches: the more, the less padding. It is
# at least a batch. The first windows are smaller, so that no worker waits long for a batch.
WINDOW_S = 360.0
FIRST_WINDOW_S = 60.0
# Workers read on while less audio than this, in seconds, is in batches that are ready.
READY_S = 120.0
# A worker reads this much audio at a time, in seconds, or to the end of the file.
STEP_S = 30.0
# Most files that have their last segments in one window: with little speech, it would take long to
# fill.
WINDOW_FILES = 1024
# Limits of reading ahead while an earlier file is not finished: seconds of audio in last segments
# that wait for it, and number of files.
WAITING_S = 600.0
MAX_AHEAD = 4 * WINDOW_FILES
# Timeout of waits in seconds: on Windows, only a wait with a timeout can be interrupted; and a
# worker has to notice that the program has ended though results are left.
WAKE_S = 1.0

Progress = Callable[[float], None]
Scorer = Callable[[Sequence[FloatArray]], DoubleArray]


class ScoredRecording(NamedTuple):
    """Recording with the probabilities of its pieces.

    Parameters
    ----------
    recording
        The recording, read to its end.
    probabilities
        Probabilities of each piece, shape (n_pieces, n_labels).
    """

    recording: Recording
    probabilities: DoubleArray


class _Window:
    """Segments that wait to be divided into batches of similar lengths."""

    def __init__(self, batch_seconds: float) -> None:
        self._n_samples = int(batch_seconds * SAMPLE_RATE)
        self._size, self._full_size = FIRST_WINDOW_S, max(WINDOW_S, batch_seconds)
        self.items: list[_Item] = []

    def add(self, items: list["_Item"]) -> list[list["_Item"]]:
        """Add segments; return all in batches if the window is full, else an empty list."""
        self.items += items
        if _seconds(self.items) < self._size:
            return []
        self._size = min(2 * self._size, self._full_size)
        return self.divide()

    def divide(self) -> list[list["_Item"]]:
        """Return all segments in batches, and empty the window."""
        items, self.items = self.items, []
        lengths = [len(item.waveform) for item in items]
        groups = group_by_length(lengths, self._n_samples)
        return [[items[index] for index in group] for group in groups]


class _Job:
    """Recording that is being read and scored."""

    def __init__(self, number: int, recording: Recording, batch_seconds: float) -> None:
        self.number = number
        self.recording = recording
        self.steps = recording.listen()
        self.window = _Window(batch_seconds)
        self.n_open = 0  # segments that are not scored yet
        self.is_read = False
        self.rows: list[tuple[list[int], DoubleArray]] = []

    @property
    def is_done(self) -> bool:
        return self.is_read and not self.n_open

    def finish(self, n_labels: int) -> ScoredRecording:
        probabilities = np.empty((len(self.recording.pieces), n_labels))
        for places, rows in self.rows:
            probabilities[places] = rows
        return ScoredRecording(self.recording, probabilities)


class _Item(NamedTuple):
    """Segment that waits to be scored."""

    job: _Job
    place: int
    waveform: FloatArray


def score_recordings(
    recordings: Iterable[Recording],
    scorers: Sequence[Scorer],
    n_labels: int,
    n_workers: int,
    batch_seconds: float,
    progress: Progress | None = None,
) -> Generator[ScoredRecording, None, None]:
    """Read recordings and score their segments, in several threads.

    Parameters
    ----------
    recordings
        Recordings; the iterable is advanced only when the next one can be read.
    scorers
        Functions from the waveforms of a batch to probabilities, one per replica of the model; each
        scores one batch at a time.
    n_labels
        Number of labels.
    n_workers
        Number of worker threads.
    batch_seconds
        Size of a batch in seconds of audio, padding included; a longer segment is a batch of its
        own.
    progress
        Called with the seconds of audio decoded since the last call, in the thread that takes the
        results.

    Yields
    ------
    ScoredRecording
        Each recording with its probabilities, in order.
    """
    crew = _Crew(iter(recordings), scorers, batch_seconds)
    threads = [Thread(target=crew.work, name=f"worker {n}") for n in range(n_workers)]
    try:
        for thread in threads:
            thread.start()
        while (job := crew.wait(progress)) is not None:
            yield job.finish(n_labels)
    finally:
        crew.stop()
        # This generator may be garbage-collected in a worker. That may hold the lock which the
        # others need to end, so it cannot wait for them; they end, and files are closed, by and by.
        if current_thread() not in threads:
            for thread in threads:
                if thread.ident is not None:  # else not started: the system limits their number
                    thread.join()
            crew.close()


class _Crew:
    """State that the workers share, under one lock."""

    def __init__(
        self, recordings: Iterator[Recording], scorers: Sequence[Scorer], batch_seconds: float
    ) -> None:
        self._batch_seconds = batch_seconds
        self._changed = Condition()
        self._recordings: Iterator[Recording] | None = recordings
        # The one unused for longest is taken, so that even a few workers use all GPUs.
        self._free = deque(scorers)
        self._idle: list[_Job] = []  # open files that no worker is reading right now
        self._n_open = 0
        self._ready: deque[list[_Item]] = deque()
        self._ready_s = 0.0
        self._jobs: dict[int, _Job] = {}  # recordings that have not been returned yet
        self._n_begun = 0
        self._n_given = 0
        # The last segments of files that were read: in `_tails` until all earlier files were read,
        # then in `_window`.
        self._tails: dict[int, list[_Item]] = {}
        self._tails_s = 0.0
        self._n_joined = 0
        self._is_looking = False  # a worker looks for the next file, which may take time
        self._window = _Window(batch_seconds)
        self._n_in_window = 0
        self._decoded = 0.0
        self._error: BaseException | None = None
        self._is_stopped = False
        # The thread that takes the results: when it and the main thread have ended, nobody does.
        self._taker = current_thread()

    def work(self) -> None:
        """Run due tasks until none is left; the target of each worker thread."""
        try:
            while (task := self._take()) is not None:
                task()
        except BaseException as error:  # raised in `wait`
            with self._changed:
                self._error = self._error or error
                self._is_stopped = True
                self._changed.notify_all()

    def stop(self) -> None:
        """Let no worker begin another task."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def close(self) -> None:
        """Close the files that are still open."""
        for job in self._jobs.values():
            job.steps.close()

    def wait(self, progress: Progress | None) -> _Job | None:
        """Return the next recording once it is done, or None after the last.

        Parameters
        ----------
        progress
            As for `score_recordings`.
        """
        self._taker = current_thread()
        while True:
            with self._changed:
                decoded, self._decoded = self._decoded, 0.0
                job = self._jobs.get(self._n_given)
                if job is not None and not job.is_done:
                    job = None
                if job is not None:
                    del self._jobs[self._n_given]
                    self._n_given += 1
                    self._changed.notify_all()
                elif self._error is not None:
                    raise self._error
                elif not decoded:
                    if self._recordings is None and not self._jobs:
                        return None
                    self._changed.wait(WAKE_S)
                    continue
            if decoded and progress is not None:
                progress(decoded)
            if job is not None:
                return job

    def _take(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._is_stopped and (main_thread().is_alive() or self._taker.is_alive()):
                if self._ready_s < READY_S and (task := self._find_reading()) is not None:
                    return task
                if self._ready and self._free:
                    batch, scorer = self._ready.popleft(), self._free.popleft()
                    self._ready_s -= _seconds(batch)
                    return lambda: self._score(batch, scorer)
                if self._recordings is None and not self._n_open and not self._ready:
                    return None
                self._changed.wait(WAKE_S)
            return None

    def _find_reading(self) -> Callable[[], None] | None:
        """Return a task that reads on in the first open file, or else in the next file."""
        if self._idle:
            job = min(self._idle, key=lambda job: job.number)
            self._idle.remove(job)
            return lambda: self._read(job)
        if (
            self._recordings is None
            or self._is_looking
            or self._n_begun - self._n_given >= MAX_AHEAD
            or self._tails_s >= WAITING_S
        ):
            return None
        self._is_looking = True
        recordings = self._recordings
        return lambda: self._begin(recordings)

    def _begin(self, recordings: Iterator[Recording]) -> None:
        """Read the next file, if there is one."""
        recording = next(recordings, None)
        with self._changed:
            self._is_looking = False
            self._changed.notify_all()
            if recording is None:
                self._recordings = None
                self._join_tails()
                return
            job = _Job(self._n_begun, recording, self._batch_seconds)
            self._jobs[job.number] = job
            self._n_begun += 1
            self._n_open += 1
        self._read(job)

    def _read(self, job: _Job) -> None:
        decoded, waveforms, is_read = 0.0, list[FloatArray](), False
        # Overlapping segments may be much more audio than was decoded.
        n_samples = 0
        while max(decoded, n_samples / SAMPLE_RATE) < STEP_S:
            block: Block | None = next(job.steps, None)
            if block is None:
                is_read = True
                break
            decoded += block.seconds
            waveforms += block.waveforms
            n_samples += sum(map(len, block.waveforms))
        with self._changed:
            self._decoded += decoded
            first = len(job.recording.pieces) - len(waveforms)
            items = [_Item(job, first + n, one) for n, one in enumerate(waveforms)]
            job.n_open += len(items)
            self._put(job.window.add(items))
            if is_read:
                job.is_read = True
                self._n_open -= 1
                self._tails[job.number] = job.window.items
                self._tails_s += _seconds(job.window.items)
                self._join_tails()
            else:
                self._idle.append(job)
            self._changed.notify_all()

    def _join_tails(self) -> None:
        """Put the last segments of files into windows, in the order of the files."""
        while (tail := self._tails.pop(self._n_joined, None)) is not None:
            self._n_joined += 1
            self._tails_s -= _seconds(tail)
            self._n_in_window += 1
            self._put(self._window.add(tail))
            if self._n_in_window >= WINDOW_FILES:
                self._put(self._window.divide())
            if not self._window.items:
                self._n_in_window = 0
        if self._recordings is None and not self._n_open:
            self._put(self._window.divide())

    def _put(self, batches: list[list[_Item]]) -> None:
        self._ready += batches
        self._ready_s += sum(map(_seconds, batches))

    def _score(self, batch: list[_Item], scorer: Scorer) -> None:
        rows = scorer([_own(item.waveform) for item in batch])
        places: dict[_Job, tuple[list[int], list[int]]] = {}
        for index, item in enumerate(batch):
            own = places.setdefault(item.job, ([], []))
            own[0].append(item.place)
            own[1].append(index)
        with self._changed:
            self._free.append(scorer)
            for job, (own_places, indices) in places.items():
                job.rows.append((own_places, rows[indices]))
                job.n_open -= len(own_places)
            self._changed.notify_all()


def _own(waveform: FloatArray) -> FloatArray:
    """Return a waveform that a model may modify: a copy if it shares memory with others."""
    return waveform if waveform.flags.owndata else waveform.copy()


def _seconds(items: Sequence[_Item]) -> float:
    return sum(len(item.waveform) for item in items) / SAMPLE_RATE
