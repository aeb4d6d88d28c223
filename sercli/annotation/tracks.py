"""Cutting of one channel into segments, while its audio arrives."""

import math
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import NamedTuple, Self

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.config import LONGEST_SEGMENT_S, SHORTEST_SEGMENT_S
from sercli.speech.segmentation import Span, SpeechCutter
from sercli.speech.turn import Turn


class TurnCutter:
    """Cutter at given turns, whether or not they contain speech.

    A turn longer than `LONGEST_SEGMENT_S` is cut into equal parts. A part that the end of the
    channel cuts short is kept unless it is shorter than `SHORTEST_SEGMENT_S`.

    Parameters
    ----------
    turns
        Turns with their numbers, in any order; they may overlap.
    """

    def __init__(self, turns: Iterable[tuple[int, Turn]]) -> None:
        self._parts = {number: _Parts.of(turn) for number, turn in turns}
        # The next part of each turn: its start, the turn's number, the part's index. Parts are not
        # listed in advance, as a turn may have an end long after that of the recording.
        self._waiting = [(parts.edge(0), number, 0) for number, parts in self._parts.items()]
        heapify(self._waiting)
        self._position = 0

    def push(self, waveform: FloatArray) -> list[Span]:
        """Take more audio, and return the spans that became final."""
        self._position += len(waveform)
        return self._take(self._position)

    def finish(self, n_samples: int) -> list[Span]:
        """Take the length of the channel in samples, and return the remaining spans."""
        return self._take(n_samples, is_end=True)

    @property
    def needed_from(self) -> int:
        """First sample that a later span may still contain."""
        return self._waiting[0][0] if self._waiting else self._position

    def _take(self, position: int, *, is_end: bool = False) -> list[Span]:
        final, open_ = [], []
        while self._waiting and self._waiting[0][0] < position:
            start, number, index = heappop(self._waiting)
            end = self._parts[number].edge(index + 1)
            if end > position and not is_end:
                open_.append((start, number, index))
                continue
            length = min(end, position) - start
            if length >= SHORTEST_SEGMENT_S * SAMPLE_RATE:
                final.append(Span(start, start + length, length / SAMPLE_RATE, number))
            if index + 1 < self._parts[number].n_parts:
                heappush(self._waiting, (end, number, index + 1))
        for one in open_:
            heappush(self._waiting, one)
        return final


class Track:
    """One channel, with the audio that is still needed for segments.

    Parameters
    ----------
    cutter
        Cutter of the channel.
    """

    def __init__(self, cutter: SpeechCutter | TurnCutter) -> None:
        self.n_samples = 0
        self._cutter = cutter
        self._audio = np.empty(0, np.float32)
        self._first = 0  # sample of the recording at which _audio starts

    def push(self, waveform: FloatArray) -> list[tuple[Span, FloatArray]]:
        """Take more audio, and return the segments that became final, with their audio."""
        self.n_samples += len(waveform)
        self._audio = np.concatenate((self._audio, waveform))
        final = self._take(self._cutter.push(waveform))
        needed = min(self._cutter.needed_from, self.n_samples)
        self._audio = self._audio[max(needed - self._first, 0) :]
        self._first = max(needed, self._first)
        return final

    def finish(self) -> list[tuple[Span, FloatArray]]:
        """Return the remaining segments, with their audio."""
        return self._take(self._cutter.finish(self.n_samples))

    def _take(self, spans: list[Span]) -> list[tuple[Span, FloatArray]]:
        first = self._first
        cut = [self._audio[span.start - first : span.end - first] for span in spans]
        # A view keeps the whole buffer in memory, which is more than copies take, unless segments
        # overlap: each second may be in hundreds of windows.
        if sum(map(len, cut)) <= len(self._audio):
            cut = [part.copy() for part in cut]
        return list(zip(spans, cut, strict=True))


class _Parts(NamedTuple):
    """Turn divided into equal parts; the recording may end before them."""

    start: int  # in samples
    end: int
    n_parts: int

    @classmethod
    def of(cls, turn: Turn) -> Self:
        start, end = round(turn.start * SAMPLE_RATE), round(turn.end * SAMPLE_RATE)
        return cls(start, end, max(1, math.ceil((end - start) / (LONGEST_SEGMENT_S * SAMPLE_RATE))))

    def edge(self, index: int) -> int:
        """Return the sample at which a part starts, or the last part ends."""
        return self.start + (self.end - self.start) * index // self.n_parts
