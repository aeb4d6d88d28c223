"""Reading of recordings of any format as a stream of blocks, and resampling of that stream."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, Self

import numpy as np
import soxr

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.audio.containers import is_followed, measure_rest
from sercli.audio.decoder import DecodeError
from sercli.audio.decoders import open_decoder
from sercli.errors import AudioError

# Full scale is 1; values of a floating-point file from here on are no sound.
MAX_MAGNITUDE = 1e6
# A file with larger values than this has another full scale, possibly that of integers.
STRANGE_MAGNITUDE = 16.0
MIN_SAMPLE_RATE = 1_000
MAX_SAMPLE_RATE = 768_000


class AudioFile:
    """An open recording, read block by block; a context manager.

    Parameters
    ----------
    path
        Path of an audio file, or of a video file, of which the first audio stream is read.
    file
        Open unbuffered file to read instead; it is closed with this one, and the path only names
        it.

    Attributes
    ----------
    path
        Path as given.
    sample_rate
        Sample rate of the file in Hz.
    channels
        Number of channels.
    n_samples
        Number of samples per channel read so far.
    warnings
        Sentences on defects that were repaired and on parts that are not decoded.

    Raises
    ------
    AudioError
        If there is no such file, it is empty, or no decoder can read it.
    """

    def __init__(self, path: str | os.PathLike[str], file: BinaryIO | None = None) -> None:
        self.path = os.fspath(path)
        with ExitStack() as opened:
            self._file = opened.enter_context(file or _open_regular(self.path))
            with _naming(self.path):
                if not os.fstat(self._file.fileno()).st_size:
                    raise DecodeError("is empty (0 bytes); expected an audio or video file")
                self._decoder = open_decoder(self._file)
                opened.callback(self._decoder.close)
                if not MIN_SAMPLE_RATE <= self._decoder.sample_rate <= MAX_SAMPLE_RATE:
                    raise DecodeError(
                        f"sample rate is {self._decoder.sample_rate:,} Hz; expected "
                        f"{MIN_SAMPLE_RATE:,} to {MAX_SAMPLE_RATE:,} Hz"
                    )
            self._opened = opened.pop_all()
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        self.n_samples = 0
        self._n_invalid = 0
        self._peak = 0.0
        self._is_followed = False
        self._rest = 0.0  # what follows the end that the header tells, relative to what was read

    def blocks(self) -> Iterator[FloatArray]:
        """Yield the samples from the start to the end, once.

        Yields
        ------
        ndarray of float32, shape (n_samples, channels)
            Samples in ``[-1, 1]`` for integer formats, as stored for floating-point ones. Those
            that are NaN, infinite or beyond a million are replaced by 0 and counted in `warnings`.

        Raises
        ------
        AudioError
            After the last block that could be decoded, if the file is truncated or damaged, or if
            no sample was valid.
        """
        blocks = self._decoder.blocks()
        while True:
            with _naming(self.path):
                block = next(blocks, None)
            if block is None:
                break
            magnitude = np.abs(block)
            valid = magnitude < MAX_MAGNITUDE  # false for NaN, too
            if not valid.all():
                self._n_invalid += int(block.size - np.count_nonzero(valid))
                block = np.where(valid, block, np.float32(0))
                magnitude = np.abs(block)
            self._peak = max(self._peak, float(magnitude.max(initial=0)))
            self.n_samples += len(block)
            yield block
        with _naming(self.path):
            stopped = self._file.tell()
            self._is_followed = is_followed(self._file)
            self._file.seek(stopped)
            self._rest = measure_rest(self._file)
        if self._n_invalid and self._n_invalid == self.n_samples * self.channels:
            raise AudioError(
                f"{self.path}: all {self._n_invalid:,} samples are NaN, infinite or huge"
            )

    @property
    def duration(self) -> float:
        """Duration read so far, in seconds."""
        return self.n_samples / self.sample_rate

    def seconds_at(self, sample: int) -> float:
        """Return the time of a sample at `SAMPLE_RATE` in seconds, at most `duration`.

        It is rounded to the nearest sample of the file itself.
        """
        own = min(round(sample * self.sample_rate / SAMPLE_RATE), self.n_samples)
        return own / self.sample_rate

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences on defects repaired so far and on parts that are not decoded."""
        notes = [*self._decoder.warnings]
        if self._is_followed:
            notes.append(
                f"another recording is appended in the file; reading ends at {self.duration:.3f} s"
            )
        elif self._rest:
            notes.append(
                f"reading ends at {self.duration:.3f} s, where its header tells the end, but about "
                f"{self._rest * self.duration:.1f} s may follow; if they are sound, mend the header"
            )
        if self._n_invalid:
            notes.append(
                f"{self._n_invalid:,} samples are NaN, infinite or huge, and were set to silence"
            )
        if self._peak > STRANGE_MAGNITUDE:
            notes.append(f"samples reach {self._peak:,.0f}; expected a full scale of 1")
        return tuple(notes)

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def resample_stream(
    blocks: Iterator[FloatArray], sample_rate: int, channels: int
) -> Iterator[FloatArray]:
    """Resample a stream of blocks to `SAMPLE_RATE`.

    The resampler keeps its phase from block to block and its output is aligned with its input:
    sample ``i`` is at ``i / SAMPLE_RATE`` seconds, however long the stream.

    Parameters
    ----------
    blocks
        Arrays of shape (n_samples, channels).
    sample_rate
        Rate of the blocks in Hz.
    channels
        Number of channels of every block.

    Yields
    ------
    ndarray of float32, shape (n_samples, channels)

    Raises
    ------
    AudioError
        If reading the blocks raises it; the samples before are yielded first.
    """
    if sample_rate == SAMPLE_RATE:
        yield from blocks
        return
    resampler = soxr.ResampleStream(sample_rate, SAMPLE_RATE, channels, dtype="float32")
    defect = None
    try:
        for block in blocks:
            yield resampler.resample_chunk(block).reshape(-1, channels)
    except AudioError as error:
        defect = error
    # The samples that the filter still holds were decoded, even if the file breaks off after them.
    tail = resampler.resample_chunk(np.empty((0, channels), np.float32), last=True)
    yield tail.reshape(-1, channels)
    if defect is not None:
        raise defect


def load_audio(path: str | os.PathLike[str]) -> FloatArray:
    """Read a whole recording at 16 kHz, as the mean of its channels.

    Parameters
    ----------
    path
        Path of a recording short enough to be held in memory.

    Returns
    -------
    ndarray of float32, shape (n_samples,)

    Raises
    ------
    AudioError
        If it cannot be decoded to its end.
    """
    with AudioFile(path) as audio:
        mono = (block.mean(axis=1, keepdims=True) for block in audio.blocks())
        parts = list(resample_stream(mono, audio.sample_rate, 1))
    return np.concatenate(parts)[:, 0] if parts else np.empty(0, np.float32)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Turn errors of reading a file into an AudioError with its path."""
    try:
        yield
    except DecodeError as error:
        raise AudioError(f"{path}: {error}") from error
    except OSError as error:  # a disk or a network that fails halfway
        raise AudioError(f"{path}: cannot be read: {error.strerror or error}") from error


def _open_regular(path: str) -> BinaryIO:
    try:
        # Checked first, as opening a pipe would wait for a writer.
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise AudioError(f"{path}: is {kind}; expected an audio or video file")
        return open(path, "rb", buffering=0)
    except FileNotFoundError as error:
        raise AudioError(f"{path}: does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{path}: cannot be opened: {reason}") from error
