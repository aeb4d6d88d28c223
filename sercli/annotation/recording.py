"""Recording: decodes a file block by block, and cuts its channels into segments.

A file is decoded once and resampled once. Each selected channel passes through speech detection and
a segmenter, or is cut at given turns; segments are handed over as soon as they are final. Memory
holds a few blocks and the open segment of each channel.
"""

import math
import operator
import os
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import NamedTuple

import numpy as np

from sercli.annotation.timing import Stopwatch
from sercli.annotation.tracks import Track, TurnCutter
from sercli.arrays import FloatArray
from sercli.audio.reading import AudioFile, resample_stream
from sercli.config import SHORTEST_SEGMENT_S, SegmentConfig
from sercli.discovery import Found
from sercli.errors import AudioError, ConfigError
from sercli.files import find_size_and_time
from sercli.schema import MIX, FileResult
from sercli.speech.segmentation import SpeechCutter
from sercli.speech.turn import Turn
from sercli.text import format_count

# Value of `channels` that selects each channel by itself.
SPLIT = "split"
SPLIT_REMEDY = "--channels split classifies each by itself"
CANCELLED = "the channels cancel each other in their mean; --channels split reads each by itself"
SILENT = "{} of {} channels have no sound at all: {}"
SAME = "the channels are the same, and so are their rows; --channels {} gives each segment once"
# A given segment that ends later than its recording by more than this is cut, and reported; others
# keep their times, which may have been rounded.
CUT_S = 0.01
# If the mean of channels keeps less than this share of their power, they cancel each other.
LEAST_POWER = 1e-3
# Most channels that a warning names: a table may have any number of them.
MOST_NAMED = 5


class Block(NamedTuple):
    """Result of reading one block of a recording.

    Parameters
    ----------
    seconds
        Seconds that were decoded.
    waveforms
        Waveforms of the segments that became final, at 16 kHz, each of shape (n_samples,);
        overlapping ones may share memory.
    """

    seconds: float
    waveforms: list[FloatArray]


class Piece(NamedTuple):
    """Position of a segment in a recording.

    Parameters
    ----------
    channel
        Index of the channel among the selected channels.
    start, end, speech
        Start, end and duration of speech in seconds; see `sercli.speech.segmentation.Span`.
    turn
        Index of the recording's turn that it belongs to, if turns were given.
    """

    channel: int
    start: float
    end: float
    speech: float
    turn: int = 0


