"""A channel on its way to its segments: speech detection, segmenter, and the audio in between."""

import numpy as np
from numpy.typing import NDArray

from sercli.config import SegmentConfig
from sercli.segmentation import Span, create_segmenter
from sercli.vad import SpeechDetector, SpeechFrames


class Track:
    """One channel on its way: speech detection, segmenter, and the audio not yet given away.

    Parameters
    ----------
    name
        Of the channel.
    detector, config
        How its speech is found, and cut.
    """

    def __init__(self, name: str, detector: SpeechDetector, config: SegmentConfig) -> None:
        self.name = name
        self.n_samples = 0
        self._stream = detector.stream()
        self._segmenter = create_segmenter(config)
        self._audio = np.empty(0, np.float32)
        self._first = 0  # sample of the recording that _audio starts with

    def push(self, waveform: NDArray[np.float32]) -> list[tuple[Span, NDArray[np.float32]]]:
        """Take more audio, and return the segments that are final, with theirs."""
        self.n_samples += len(waveform)
        self._audio = np.concatenate((self._audio, waveform))
        return self._take(self._stream.push(waveform))

    def finish(self) -> list[tuple[Span, NDArray[np.float32]]]:
        """Return the segments that are left, with their audio."""
        final = self._take(self._stream.finish())
        return final + self._cut(self._segmenter.finish(self.n_samples))

    def _take(self, frames: SpeechFrames) -> list[tuple[Span, NDArray[np.float32]]]:
        final = self._cut(self._segmenter.push(frames))
        needed = min(self._segmenter.needed_from, self.n_samples)
        self._audio = self._audio[max(needed - self._first, 0) :]
        self._first = max(needed, self._first)
        return final

    def _cut(self, spans: list[Span]) -> list[tuple[Span, NDArray[np.float32]]]:
        first = self._first
        # Copies, or a segment would keep the whole buffer that it was cut from.
        return [(span, self._audio[span.start - first : span.end - first].copy()) for span in spans]
