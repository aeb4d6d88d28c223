"""Decoding of labelled clips: whole files and stretches of recordings, which may be long."""

import hashlib
import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.audio.reading import AudioFile, resample_stream
from sercli.config import LONGEST_SEGMENT_S, SHORTEST_SEGMENT_S
from sercli.datasets.clip import Clip
from sercli.datasets.notes import Notes
from sercli.errors import AudioError
from sercli.text import format_count

# Share of a clip that may be missing at the end of its recording: annotations often end a little
# after the recording does.
MAX_MISSING = 0.1
# Size of a hash of audio: two of a million clips have the same with a probability below 1 in 10**7.
HASH_BYTES = 8
_NO_NOTES = Notes()


class DecodedClip(NamedTuple):
    """The waveform of a clip at 16 kHz, shape (n_samples,), and the hash of its audio.

    The notes are about its recording, as far as that was decoded.
    """

    waveform: FloatArray
    audio_hash: str
    notes: Notes = _NO_NOTES


class ClipError(AudioError):
    """A clip cannot be decoded.

    Parameters
    ----------
    message
        Why not.
    notes
        What is to be known of its recording, as far as that was decoded.
    """

    def __init__(self, message: str, notes: Notes = _NO_NOTES) -> None:
        super().__init__(message)
        self.notes = notes


def order_by_source(clips: Sequence[Clip]) -> list[int]:
    """Return the indices of clips in an order that decodes each channel of a recording only once.

    The clips of a channel of a recording follow each other, sorted by start.

    Parameters
    ----------
    clips
        Clips in any order; recordings are ordered by their first clip.
    """
    first: dict[tuple[Path, int | None], int] = {}
    for place, clip in enumerate(clips):
        first.setdefault((clip.path, clip.channel), place)

    def key(place: int) -> tuple[int, float]:
        clip = clips[place]
        return first[clip.path, clip.channel], clip.start

    return sorted(range(len(clips)), key=key)


def decode_clip(clip: Clip) -> DecodedClip:
    """Return the waveform of a clip at 16 kHz, and the hash of its audio.

    The waveform is that of its channel, or the mean of all. Clips in the order of
    `order_by_source` are decoded in one pass through each recording.

    Parameters
    ----------
    clip
        Clip to decode, a file or a stretch of one.

    Raises
    ------
    ClipError
        If the clip cannot be decoded to its end, is too short to be classified, has no such
        channel, or is digital silence.
    """
    try:
        return _clips.read(clip)
    except ClipError:
        raise
    except AudioError as error:  # it cannot be opened
        raise ClipError(str(error)) from error


class ClipReader:
    """Reader of clips from one channel of a recording, or from the mean of all, in one pass.

    Only audio between the start of the last clip and the furthest end of a clip is in memory.

    Parameters
    ----------
    path
        Path of the recording.
    channel
        Index of the channel, from 0, or None for the mean of all.

    Raises
    ------
    AudioError
        If the recording cannot be opened.
    """

    def __init__(self, path: Path, channel: int | None) -> None:
        self._audio = AudioFile(path)
        self._own = _Window(self._audio.sample_rate)
        self._resampled = _Window(SAMPLE_RATE)
        self._error = ""  # the error that ended decoding early
        self._notes = _NO_NOTES
        self._stream: Iterator[FloatArray] | None = resample_stream(
            self._decode(channel), self._audio.sample_rate, 1
        )

    def __del__(self) -> None:
        # Which clip is the last is unknown: the file is open until its end has been decoded, the
        # next recording is opened or the thread ends.
        if hasattr(self, "_stream"):
            self.close()

    def close(self) -> None:
        """Close the recording, of which no more clips can be read."""
        self._stream = None  # it refers to this reader, which would live until a cycle is collected
        self._audio.close()

    def holds(self, clip: Clip) -> bool:
        """Return whether the reader still has the audio from the start of a clip on."""
        return self._own.start <= clip.start and self._resampled.start <= clip.start

    def read(self, clip: Clip) -> DecodedClip:
        """Decode a clip, as `decode_clip` does.

        Parameters
        ----------
        clip
            Clip of this recording and channel, whose start is still held.

        Raises
        ------
        ClipError
            As for `decode_clip`.
        """
        try:
            waveform, audio_hash = self._read(clip)
        except AudioError as error:
            raise ClipError(str(error), self._notes) from error
        return DecodedClip(waveform, audio_hash, self._notes)

    def _read(self, clip: Clip) -> tuple[FloatArray, str]:
        windows = self._own, self._resampled
        while True:
            for window in windows:
                window.forget(clip.start)
            if self._stream is None or all(one.reaches(clip.end) for one in windows):
                break
            block = next(self._stream, None)
            self._notes = Notes(self._audio.n_samples, self._audio.warnings)
            if block is None:
                self.close()
            else:
                self._resampled.push(block[:, 0])
        waveform, duration = self._resampled.cut(clip), self._resampled.end
        if self._error and (clip.end is None or clip.end > duration):
            raise AudioError(self._error)
        _check_length(clip, len(waveform), duration)
        audio_hash = hash_audio(self._own.cut(clip))
        if not audio_hash:
            raise AudioError(f"{clip.place}: is digital silence; expected speech")
        return waveform, audio_hash

    def _decode(self, channel: int | None) -> Iterator[FloatArray]:
        try:
            for block in _take_channel(self._audio, channel):
                self._own.push(block[:, 0])
                yield block
        except AudioError as error:
            self._error = str(error)


