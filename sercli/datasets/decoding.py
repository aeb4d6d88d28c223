"""Decoding labelled clips: whole files, and stretches of recordings that may be long."""

import hashlib
import math
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio.reading import SAMPLE_RATE, AudioFile, resample_stream
from sercli.config import LONGEST_SEGMENT_S, SHORTEST_SEGMENT_S
from sercli.datasets.base import Clip
from sercli.errors import AudioError
from sercli.text import format_count

# Where a recording ends before a clip of it, this share of the clip may be missing: what people
# annotate is often a little longer than what was recorded.
MAX_MISSING = 0.1
# Of a hash of audio: for a million clips, two would share one with a probability of 1 in 10**7.
HASH_BYTES = 8


class DecodedClip(NamedTuple):
    """A clip's waveform at 16 kHz, shape (n_samples,), and the hash of its decoded audio."""

    waveform: FloatArray
    audio_hash: str


def order_by_source(clips: Sequence[Clip]) -> list[int]:
    """Return the places of clips in an order in which no recording is decoded twice.

    Those of one channel of a recording follow each other, by their start.

    Parameters
    ----------
    clips
        In any order, in which the recordings are met.
    """
    first: dict[tuple[Path, int | None], int] = {}
    for place, clip in enumerate(clips):
        first.setdefault((clip.path, clip.channel), place)

    def key(place: int) -> tuple[int, float]:
        clip = clips[place]
        return first[clip.path, clip.channel], clip.start

    return sorted(range(len(clips)), key=key)


def load_clip(clip: Clip) -> FloatArray:
    """Return the waveform of a clip at 16 kHz: of its channel, or the mean of all.

    Parameters
    ----------
    clip
        A file, or a stretch of one.

    Returns
    -------
    ndarray of float32, shape (n_samples,)

    Raises
    ------
    AudioError
        If it cannot be decoded to its end, is too short to be judged, has no such channel, or is
        digital silence.
    """
    return decode_clip(clip).waveform


def decode_clip(clip: Clip) -> DecodedClip:
    """Return the waveform of a clip, as `load_clip` does, and the hash of its audio.

    Clips that come in the order of `order_by_source` are decoded in one pass of each recording.

    Parameters
    ----------
    clip
        A file, or a stretch of one.

    Raises
    ------
    AudioError
        As for `load_clip`.
    """
    return _clips.read(clip)


class ClipReader:
    """One channel of a recording, or the mean of all, from which clips are read in one pass.

    In memory is no more than from the start of the last clip to the end of the furthest.

    Parameters
    ----------
    path
        The recording.
    channel
        Index from 0, or None.

    Raises
    ------
    AudioError
        If it cannot be opened.
    """

    def __init__(self, path: Path, channel: int | None) -> None:
        self._audio = AudioFile(path)
        self._own = _Window(self._audio.sample_rate)
        self._resampled = _Window(SAMPLE_RATE)
        self._error = ""  # why it ends before its end
        self._stream: Iterator[FloatArray] | None = resample_stream(
            self._decode(channel), self._audio.sample_rate, 1
        )

    def __del__(self) -> None:
        # Nobody knows which clip is the last: until the next recording is opened, or this ends.
        if hasattr(self, "_audio"):
            self._audio.close()

    def holds(self, clip: Clip) -> bool:
        """Return whether what comes before a clip, but not its start, was let go."""
        return self._own.start <= clip.start and self._resampled.start <= clip.start

    def read(self, clip: Clip) -> DecodedClip:
        """Return what `decode_clip` returns.

        Parameters
        ----------
        clip
            Of this recording and channel, one that it still holds.

        Raises
        ------
        AudioError
            As for `load_clip`.
        """
        windows = self._own, self._resampled
        while True:
            for window in windows:
                window.forget(clip.start)
            if self._stream is None or all(one.reaches(clip.end) for one in windows):
                break
            block = next(self._stream, None)
            if block is None:
                self._stream = None
                self._audio.close()
            else:
                self._resampled.push(block[:, 0])
        waveform, duration = self._resampled.cut(clip), self._resampled.end
        if self._error and (clip.end is None or clip.end > duration):
            raise AudioError(self._error)
        _check_length(clip, len(waveform), duration)
        audio_hash = hash_audio(self._own.cut(clip))
        if not audio_hash:
            raise AudioError(f"{clip.place}: is digital silence; expected speech")
        return DecodedClip(waveform, audio_hash)

    def _decode(self, channel: int | None) -> Iterator[FloatArray]:
        try:
            for block in _take_channel(self._audio, channel):
                self._own.push(block[:, 0])
                yield block
        except AudioError as error:
            self._error = str(error)


