"""A channel on its way to its segments, and the batches in which a model judges them."""

import numpy as np
from numpy.typing import NDArray

from sercli.audio import SAMPLE_RATE
from sercli.classifiers.base import Classifier
from sercli.config import SegmentConfig, Target
from sercli.segmentation import Span, create_segmenter
from sercli.vad import SpeechDetector, SpeechFrames

# Segments are judged together from this much audio on.
BATCH_S = 120.0


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
        return [(span, self._audio[span.start - first : span.end - first]) for span in spans]


class Batch:
    """Segments that wait to be judged together by the model, and what it made of the others.

    Parameters
    ----------
    classifier, target
        The model, and what it is to tell.
    """

    def __init__(self, classifier: Classifier, target: Target) -> None:
        self._classifier, self._target = classifier, target
        self._waiting: list[NDArray[np.float32]] = []
        self._duration = 0.0
        self._spans: list[tuple[int, Span]] = []
        self._judged: list[NDArray[np.float64]] = []

    def add(self, channel: int, pieces: list[tuple[Span, NDArray[np.float32]]]) -> None:
        """Take segments of a channel, with their audio."""
        for span, waveform in pieces:
            self._spans.append((channel, span))
            # A copy, or the segment would keep the whole buffer that it was cut from.
            self._waiting.append(waveform.copy())
            self._duration += len(waveform) / SAMPLE_RATE
        if self._duration >= BATCH_S:
            self._judge()

    def finish(self) -> tuple[list[tuple[int, Span]], NDArray[np.float64]]:
        """Return the channels and spans of all segments, and their probabilities."""
        self._judge()
        return self._spans, np.concatenate(self._judged)

    def _judge(self) -> None:
        self._judged.append(self._classifier.predict_proba(self._waiting, self._target))
        self._waiting = []
        self._duration = 0.0
