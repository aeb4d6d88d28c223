"""Decoding labelled clips and extracting their features, on several cores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from sercli.arrays import FloatArray
from sercli.datasets.base import Clip
from sercli.datasets.decoding import decode_clip, order_by_source
from sercli.errors import AudioError, DatasetError

# One worker takes this many clips at a time.
CLIPS_PER_TASK = 16
# Where a model runs in this process, workers may be ahead of it by this many tasks each.
TASKS_AHEAD = 4

Extract = Callable[[Clip, FloatArray], FloatArray]
Cut = Callable[[Clip, FloatArray], list[FloatArray]]
Embed = Callable[[Sequence[FloatArray]], FloatArray]
Progress = Callable[[int], None]
# Of a clip: the hash of its audio and what was extracted, or the error.
_Outcome = tuple[str, Any] | str


@dataclass(frozen=True)
class ClipFeatures:
    """Features of the clips that could be heard.

    Parameters
    ----------
    clips
        Those that could be heard, in order.
    features
        What was extracted from each clip: one row or more, shape (n_rows, n_features).
    hashes
        Of the decoded audio of each clip; see `hash_audio`.
    failed
        Error of each clip that could not be heard, by its place.
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
        If not one clip can be heard.
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
            f"none of {len(clips)} clips could be heard; the first: {errors[min(errors)]}"
        )
    places = sorted(done)
    hashes, features = zip(*(done[place] for place in places), strict=True)
    return ClipFeatures(
        tuple(clips[place] for place in places),
        features,
        hashes,
        {clips[place].place: errors[place] for place in sorted(errors)},
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
