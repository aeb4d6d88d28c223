"""Decoded clips that augmentation combines with others: joined with a clip, or talking behind it.

Which ones these are is drawn for each clip, so they do not follow the order of the recordings, and
a recording with many clips would be decoded from its start again and again. All clips are therefore
decoded once, in that order, into a temporary file.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio.reading import SAMPLE_RATE
from sercli.config import LONGEST_SEGMENT_S
from sercli.datasets.clip import Clip
from sercli.datasets.extraction import extract_in_order
from sercli.errors import OutputError
from sercli.training.versions import find_utterance

# Samples of a clip that others are combined with; the rest of longer clips is left out.
MAX_SAMPLES = round(LONGEST_SEGMENT_S * SAMPLE_RATE)


class Company(Sequence[FloatArray]):
    """Waveforms of clips at 16 kHz, read from a file on access.

    Of a clip longer than 30 s, these are the 30 s from the start of its speech.

    A clip that cannot be decoded is a second of silence here.

    Parameters
    ----------
    path
        Path of the file: float32 samples of all clips, then, for each clip, the first of its
        samples and the one after its last as int64; both are the same for a clip that could not be
        decoded. All of it is in the file, so that little is sent to worker processes.
    n_clips, n_samples
        Number of clips, and of samples of all of them.
    """

    def __init__(self, path: Path, n_clips: int, n_samples: int) -> None:
        self._path = path
        self._n_clips = n_clips
        self._n_samples = n_samples

    def __len__(self) -> int:
        return self._n_clips

    def __getitem__(self, index: Any) -> Any:
        """Return the waveform of a clip, shape (n_samples,)."""
        place = 4 * self._n_samples + 16 * range(self._n_clips)[index]
        start, end = np.fromfile(self._path, np.int64, 2, offset=place).tolist()
        if start == end:
            return np.zeros(SAMPLE_RATE, np.float32)
        return np.fromfile(self._path, np.float32, end - start, offset=4 * start)


@contextmanager
def gather_company(clips: Sequence[Clip], jobs: int) -> Iterator[Company]:
    """Decode clips into a temporary file, on several cores.

    Parameters
    ----------
    clips
        Clips to decode; each recording is decoded in one pass.
    jobs
        Number of processes; -1 for one per core.

    Yields
    ------
    Company
        The waveforms in the order of the clips; the file is removed at the end of the block.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    with _telling():
        temporary = TemporaryDirectory(prefix="ser-train-")
    with temporary as folder:
        path = Path(folder) / "company"
        yield Company(path, len(clips), _write(clips, jobs, path))


def _write(clips: Sequence[Clip], jobs: int, path: Path) -> int:
    """Write the file of a `Company` and return the number of samples."""
    spans = np.zeros((len(clips), 2), np.int64)
    end = 0
    with _telling():
        file = path.open("wb")
    results = extract_in_order(clips, _begin, jobs, limited=True)
    try:
        for places, outcomes, _ in results:
            for place, outcome in zip(places, outcomes, strict=True):
                if isinstance(outcome, str):  # reported when its own features are extracted
                    continue
                with _telling():
                    file.write(outcome[1].tobytes())
                spans[place] = end, end + len(outcome[1])
                end += len(outcome[1])
        with _telling():
            file.write(spans.tobytes())
    finally:
        with warnings.catch_warnings():  # of joblib, about tasks that nobody needs after an error
            warnings.filterwarnings("ignore", ".*have been cancelled")
            results.close()
        with _telling():
            file.close()
    return end


@contextmanager
def _telling() -> Iterator[None]:
    """Raise errors of the file system, such as a full disk, as an error with advice."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{gettempdir()}: decoded audio cannot be written: {error.strerror}; free some space "
            "there, or set TMPDIR to another folder"
        ) from error


def _begin(_: Clip, waveform: FloatArray) -> FloatArray:
    # A long clip may begin with silence, which must not be what others are combined with.
    start = find_utterance(waveform).start if len(waveform) > MAX_SAMPLES else 0
    return np.ascontiguousarray(waveform[start : start + MAX_SAMPLES], np.float32)