class Recording:
    """File that is read once, from its start to its end.

    Parameters
    ----------
    found
        The file, or a folder that could not be searched.
    channels
        Selected channels, from `parse_channels`.
    config
        Settings of how it is cut.
    stopwatch
        Stopwatch that records how long each stage takes.
    turns
        Turns at which it is cut, whether or not they contain speech; None: it is cut into speech
        segments.

    Attributes
    ----------
    pieces
        Positions of the segments that were handed over so far, in order.
    channels
        Names of the selected channels.
    ends
        Ends of these channels in seconds; set when the file is read.
    result
        Result of the file, without its segments; set when the file is read.
    """

    def __init__(
        self,
        found: Found,
        channels: str | tuple[int, ...],
        config: SegmentConfig,
        stopwatch: Stopwatch,
        turns: Sequence[Turn] | None = None,
    ) -> None:
        self.found = found
        self.turns = turns
        self.pieces: list[Piece] = []
        self.channels: tuple[str, ...] = ()
        self.ends: tuple[float, ...] = ()
        self.result = FileResult(os.fspath(found.path), "failed")
        self._notes: tuple[str, ...] = ()
        self._wanted = channels
        self._config = config
        self._stopwatch = stopwatch

    def listen(self) -> Generator[Block, None, None]:
        """Decode the file to its end, or as far as possible, and cut it into segments.

        Yields
        ------
        Block
            Decoded seconds and final segments of each block.
        """
        name = self.result.path
        if self.found.error is not None:  # a folder that could not be listed
            self.result = replace(self.result, error=f"{name}: {self.found.error}")
            return
        if self.found.file is None:
            size, modified = find_size_and_time(name)
            self.result = replace(self.result, size=size, modified=modified)
        try:
            with self._stopwatch.measure("decode"):
                audio = AudioFile(self.found.path, self.found.file)
        except AudioError as error:
            self.result = replace(self.result, error=str(error))
            return
        with audio:
            reason = None
            try:
                yield from self._cut(audio)
            except AudioError as error:
                reason = str(error)
            self.result = replace(
                self.result,
                status="failed" if reason else "ok" if self.pieces else "no speech",
                duration=audio.duration,
                sample_rate=audio.sample_rate,
                channels=audio.channels,
                error=reason,
                warnings=(
                    *audio.warnings,
                    *self._notes,
                    *self._explain_turns(audio.channels),
                ),
            )

    def _cut(self, audio: AudioFile) -> Iterator[Block]:
        try:
            names, matrix = select_channels(self._wanted, audio.channels)
        except AudioError as error:
            raise AudioError(f"{audio.path}: {error}") from error
        self.channels = tuple(names)
        alone = audio.channels == 1
        tracks = [Track(self._create_cutter(name, alone=alone)) for name in names]
        mixer = _Mixer(matrix)
        mixed = mixer.mix(audio.blocks())
        blocks = resample_stream(mixed, audio.sample_rate, len(tracks))
        defect = None
        n_read = 0
        while True:
            try:
                with self._stopwatch.measure("decode"):
                    block = next(blocks, None)
            except AudioError as error:
                defect, block = error, None
            with self._stopwatch.measure("speech"):
                final = []
                for channel, track in enumerate(tracks):
                    cut = track.finish() if block is None else track.push(block[:, channel])
                    for span, waveform in cut:
                        start, end = audio.seconds_at(span.start), audio.seconds_at(span.end)
                        self.pieces.append(Piece(channel, start, end, span.speech, span.turn))
                        final.append(waveform)
            yield Block((audio.n_samples - n_read) / audio.sample_rate, final)
            n_read = audio.n_samples
            if block is None:
                break
        self.ends = tuple(audio.seconds_at(track.n_samples) for track in tracks)
        self._notes = tuple(self._explain_channels(mixer))
        if defect is not None:
            raise defect

    def _create_cutter(self, channel: str, *, alone: bool) -> SpeechCutter | TurnCutter:
        if self.turns is None:
            return SpeechCutter(self._config)
        own = [one for one in enumerate(self.turns) if one[1].is_of(channel, alone=alone)]
        return TurnCutter(own)

    def _explain_channels(self, mixer: "_Mixer") -> Iterator[str]:
        """Yield a warning if channels cancel each other, are the same, or have no sound."""
        silent = [*compress(self.channels, ~mixer.is_heard)]
        if self._wanted == MIX and mixer.share < LEAST_POWER:
            yield CANCELLED
        elif self.turns is not None:
            return
        elif self.pieces and mixer.is_same:
            yield SAME.format(self.channels[0])
        elif 0 < len(silent) < len(self.channels):
            named = ", ".join(silent[:MOST_NAMED])
            yield SILENT.format(len(silent), len(self.channels), named)

    def _explain_turns(self, n_channels: int) -> Iterator[str]:
        """Yield warnings about given turns that were cut or have no piece, one per reason."""
        if self.turns is None:
            return
        if not self.turns:
            yield "has no segments in --segments"
        if not self.ends:  # nothing was decoded, and the error says why
            return
        found = {piece.turn for piece in self.pieces}
        rest = [turn for number, turn in enumerate(self.turns) if number not in found]
        alone = n_channels == 1
        is_selected = [any(turn.is_of(one, alone=alone) for one in self.channels) for turn in rest]
        selected = list(compress(rest, is_selected))
        unselected = Counter(
            turn.channel or MIX for turn, yes in zip(rest, is_selected, strict=True) if not yes
        )
        end = max(self.ends)
        # Of one that starts at the very end, too little is left, however long it is.
        late = [
            turn
            for turn in selected
            if turn.start >= end
            or (
                turn.start > max(0, end - SHORTEST_SEGMENT_S)
                and turn.end - turn.start >= SHORTEST_SEGMENT_S
            )
        ]
        given = [self.turns[number] for number in found]
        cut = [turn for turn in given if max(self.ends) + CUT_S < turn.end < math.inf]
        if cut:
            yield f"{format_count(len(cut), 'segment')} cut at its end"
        for some, what in (
            *_group_unselected(unselected, self.channels, n_channels),
            (len(late), "after its end"),
            (len(selected) - len(late), f"shorter than {SHORTEST_SEGMENT_S:g} s"),
        ):
            if some:
                yield f"{format_count(some, 'segment')} without a label: {what}"


