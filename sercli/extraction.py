"""Decoding labelled clips and extracting their features, on several cores."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE, AudioFile, resample_stream
from sercli.config import SHORTEST_SEGMENT_S
from sercli.datasets.base import Clip
from sercli.errors import AudioError, DatasetError
from sercli.text import format_count

# One worker takes this many clips at a time.
CLIPS_PER_TASK = 16
# Where a model runs in this process, workers may be ahead of it by this many tasks each.
TASKS_AHEAD = 4
# Where a recording ends before a clip of it, this share of the clip may be missing: what people
# annotate is often a little longer than what was recorded.
MAX_MISSING = 0.1
# Of a hash of audio: for a million clips, two would share one with a probability of 1 in 10**7.
HASH_BYTES = 8

Extract = Callable[[Clip, FloatArray], FloatArray]
Cut = Callable[[Clip, FloatArray], list[FloatArray]]
Embed = Callable[[Sequence[FloatArray]], FloatArray]
Progress = Callable[[int], None]
# Of a clip: the hash of its audio and what was extracted, or the error.
_Outcome = tuple[str, Any] | str


@dataclass(frozen=True)
class ClipFeatures:
    """Features of the clips that could be decoded.

    Parameters
    ----------
    clips
        Those that could be decoded, in order.
    features
        What was extracted from each clip: one row or more, shape (n_rows, n_features).
    hashes
        Of the decoded audio of each clip; see `hash_audio`.
    failed
        Error of each clip that could not be decoded, by its place.
    """

    clips: tuple[Clip, ...]
    features: tuple[FloatArray, ...]
    hashes: tuple[str, ...]
    failed: dict[str, str]

    def select(self, rows: Sequence[int]) -> Self:
        """Return the features of some of the clips, by their indices, and all errors."""
        return replace(
            self,
            clips=tuple(self.clips[row] for row in rows),
            features=tuple(self.features[row] for row in rows),
            hashes=tuple(self.hashes[row] for row in rows),
        )


class DecodedClip(NamedTuple):
    """A clip's waveform at 16 kHz, shape (n_samples,), and the hash of its decoded audio."""

    waveform: FloatArray
    audio_hash: str


def extract_clip_features(
    clips: Sequence[Clip],
    extract: Extract | Cut,
    *,
    embed: Embed | None = None,
    jobs: int = -1,
    progress: Progress | None = None,
) -> ClipFeatures:
    """Decode clips and extract their features, on several cores.

    Parameters
    ----------
    clips
        What to decode.
    extract
        From a clip and its waveform at 16 kHz to rows of features or, with `embed`, to one or more
        pieces of audio; called in other processes.
    embed
        From pieces of audio to one row of features each; called in this process, with the pieces
        of several clips at a time, for a model that must not be in several processes.
    jobs
        Number of processes; -1 for one per core.
    progress
        Called with the number of clips that are newly done.

    Raises
    ------
    DatasetError
        If not one clip can be decoded.
    """
    order = order_by_source(clips)
    tasks = [order[i : i + CLIPS_PER_TASK] for i in range(0, len(order), CLIPS_PER_TASK)]
    done: dict[int, tuple[str, FloatArray]] = {}
    errors: dict[int, str] = {}
    some_clips = [[clips[place] for place in task] for task in tasks]
    results = _run_tasks(some_clips, extract, jobs, limited=embed is not None)
    for task, outcomes in zip(tasks, results, strict=True):
        heard: dict[int, tuple[str, Any]] = {}
        for place, outcome in zip(task, outcomes, strict=True):
            if isinstance(outcome, str):
                errors[place] = outcome
            else:
                heard[place] = outcome
        if embed is not None and heard:
            rows = _embed_pieces([pieces for _, pieces in heard.values()], embed)
            heard = {
                place: (audio_hash, some)
                for (place, (audio_hash, _)), some in zip(heard.items(), rows, strict=True)
            }
        done |= heard
        if progress is not None:
            progress(len(task))
    if not done:
        raise DatasetError(
            f"none of {len(clips)} clips could be decoded; the first: {errors[min(errors)]}"
        )
    places = sorted(done)
    hashes, features = zip(*(done[place] for place in places), strict=True)
    return ClipFeatures(
        tuple(clips[place] for place in places),
        features,
        hashes,
        {clips[place].place: errors[place] for place in sorted(errors)},
    )


