"""Stretches of a recording, decoded in one pass, however long the recording is."""

from collections.abc import Iterator, Sequence
from itertools import takewhile

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE, AudioFile, resample_stream
from sercli.datasets.base import Clip
from sercli.errors import AudioError
from sercli.extraction import DecodedClip, check_stretch, hash_audio, take_channel


def decode_stretches(clips: Sequence[Clip]) -> Iterator[tuple[int, DecodedClip | AudioError]]:
    """Give what `sercli.extraction.decode_clip` gives, as soon as it is decoded.

    In memory is no more than what lies between the start and the end of one of them.

    Parameters
    ----------
    clips
        Stretches of one channel, or the mean of all, of one recording, all with an end.

    Yields
    ------
    index : int
        Of a clip.
    outcome : DecodedClip or AudioError
        What was decoded of it, or why it cannot be.

    Raises
    ------
    AudioError
        If the recording cannot be decoded up to the end of the clips that are left.
    """
    if not clips:
        return
    left = sorted(range(len(clips)), key=lambda index: clips[index].start)
    with AudioFile(clips[0].path) as audio:
        own, resampled = _Window(audio.sample_rate), _Window(SAMPLE_RATE)

        def mix() -> Iterator[FloatArray]:
            for block in take_channel(audio, clips[0].channel):
                own.push(block[:, 0])
                yield block

        for block in resample_stream(mix(), audio.sample_rate, 1):
            resampled.push(block[:, 0])
            begun = list(takewhile(lambda index: clips[index].start < own.duration, left))
            for index in begun:
                if own.reaches(clips[index]) and resampled.reaches(clips[index]):
                    left.remove(index)
                    yield index, _cut(clips[index], own, resampled)
            if not left:
                return
            for window in (own, resampled):
                window.forget(clips[left[0]].start)
    for index in left:
        yield index, _cut(clips[index], own, resampled)


class _Window:
    """The samples of a stream that may still be asked for."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._samples = np.empty(0, np.float32)
        self._first = 0  # sample of the stream that _samples starts with

    @property
    def duration(self) -> float:
        """Of the stream so far, in seconds."""
        return (self._first + len(self._samples)) / self._rate

    def push(self, samples: FloatArray) -> None:
        self._samples = np.concatenate((self._samples, samples))

    def reaches(self, clip: Clip) -> bool:
        """Tell whether the stream has come to the end of a clip."""
        assert clip.end is not None
        return self._first + len(self._samples) >= round(clip.end * self._rate)

    def cut(self, clip: Clip) -> FloatArray:
        assert clip.end is not None
        start, end = (round(time * self._rate) - self._first for time in (clip.start, clip.end))
        return self._samples[start:end].copy()

    def forget(self, time: float) -> None:
        """Let go of what is before a time in seconds."""
        n_samples = min(max(round(time * self._rate) - self._first, 0), len(self._samples))
        self._samples = self._samples[n_samples:]
        self._first += n_samples


def _cut(clip: Clip, own: _Window, resampled: _Window) -> DecodedClip | AudioError:
    waveform = resampled.cut(clip)
    try:
        check_stretch(clip, len(waveform), resampled.duration)
    except AudioError as error:
        return error
    return DecodedClip(waveform, hash_audio(own.cut(clip)))
