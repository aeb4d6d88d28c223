"""Feature extraction from labelled clips on several cores."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self, TypeVar

import numpy as np

from sercli.arrays import FloatArray
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import ClipError, decode_clip, order_by_source
from sercli.datasets.notes import Notes, join_notes
from sercli.errors import DatasetError

# Clips per task of a worker.
CLIPS_PER_TASK = 16
# If a model runs in this process, workers may be ahead of it by this many tasks each.
TASKS_AHEAD = 4

Extract = Callable[[Clip, FloatArray], FloatArray]
Cut = Callable[[Clip, FloatArray], list[FloatArray]]
Embed = Callable[[Sequence[FloatArray]], FloatArray]
Progress = Callable[[int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")
# Result for a clip: the hash of its audio and what was extracted, or the error message.
Outcome = tuple[str, Any] | str


@dataclass(frozen=True)
class ClipFeatures:
    """Features of the clips that could be decoded.

    Parameters
    ----------
    clips
        Clips that could be decoded, in the given order.
    features
        Features of each clip: one or more rows, shape (n_rows, n_features).
    hashes
        Hash of the decoded audio of each clip; see `sercli.datasets.decoding.hash_audio`.
    failed
        Error message for each clip that could not be decoded, by `Clip.place`.
    notes
        Notes on recordings that were repaired or are not read in full, by their paths.
    """

    clips: tuple[Clip, ...]
    features: tuple[FloatArray, ...]
    hashes: tuple[str, ...]
    failed: dict[str, str]
    notes: Mapping[str, Notes] = field(default_factory=dict)

    @classmethod
    def join(cls, parts: "Sequence[ClipFeatures]") -> Self:
        """Return the clips of several parts as one."""
        return cls(
            tuple(clip for part in parts for clip in part.clips),
            tuple(rows for part in parts for rows in part.features),
            tuple(digest for part in parts for digest in part.hashes),
            {place: error for part in parts for place, error in part.failed.items()},
            join_notes(part.notes for part in parts),
        )

    def select(self, rows: Sequence[int]) -> Self:
        """Return the features of some of the clips, by their indices, and all errors and notes."""
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
    """Decode clips and extract their features on several cores.

    Parameters
    ----------
    clips
        Clips to decode.
    extract
        Function of a clip and its waveform at 16 kHz that returns rows of features or, with
        `embed`, one or more pieces of audio. It is called in other processes.
    embed
        Function of pieces of audio that returns one row of features for each, for a model that
        cannot be loaded in several processes. It is called in this process, with the pieces of
        several clips at a time.
    jobs
        Number of processes; -1 for one per core.
    progress
        Called with the number of clips completed since the last call.

    Returns
    -------
    ClipFeatures
        Features of the clips that could be decoded, and the errors of the others.

    Raises
    ------
    DatasetError
        If no clip can be decoded.
    """
    done: dict[int, tuple[str, FloatArray]] = {}
    errors: dict[int, str] = {}
    notes: list[dict[str, Notes]] = []
    order = order_by_source(clips)
    places = iter(order)
    in_order = [clips[place] for place in order]
    task = partial(_extract, extract=extract)
    for results in run_tasks(task, in_order, jobs, limited=embed is not None):
        decoded: dict[int, tuple[str, Any]] = {}
        for (outcome, told), place in zip(results, places, strict=False):
            notes.append(told)
            if isinstance(outcome, str):
                errors[place] = outcome
            else:
                decoded[place] = outcome
        if embed is not None and decoded:
            rows = _embed_pieces([pieces for _, pieces in decoded.values()], embed)
            decoded = {
                place: (audio_hash, some)
                for (place, (audio_hash, _)), some in zip(decoded.items(), rows, strict=True)
            }
        done |= decoded
        if progress is not None:
            progress(len(results))
    if not done:
        raise DatasetError(
            f"none of {len(clips)} clips could be decoded; the first: {errors[min(errors)]}"
        )
    hashes, features = zip(*(done[place] for place in sorted(done)), strict=True)
    return ClipFeatures(
        tuple(clips[place] for place in sorted(done)),
        features,
        hashes,
        {clips[place].place: errors[place] for place in sorted(errors)},
        join_notes(notes),
    )


def run_tasks(
    function: Callable[[Item], Result], items: Sequence[Item], jobs: int, *, limited: bool = False
) -> Iterator[list[Result]]:
    """Yield the results for `CLIPS_PER_TASK` items after others, in order, by several processes.

    If `limited`, workers wait when they are too far ahead of the consumer of the results. Rows of
    features need no limit, but the waveforms of a whole corpus do not fit into memory. joblib's
    `pre_dispatch` is no such limit: a completed task makes room for the next, even if its result
    was not consumed. joblib is therefore given a limited number of tasks at a time.
    """
    from joblib import Parallel, delayed, effective_n_jobs

    jobs = limit_jobs(jobs)
    tasks = [items[i : i + CLIPS_PER_TASK] for i in range(0, len(items), CLIPS_PER_TASK)]
    n_ahead = TASKS_AHEAD * effective_n_jobs(jobs) if limited else len(tasks)
    with Parallel(n_jobs=jobs, return_as="generator") as parallel:
        for first in range(0, len(tasks), max(n_ahead, 1)):
            some = tasks[first : first + n_ahead]
            yield from parallel(delayed(_run)(function, task) for task in some)


def limit_jobs(jobs: int) -> int:
    """Return a number of processes that can be started: 1 if there are no standard streams.

    Parameters
    ----------
    jobs
        Number of processes; -1 for one per core.
    """
    return 1 if None in (sys.stdout, sys.stderr) else jobs


def _run(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [function(item) for item in items]


def _extract(clip: Clip, extract: Extract | Cut) -> tuple[Outcome, dict[str, Notes]]:
    try:
        waveform, audio_hash, told = decode_clip(clip)
        return (audio_hash, extract(clip, waveform)), {str(clip.path): told}
    except ClipError as error:
        return str(error), {str(clip.path): error.notes}


def _embed_pieces(clips: Sequence[list[FloatArray]], embed: Embed) -> list[FloatArray]:
    """Return the rows of features of each clip; the pieces of all clips are embedded together."""
    rows = embed([piece for pieces in clips for piece in pieces])
    return np.split(rows, np.cumsum([len(pieces) for pieces in clips])[:-1])
