"""Clips that are heard with another: joined with it, or behind it.

Which ones is drawn for each clip, so that what is drawn cannot follow the order of the recordings:
one with many clips would be decoded from its start again and again. So all are decoded before, in
that order, and lie in a temporary file meanwhile.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np

from sercli.arrays import FloatArray, IntArray
from sercli.audio.reading import SAMPLE_RATE
from sercli.config import LONGEST_SEGMENT_S
from sercli.datasets.base import Clip
from sercli.datasets.extraction import extract_in_order
from sercli.errors import OutputError

# Of a longer clip, so much is heard with others.
MAX_SAMPLES = round(LONGEST_SEGMENT_S * SAMPLE_RATE)


class Company(Sequence[FloatArray]):
    """Waveforms of clips at 16 kHz, up to their first 30 s, read when they are asked for.

    One that is broken fails by itself, and is a second of silence for those that it is heard with.

    Parameters
    ----------
    path
        The file, of float32.
    spans
        First sample of each clip in it, and the one after its last; the same for one that is
        broken, shape (n_clips, 2).
    """

    def __init__(self, path: Path, spans: IntArray) -> None:
        self._path = path
        self._spans = spans

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: Any) -> Any:
        """Return one waveform."""
        start, end = self._spans[index].tolist()
        if start == end:
            return np.zeros(SAMPLE_RATE, np.float32)
        return np.fromfile(self._path, np.float32, end - start, offset=4 * start)


@contextmanager
def gather_company(clips: Sequence[Clip], jobs: int) -> Iterator[Company]:
    """Decode clips for those that they are heard with, on several cores.

    Parameters
    ----------
    clips
        What is decoded, each recording in one pass.
    jobs
        Number of processes; -1 for one per core.

    Yields
    ------
    Company
        In the order of the clips, as long as the block runs.

    Raises
    ------
    OutputError
        If there is no room for them.
    """
    with _telling():
        temporary = TemporaryDirectory(prefix="ser-train-")
    with temporary as folder:
        path = Path(folder) / "company"
        yield Company(path, _write(clips, jobs, path))


def _write(clips: Sequence[Clip], jobs: int, path: Path) -> IntArray:
    """Write the waveforms of clips, and return their spans."""
    spans = np.zeros((len(clips), 2), np.intp)
    end = 0
    with _telling():
        file = path.open("wb")
    try:
        for places, outcomes, _ in extract_in_order(clips, _begin, jobs, limited=True):
            for place, outcome in zip(places, outcomes, strict=True):
                if isinstance(outcome, str):  # which is told when the clip itself is heard
                    continue
                with _telling():
                    file.write(outcome[1].tobytes())
                spans[place] = end, end + len(outcome[1])
                end += len(outcome[1])
    finally:
        with _telling():
            file.close()
    return spans


@contextmanager
def _telling() -> Iterator[None]:
    """Turn a full disk, which closing a file may tell, too, into an error that says so."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{gettempdir()}: decoded audio cannot be written: {error.strerror}; make room there, "
            "or name another folder by TMPDIR"
        ) from error


def _begin(_: Clip, waveform: FloatArray) -> FloatArray:
    return np.ascontiguousarray(waveform[:MAX_SAMPLES], np.float32)