def order_by_source(clips: Sequence[Clip]) -> list[int]:
    """Return the places of clips, those of one channel of a recording after each other.

    The channels of a call take turns, and it would be decoded at each of them.

    Parameters
    ----------
    clips
        In any order, in which the recordings are met and their clips stay.
    """
    first: dict[tuple[Path, int | None], int] = {}
    for place, clip in enumerate(clips):
        first.setdefault((clip.path, clip.channel), place)
    return sorted(range(len(clips)), key=lambda at: first[clips[at].path, clips[at].channel])


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
        If it cannot be decoded to its end, is too short to be judged, or has no such channel.
    """
    return _cut(clip, _load_recording(str(clip.path), clip.channel)).waveform


def decode_clip(clip: Clip) -> DecodedClip:
    """Return the waveform of a clip, as `load_clip` does, and the hash of its audio.

    Parameters
    ----------
    clip
        A file, or a stretch of one.

    Raises
    ------
    AudioError
        As for `load_clip`.
    """
    recording = _cut(clip, _load_recording(str(clip.path), clip.channel))
    return DecodedClip(recording.waveform, hash_audio(recording.original))


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
            return load_clip(self._clips[index])
        except AudioError:
            return np.zeros(SAMPLE_RATE, np.float32)


class _Recording(NamedTuple):
    waveform: FloatArray  # at 16 kHz
    original: FloatArray  # at the file's own rate
    sample_rate: int
    error: str = ""  # why it ends before its end


def _load_recording(path: str, channel: int | None) -> _Recording:
    try:
        status = os.stat(path)
    except OSError:  # which is told when it is opened
        return _load_version(path, channel, 0, 0)
    return _load_version(path, channel, status.st_size, status.st_mtime_ns)


# A long recording has many clips, which come one after the other; it may change between two runs.
@lru_cache(maxsize=1)
def _load_version(path: str, channel: int | None, _size: int, _modified: int) -> _Recording:
    with AudioFile(path) as audio:
        blocks: list[FloatArray] = []
        error = ""
        try:
            for block in take_channel(audio, channel):
                blocks.append(block)
        except AudioError as reason:
            error = str(reason)
        resampled = list(resample_stream(iter(blocks), audio.sample_rate, 1))
        return _Recording(_join(resampled), _join(blocks), audio.sample_rate, error)


def take_channel(audio: AudioFile, channel: int | None) -> Iterator[FloatArray]:
    """Yield blocks of one channel, or of the mean of all, each of shape (n_samples, 1).

    Parameters
    ----------
    audio
        The recording.
    channel
        Index from 0, or None.

    Raises
    ------
    AudioError
        If it has no such channel, or cannot be decoded to its end.
    """
    if channel is not None and channel >= audio.channels:
        found = format_count(audio.channels, "channel")
        raise AudioError(
            f"{audio.path}: has {found}; expected channel {channel}, counted from 0, as well"
        )
    for block in audio.blocks():
        yield block.mean(axis=1, keepdims=True) if channel is None else block[:, [channel]]


def _join(blocks: list[FloatArray]) -> FloatArray:
    return np.concatenate(blocks)[:, 0] if blocks else np.empty(0, np.float32)


def _cut(clip: Clip, recording: _Recording) -> _Recording:
    def cut(waveform: FloatArray, sample_rate: int) -> FloatArray:
        end = None if clip.end is None else round(clip.end * sample_rate)
        return waveform[round(clip.start * sample_rate) : end]

    waveform = cut(recording.waveform, SAMPLE_RATE)
    duration = len(recording.waveform) / SAMPLE_RATE
    if recording.error and (clip.end is None or clip.end > duration):
        raise AudioError(recording.error)
    check_stretch(clip, len(waveform), duration)
    original = cut(recording.original, recording.sample_rate)
    return _Recording(waveform, original, recording.sample_rate)


def check_stretch(clip: Clip, n_samples: int, duration: float) -> None:
    """Refuse a clip of which its recording has too little.

    Parameters
    ----------
    clip
        Where it is to be.
    n_samples
        That were found there, at 16 kHz.
    duration
        Of the recording, in seconds.

    Raises
    ------
    AudioError
        If it is shorter than what can be judged, or lacks more than `MAX_MISSING` of its length.
    """
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


def _run_tasks(
    tasks: Sequence[Sequence[Clip]], extract: Extract | Cut, jobs: int, *, limited: bool
) -> Iterator[list[_Outcome]]:
    """Yield the outcomes of each task, in order.

    If they are limited, workers wait where they are too far ahead of who takes the outcomes. For
    rows of features that does not matter; waveforms of a whole corpus do not fit into memory. Not
    even its `pre_dispatch` limits what joblib holds: a task that is done makes room for the next,
    whether its outcome was taken or not. So it is given some tasks at a time.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    n_ahead = TASKS_AHEAD * effective_n_jobs(jobs) if limited else len(tasks)
    with Parallel(n_jobs=jobs, return_as="generator") as parallel:
        for first in range(0, len(tasks), max(n_ahead, 1)):
            some = tasks[first : first + n_ahead]
            yield from parallel(delayed(_extract_task)(task, extract) for task in some)


def _extract_task(clips: Sequence[Clip], extract: Extract | Cut) -> list[_Outcome]:
    outcomes: list[_Outcome] = []
    for clip in clips:
        try:
            waveform, audio_hash = decode_clip(clip)
            outcomes.append((audio_hash, extract(clip, waveform)))
        except AudioError as error:
            outcomes.append(str(error))
    return outcomes


def _embed_pieces(clips: Sequence[list[FloatArray]], embed: Embed) -> list[FloatArray]:
    """Return the rows of each clip; the pieces of all clips are embedded together."""
    rows = embed([piece for pieces in clips for piece in pieces])
    return np.split(rows, np.cumsum([len(pieces) for pieces in clips])[:-1])