class _Window:
    """The samples of a stream that may still be asked for."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._blocks: deque[FloatArray] = deque()
        self._first = 0  # sample of the stream that the first block starts with
        self._n_samples = 0  # of the stream so far

    @property
    def start(self) -> float:
        """Of what is there, in seconds."""
        return self._first / self._rate

    @property
    def end(self) -> float:
        """Of the stream so far, in seconds."""
        return self._n_samples / self._rate

    def push(self, samples: FloatArray) -> None:
        self._blocks.append(samples)
        self._n_samples += len(samples)

    def reaches(self, time: float | None) -> bool:
        """Return whether the stream has come to a time in seconds; never to its own end."""
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
        """Let go of the blocks before a time in seconds."""
        first = round(time * self._rate)
        while self._blocks and self._first + len(self._blocks[0]) <= first:
            self._first += len(self._blocks.popleft())


class _Readers(threading.local):
    """What a thread read last: the clips of a long recording come one after the other."""

    def __init__(self) -> None:
        self._source: tuple[object, ...] = ()
        self._reader: ClipReader | None = None

    def read(self, clip: Clip) -> DecodedClip:
        source = (clip.path, clip.channel, *_find_version(clip.path))
        reader, self._reader = self._reader, None  # one that is interrupted is not asked again
        if reader is None or source != self._source or not reader.holds(clip):
            reader = None  # is closed before the next is opened
            reader, self._source = ClipReader(clip.path, clip.channel), source
        try:
            decoded = reader.read(clip)
        except AudioError:
            self._reader = reader
            raise
        self._reader = reader
        return decoded


_clips = _Readers()
# Another: who speaks in the background of a clip is heard before the next clip is.
_others = _Readers()


def _find_version(path: Path) -> tuple[int, ...]:
    """Return what tells a recording from what it was in an earlier run."""
    try:
        status = os.stat(path)
    except OSError:  # which is told when it is opened
        return ()
    return status.st_size, status.st_mtime_ns


class Waveforms(Sequence[FloatArray]):
    """Waveforms of clips, decoded when they are asked for; a second of silence where that fails.

    A clip that is broken fails by itself, not those that borrow it as background.

    Parameters
    ----------
    clips
        What is decoded.
    """

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: Any) -> Any:
        """Return one waveform."""
        try:
            return _others.read(self._clips[index]).waveform
        except AudioError:
            return np.zeros(SAMPLE_RATE, np.float32)


def cut_equally(waveform: FloatArray) -> list[FloatArray]:
    """Return a clip in equal pieces, of 30 s at most: what is said of it is their mean.

    Parameters
    ----------
    waveform
        At 16 kHz, shape (n_samples,).
    """
    n_pieces = math.ceil(len(waveform) / (LONGEST_SEGMENT_S * SAMPLE_RATE))
    return np.array_split(waveform, n_pieces)


def hash_audio(waveform: FloatArray) -> str:
    """Return a hash of decoded audio, which does not depend on the file's name or lossless format.

    Parameters
    ----------
    waveform
        At the file's own rate, in ``[-1, 1]``; rounded to 16 bits, shape (n_samples,).

    Returns
    -------
    str
        16 hexadecimal digits; empty for digital silence, of which any is like any other.
    """
    audio = AudioHash()
    audio.push(waveform)
    return audio.finish()


class AudioHash:
    """The hash of audio that comes in pieces; see `hash_audio`."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=HASH_BYTES)
        self._is_silent = True

    def push(self, waveform: FloatArray) -> None:
        """Take the next samples."""
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
        raise AudioError(
            f"{audio.path}: has {found}; expected channel {channel}, counted from 0, as well"
        )
    for block in audio.blocks():
        yield block.mean(axis=1, keepdims=True) if channel is None else block[:, [channel]]


def _check_length(clip: Clip, n_samples: int, duration: float) -> None:
    """Refuse a clip of which its recording, of a duration in seconds, has too little."""
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
