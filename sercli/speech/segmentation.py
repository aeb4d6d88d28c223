"""Segmentation of a recording into the spans that get a label, from speech probabilities.

Segmenters process a stream of frames, return each span as soon as later frames cannot change it,
and hold no more than one long segment: memory does not depend on the length of a recording. The
spans do not depend on how the frames are split over calls.

The speech regions are those of Silero VAD's own ``get_speech_timestamps``: a region starts with a
frame at the threshold and ends where the probability falls 0.15 below it for `max_gap`; regions of
0.25 s and less are dropped as clicks; 30 ms are added on each side.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.config import LONGEST_SEGMENT_S, SHORTEST_SEGMENT_S, SegmentConfig
from sercli.speech.vad import FRAME_LENGTH, FRAME_S, SpeechFrames, SpeechStream

# Defaults of Silero VAD.
HYSTERESIS = 0.15
MIN_SPEECH_S = 0.25
PADDING_S = 0.03

# Speech is cut in its quietest 0.1 s; in less, the minimum might lie between two pitch periods.
QUIET_FRAMES = 3


class Span(NamedTuple):
    """A half-open interval of one channel, in samples at 16 kHz.

    Parameters
    ----------
    start, end
        Samples from the start of the recording.
    speech
        Duration of the speech in it, in seconds.
    turn
        Number of the given turn that it belongs to; see `sercli.annotation.tracks.TurnCutter`.
    """

    start: int
    end: int
    speech: float
    turn: int = 0


class Segmenter(ABC):
    """Base class of segmenters, which take the frames of a channel and return spans, in order."""

    @abstractmethod
    def push(self, frames: SpeechFrames) -> list[Span]:
        """Process the next frames and return the spans that are final now."""

    @abstractmethod
    def finish(self, n_samples: int) -> list[Span]:
        """Return the remaining spans of a recording of `n_samples` samples."""

    @property
    @abstractmethod
    def needed_from(self) -> int:
        """First sample that a later span may still contain."""


def create_segmenter(config: SegmentConfig) -> Segmenter:
    """Return the segmenter for the mode of a configuration.

    Parameters
    ----------
    config
        Mode and settings of the segmentation. For the mode ``"file"``, the spans are the pieces of
        a file that are classified one by one.
    """
    if config.mode == "speech":
        return SpeechSegmenter(config)
    if config.mode == "window":
        return WindowSegmenter(config)
    return FileSegmenter(config)


def find_speech(pieces: Iterable[FloatArray], config: SegmentConfig | None = None) -> list[Span]:
    """Return the spans of a recording.

    Parameters
    ----------
    pieces
        Consecutive pieces of its waveform at 16 kHz, each of shape (n_samples,).
    config
        Settings of the segmentation; speech segments by default.
    """
    cutter = SpeechCutter(config or SegmentConfig())
    spans: list[Span] = []
    n_samples = 0
    for piece in pieces:
        n_samples += len(piece)
        spans += cutter.push(piece)
    return spans + cutter.finish(n_samples)


class SpeechCutter:
    """Detects speech in a channel, whose audio it takes as it arrives, and cuts it by a segmenter.

    Parameters
    ----------
    config
        Settings of the segmenter.
    """

    def __init__(self, config: SegmentConfig) -> None:
        self._stream = SpeechStream()
        self._segmenter = create_segmenter(config)

    def push(self, waveform: FloatArray) -> list[Span]:
        """Take more audio, and return the spans that became final."""
        return self._segmenter.push(self._stream.push(waveform))

    def finish(self, n_samples: int) -> list[Span]:
        """Take the length of the channel in samples, and return the remaining spans."""
        final = self._segmenter.push(self._stream.finish())
        return final + self._segmenter.finish(n_samples)

    @property
    def needed_from(self) -> int:
        """First sample that a later span may still contain."""
        return self._segmenter.needed_from


class SpeechSegmenter(Segmenter):
    """Segmenter into speech regions: pauses are bridged, short regions joined, long ones cut.

    Parameters
    ----------
    config
        Thresholds and lengths.
    """

    def __init__(self, config: SegmentConfig) -> None:
        self._threshold = config.vad_threshold
        self._low_threshold = max(config.vad_threshold - HYSTERESIS, 0.01)
        self._max = _samples(config.max_segment)
        self._min = _samples(config.min_segment)
        self._max_gap = _samples(config.max_gap)
        self._min_speech = _samples(MIN_SPEECH_S)
        self._padding = _samples(PADDING_S)
        self._position = 0  # samples processed so far
        self._first_frame = 0  # index of the frame whose energy is _energies[0]
        self._energies: deque[float] = deque()
        self._region: int | None = None  # start of the speech of the open region
        self._piece = 0  # start of the open region's next span, padded or at a cut
        self._silence: int | None = None  # end of the open region, unless speech resumes
        self._held: Span | None = None  # a span that may still be joined with the next one

    def push(self, frames: SpeechFrames) -> list[Span]:
        """Process the next frames and return the spans that are final now."""
        spans: list[Span] = []
        for probability, energy in zip(
            frames.probabilities.tolist(), frames.energies.tolist(), strict=True
        ):
            start, self._position = self._position, self._position + FRAME_LENGTH
            self._energies.append(energy)
            if probability >= self._threshold:
                self._silence = None
                if self._region is None:
                    self._region = start
                    self._piece = max(start - self._padding, 0)
            elif probability < self._low_threshold and self._region is not None:
                if self._silence is None:
                    self._silence = start
                if start - self._silence >= self._max_gap:
                    spans += self._close(self._silence, self._silence + self._padding)
            if self._region is None:
                spans += self._release(self._position - self._padding)
            else:
                spans += self._cut_open_region()
        self._forget()
        return spans

    def finish(self, n_samples: int) -> list[Span]:
        """Return the remaining spans of a recording of `n_samples` samples."""
        spans = [] if self._region is None else self._close(n_samples, n_samples)
        if self._held is not None:
            spans.append(self._held)
            self._held = None
        return spans

    @property
    def needed_from(self) -> int:
        """First sample that a later span may still contain."""
        if self._held is not None:
            return self._held.start
        if self._region is not None:
            return self._piece
        return max(self._position - self._padding, 0)

    def _close(self, speech_end: int, end: int) -> list[Span]:
        """Close the open region; `end` is `speech_end` with padding."""
        assert self._region is not None
        spans: list[Span] = []
        if speech_end - self._region > self._min_speech:
            while end - self._piece > self._max:
                spans += self._cut(min(self._piece + self._max, end - self._min))
            spans += self._add(self._piece, end)
        self._region = self._silence = None
        return spans

    def _cut_open_region(self) -> list[Span]:
        """Cut an open region that will be too long wherever it ends, so as not to hold it."""
        certain = self._position if self._silence is None else self._silence
        if certain - self._piece < self._max + self._min:
            return []
        return self._cut(self._piece + self._max)

    def _cut(self, latest: int) -> list[Span]:
        """End a span at the quietest point between half of the maximum length and `latest`."""
        earliest = self._piece + self._max // 2
        first = earliest // FRAME_LENGTH
        last = max(latest // FRAME_LENGTH - 1, first)
        margin = QUIET_FRAMES // 2
        energies = [
            self._energies[frame - self._first_frame]
            for frame in range(first - margin, last + margin + 1)
        ]
        loudness = np.convolve(energies, np.ones(QUIET_FRAMES), mode="valid")
        centre = (first + int(np.argmin(loudness))) * FRAME_LENGTH + FRAME_LENGTH // 2
        cut = min(max(centre, earliest), latest)
        spans = self._add(self._piece, cut)
        self._piece = cut
        return spans

    def _add(self, start: int, end: int) -> list[Span]:
        """Hold a new span, joined with the held one if either is short and they are close."""
        span = Span(start, end, (end - start) / SAMPLE_RATE)
        held, self._held = self._held, span
        if held is None:
            return []
        short = min(held.end - held.start, end - start) < self._min
        if short and start - held.end < self._min and end - held.start <= self._max:
            self._held = Span(held.start, end, held.speech + span.speech)
            return []
        return [held]

    def _release(self, position: int) -> list[Span]:
        """Return the held span if no region can start close enough to join it any more."""
        if self._held is None or position - self._held.end < self._min:
            return []
        span, self._held = self._held, None
        return [span]

    def _forget(self) -> None:
        needed = self._position if self._region is None else self._piece
        while self._energies and (self._first_frame + 1) * FRAME_LENGTH <= needed:
            self._energies.popleft()
            self._first_frame += 1


class WindowSegmenter(Segmenter):
    """Segmenter into windows of fixed length; windows without speech are left out.

    A window needs at least 0.25 s of speech, or half of its length if that is less. The rest at
    the end is a window of its own if it is at least `min_segment` long, complete, or all there is.

    Parameters
    ----------
    config
        Speech threshold, lengths of a window and of its hop, and shortest window at the end.
    """

    def __init__(self, config: SegmentConfig) -> None:
        self._threshold = config.vad_threshold
        self._min = _samples(config.min_segment)
        self._window = _samples(config.window)
        self._hop = max(1, _samples(config.hop or config.window))
        self._start = 0
        self._position = 0
        self._first_frame = 0
        self._is_speech: deque[bool] = deque()

    def push(self, frames: SpeechFrames) -> list[Span]:
        """Process the next frames and return the windows that are complete now."""
        self._is_speech.extend((frames.probabilities >= self._threshold).tolist())
        self._position += FRAME_LENGTH * len(frames.probabilities)
        spans = []
        # The last frame may be padded beyond the end of the recording: it is left to `finish`.
        while self._start + self._window <= self._position - FRAME_LENGTH:
            spans += self._span(self._start + self._window)
            self._start += self._hop
            self._forget()
        return spans

    def finish(self, n_samples: int) -> list[Span]:
        """Return the remaining windows of a recording of `n_samples` samples."""
        spans = []
        while self._start < n_samples:
            covered = self._start - self._hop + self._window if self._start else 0
            left = n_samples - self._start
            is_whole = left >= min(self._min, self._window)
            if covered < n_samples and (is_whole or not self._start):
                spans += self._span(min(self._start + self._window, n_samples))
            self._start += self._hop
        return spans

    @property
    def needed_from(self) -> int:
        """First sample that a later window may still contain."""
        return self._start

    def _span(self, end: int) -> list[Span]:
        first = self._start // FRAME_LENGTH
        last = -(-end // FRAME_LENGTH)
        n_speech = sum(
            self._is_speech[frame - self._first_frame]
            for frame in range(first, min(last, self._first_frame + len(self._is_speech)))
        )
        # Frames may extend beyond the edges of the window.
        length = (end - self._start) / SAMPLE_RATE
        speech = min(n_speech * FRAME_S, length)
        enough = min(MIN_SPEECH_S, length / 2)
        if speech < enough or length < SHORTEST_SEGMENT_S:
            return []
        return [Span(self._start, end, speech)]

    def _forget(self) -> None:
        while self._is_speech and (self._first_frame + 1) * FRAME_LENGTH <= self._start:
            self._is_speech.popleft()
            self._first_frame += 1


class FileSegmenter(Segmenter):
    """Segmenter of a whole file into pieces of the longest length that can be classified at once.

    Speech is segmented with the default lengths; pieces without any are left out.

    Parameters
    ----------
    config
        Settings, of which only the speech threshold is used.
    """

    def __init__(self, config: SegmentConfig) -> None:
        self._segmenter = SpeechSegmenter(SegmentConfig(vad_threshold=config.vad_threshold))
        self._piece = _samples(LONGEST_SEGMENT_S)
        self._start = 0
        self._speech: list[Span] = []  # speech that ends after the start of the next piece

    def push(self, frames: SpeechFrames) -> list[Span]:
        """Process the next frames and return the pieces whose speech is known now."""
        self._speech += self._segmenter.push(frames)
        spans = []
        while self._start + self._piece <= self._segmenter.needed_from:
            spans += self._cut(self._start + self._piece)
        return spans

    def finish(self, n_samples: int) -> list[Span]:
        """Return the remaining pieces of a recording of `n_samples` samples."""
        self._speech += self._segmenter.finish(n_samples)
        spans = []
        while self._start < n_samples:
            spans += self._cut(min(self._start + self._piece, n_samples))
        return spans

    @property
    def needed_from(self) -> int:
        """First sample that a later piece may still contain."""
        return self._start

    def _cut(self, end: int) -> list[Span]:
        """End the current piece and return it if it contains speech."""
        start, self._start = self._start, end
        inside = sum(max(min(span.end, end) - max(span.start, start), 0) for span in self._speech)
        self._speech = [span for span in self._speech if span.end > end]
        if not inside or end - start < _samples(SHORTEST_SEGMENT_S):
            return []
        return [Span(start, end, inside / SAMPLE_RATE)]


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE)