class _Mixer:
    """Mixes the channels of a file to the selected ones, and measures their power.

    Parameters
    ----------
    matrix
        Mixing matrix, from `select_channels`.
    """

    def __init__(self, matrix: FloatArray) -> None:
        self._matrix = matrix
        self._before = self._after = 0.0  # sums of squares
        # Whether there are several mixed channels, which are the same so far.
        self.is_same = matrix.shape[1] > 1
        # Which of the mixed channels had any sound so far.
        self.is_heard = np.zeros(matrix.shape[1], bool)

    def mix(self, blocks: Iterable[FloatArray]) -> Iterator[FloatArray]:
        """Yield each block, mixed to the selected channels."""
        for block in blocks:
            mixed = block @ self._matrix
            self._before += float(np.vdot(block, block))
            self._after += float(np.vdot(mixed, mixed))
            self.is_heard |= mixed.any(axis=0)
            self.is_same = self.is_same and bool((mixed[:, 1:] == mixed[:, :1]).all())
            yield mixed

    @property
    def share(self) -> float:
        """Mean power of the mixed channels relative to the file's; 1 if these are silent."""
        n_before, n_after = self._matrix.shape
        if not self._before:
            return 1.0
        return float((self._after / n_after) / (self._before / n_before))


def _group_unselected(
    found: Mapping[str, int], selected: Sequence[str], n_channels: int
) -> Iterator[tuple[int, str]]:
    """Yield the numbers of given segments on channels that are not selected, and the reasons.

    Parameters
    ----------
    found
        Number of given segments on each channel that is not selected.
    selected
        Names of the selected channels.
    n_channels
        Number of channels in the recording.
    """
    numbered = {str(index) for index in range(n_channels)}
    they = f"{', '.join(selected)} {'is' if len(selected) == 1 else 'are'} classified"
    for names, why in (
        (numbered & found.keys(), f"{they}; {SPLIT_REMEDY}"),
        ({MIX} & found.keys(), f"{they}; --channels mix classifies the mean of all"),
        (
            found.keys() - numbered - {MIX},
            f"the recording has {format_count(n_channels, 'channel')}",
        ),
    ):
        some = sorted(names, key=lambda name: (len(name), name))
        listed = ", ".join(some[:MOST_NAMED]) + (", ..." if len(some) > MOST_NAMED else "")
        what = "channel" if len(some) == 1 else "channels"
        yield sum(found[name] for name in some), f"of {what} {listed}, but {why}"


def parse_channels(channels: str | Iterable[int]) -> str | tuple[int, ...]:
    """Return a setting of channels as ``"mix"``, ``"split"`` or indices.

    Parameters
    ----------
    channels
        Setting, as in `sercli.annotate`.

    Raises
    ------
    ConfigError
        If it is none of these, or the indices are negative or not distinct.
    """
    if isinstance(channels, str) and channels in (MIX, SPLIT):
        return channels
    try:
        listed = channels.split(",") if isinstance(channels, str) else channels
        indices = tuple(map(_parse_index, listed))
    except (TypeError, ValueError):
        indices = ()
    if not indices or min(indices) < 0 or len(set(indices)) < len(indices):
        raise ConfigError(
            f"channels is {channels!r}; expected mix, split, or different indices from 0: 0,1"
        )
    return indices


def _parse_index(index: object) -> int:
    if isinstance(index, str):
        return int(index)
    if isinstance(index, bool):
        raise TypeError("a truth value is no index")
    return operator.index(index)  # type: ignore[arg-type]


def select_channels(
    channels: str | tuple[int, ...], n_channels: int
) -> tuple[list[str], FloatArray]:
    """Return the names of the selected channels, and the matrix that mixes them.

    Parameters
    ----------
    channels
        Selected channels, from `parse_channels`.
    n_channels
        Number of channels in the file.

    Returns
    -------
    names : list of str
        Names of the selected channels.
    mixer : ndarray of float32, shape (n_channels, n_names)
        Matrix that blocks of shape (n_samples, n_channels) are multiplied by.

    Raises
    ------
    AudioError
        If the file has too few channels.
    """
    if channels == MIX:
        name = "0" if n_channels == 1 else MIX
        return [name], np.full((n_channels, 1), 1 / n_channels, np.float32)
    indices = range(n_channels) if channels == SPLIT else [int(index) for index in channels]
    if max(indices) >= n_channels:
        raise AudioError(
            f"has {format_count(n_channels, 'channel')}; asked for channel {max(indices)}, "
            "counted from 0; name channels that all files have, or use --channels split"
        )
    return [str(index) for index in indices], np.eye(n_channels, dtype=np.float32)[:, indices]