class _Window:
    """Samples of a stream that may still be needed."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._blocks: deque[FloatArray] = deque()
        self._first = 0  # position of the first block in the stream, in samples
        self._n_samples = 0  # length of the stream so far

    @property
    def start(self) -> float:
        """Start of the samples held, in seconds."""
        return self._first / self._rate

    @property
    def end(self) -> float:
        """End of the stream so far, in seconds."""
        return self._n_samples / self._rate

    def push(self, samples: FloatArray) -> None:
        self._blocks.append(samples)
        self._n_samples += len(samples)

    def reaches(self, time: float | None) -> bool:
        """Return whether the stream has reached a time in seconds; False for None, its end."""
        return time is not None and self._n_samples >= round(time * self._rate)

    def cut(self, clip: Clip) -> FloatArray:
        """Return the samples of a clip."""
        start = round(clip.start * self._rate) - self._first
        end = None if clip.end is None else round(clip.end * self._rate) - self._first
        length = 0
        needed: list[FloatArray] = []
        for block in self._blocks:
            if end is not None and length >= end:
                break
            needed.append(block)
            length += len(block)
        return np.concatenate(needed)[start:end] if needed else np.empty(0, np.float32)

    def forget(self, time: float) -> None:
        """Drop the blocks before a time in seconds."""
        first = round(time * self._rate)
        while self._blocks and self._first + len(self._blocks[0]) <= first:
            self._first += len(self._blocks.popleft())


class _Readers(threading.local):
    """The last reader of each thread, since the clips of a long recording follow each other."""

    def __init__(self) -> None:
        self._source: tuple[object, ...] = ()
        self._reader: ClipReader | None = None

    def read(self, clip: Clip) -> DecodedClip:
        source = (clip.path, clip.channel, *_find_version(clip.path))
        reader, self._reader = self._reader, None  # after an interruption, it is not used again
        if reader is None or source != self._source or not reader.holds(clip):
            if reader is not None:
                reader.close()
            reader, self._source = ClipReader(clip.path, clip.channel), source
        try:
            decoded = reader.read(clip)
        except AudioError:
            self._reader = reader
            raise
        self._reader = reader
        return decoded


_clips = _Readers()


def _find_version(path: Path) -> tuple[int, ...]:
    """Return the size and modification time of a recording, which change with its content."""
    try:
        status = os.stat(path)
    except OSError:  # reported when the file is opened
        return ()
    return status.st_size, status.st_mtime_ns


def cut_equally(waveform: FloatArray) -> list[FloatArray]:
    """Split a clip into equal pieces of at most 30 s, over which its results are averaged.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    """
    n_pieces = math.ceil(len(waveform) / (LONGEST_SEGMENT_S * SAMPLE_RATE))
    return np.array_split(waveform, n_pieces)


def hash_audio(waveform: FloatArray) -> str:
    """Return a hash of decoded audio, independent of the name and lossless format of the file.

    Parameters
    ----------
    waveform
        Waveform at the sample rate of the file, in ``[-1, 1]``, shape (n_samples,). It is rounded
        to 16 bits.

    Returns
    -------
    str
        16 hexadecimal digits; empty for digital silence, which does not identify a clip.
    """
    audio = AudioHash()
    audio.push(waveform)
    return audio.finish()


class AudioHash:
    """Hash of audio that is given in pieces; see `hash_audio`."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=HASH_BYTES)
        self._is_silent = True

    def push(self, waveform: FloatArray) -> None:
        """Add the next samples."""
        integers = np.clip(np.rint(waveform * np.float32(32_768)), -32_768, 32_767).astype("<i2")
        self._is_silent = self._is_silent and not integers.any()
        self._hash.update(integers.tobytes())

    def finish(self) -> str:
        """Return the hash; empty for digital silence."""
        return "" if self._is_silent else self._hash.hexdigest()


def _take_channel(audio: AudioFile, channel: int | None) -> Iterator[FloatArray]:
    """Yield blocks of one channel, or of the mean of all, each of shape (n_samples, 1)."""
    if channel is not None and channel >= audio.channels:
        found = format_count(audio.channels, "channel")
        raise AudioError(f"{audio.path}: has {found}; expected a channel {channel}, counted from 0")
    for block in audio.blocks():
        yield block.mean(axis=1, keepdims=True) if channel is None else block[:, [channel]]


def _check_length(clip: Clip, n_samples: int, duration: float) -> None:
    """Raise if a clip is too short, or too much of it is after the end of its recording."""
    if not n_samples:
        raise AudioError(
            f"{clip.path}: holds no samples"
            if not duration
            else f"{clip.path}: ends at {duration:.3f} s; expected a clip from {clip.start:g} s on"
        )
    if n_samples < SHORTEST_SEGMENT_S * SAMPLE_RATE:
        raise AudioError(
            f"{clip.path}: the clip lasts {n_samples / SAMPLE_RATE:.3f} s; "
            f"expected {SHORTEST_SEGMENT_S:g} s or more"
        )
    if clip.end is not None and clip.end - duration > MAX_MISSING * (clip.end - clip.start):
        raise AudioError(
            f"{clip.path}: ends at {duration:.3f} s; expected a clip from {clip.start:g} to "
            f"{clip.end:g} s"
        )
