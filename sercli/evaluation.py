"""Measuring a model on a corpus: each clip is one segment, judged as `ser annotate` judges it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sercli.audio import load_audio
from sercli.classifiers.base import Classifier
from sercli.config import Split
from sercli.datasets import Clip, Corpus, class_indices
from sercli.errors import AudioError, DatasetError
from sercli.metrics import evaluate_probabilities
from sercli.version import __version__

# One worker takes this many clips at a time.
CLIPS_PER_TASK = 16

Extract = Callable[[Clip, NDArray[np.float32]], NDArray[np.float32]]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class ClipFeatures:
    """Features of the clips that could be decoded.

    Parameters
    ----------
    clips
        Those that could be decoded, in order.
    features
        What was extracted from each clip, stacked: shape (n_clips, ...).
    failed
        Error of each clip that could not be decoded, by path.
    """

    clips: tuple[Clip, ...]
    features: NDArray[np.float32]
    failed: dict[str, str]


def extract_clip_features(
    clips: Sequence[Clip], extract: Extract, *, jobs: int = -1, progress: Progress | None = None
) -> ClipFeatures:
    """Decode clips and extract their features, on several cores.

    Parameters
    ----------
    clips
        What to decode.
    extract
        From a clip and its waveform at 16 kHz to an array of features; called in other processes.
    jobs
        Number of processes; -1 for one per core.
    progress
        Called with the number of clips that are newly done.

    Raises
    ------
    DatasetError
        If not one clip can be decoded.
    """
    from joblib import Parallel, delayed

    tasks = [clips[i : i + CLIPS_PER_TASK] for i in range(0, len(clips), CLIPS_PER_TASK)]
    done: list[Clip] = []
    rows: list[NDArray[np.float32]] = []
    failed: dict[str, str] = {}
    parallel = Parallel(n_jobs=jobs, return_as="generator")
    results = parallel(delayed(_extract_task)(task, extract) for task in tasks)
    for task, result in zip(tasks, results, strict=True):
        for clip, outcome in zip(task, result, strict=True):
            if isinstance(outcome, str):
                failed[str(clip.path)] = outcome
            else:
                done.append(clip)
                rows.append(outcome)
        if progress is not None:
            progress(len(task))
    if not rows:
        raise DatasetError(f"none of {len(clips)} clips could be decoded: {failed}")
    return ClipFeatures(tuple(done), np.stack(rows), failed)


def _extract_task(clips: Sequence[Clip], extract: Extract) -> list[NDArray[np.float32] | str]:
    outcomes: list[NDArray[np.float32] | str] = []
    for clip in clips:
        try:
            waveform = load_audio(clip.path)
            if not len(waveform):
                raise AudioError(f"{clip.path}: holds no samples")
            outcomes.append(extract(clip, waveform))
        except AudioError as error:
            outcomes.append(str(error))
    return outcomes


def _extract_whole(
    classifier: Classifier, clip: Clip, waveform: NDArray[np.float32]
) -> NDArray[np.float32]:
    features: NDArray[np.float32] = classifier.extract_features([waveform])[0]
    return features


def evaluate(
    classifier: Classifier,
    corpus: Corpus,
    split: Split = "test",
    *,
    jobs: int = -1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model on one split of a corpus.

    Parameters
    ----------
    classifier
        The model.
    corpus
        Labelled clips.
    split
        Whose clips.
    jobs
        Number of processes; -1 for one per core.
    progress
        Called with the number of clips that are newly done.

    Returns
    -------
    dict
        The figures of `sercli.metrics.evaluate_probabilities`, with ``corpus``, ``split``,
        ``speakers``, ``speakers_trained_on`` (those of them that the model was trained on: its
        figures are too good), ``ser_version`` and ``failed`` (the error of each clip left out).

    Raises
    ------
    DatasetError
        If the split is empty, or its labels are not the model's.
    """
    data = extract_clip_features(
        corpus.select(split), partial(_extract_whole, classifier), jobs=jobs, progress=progress
    )
    labels = classifier.spec.labels
    y_true = np.array(class_indices(data.clips, labels))
    probabilities = classifier.spec.calibration.probabilities(classifier.score(data.features))
    training = classifier.spec.training
    known = training.get("speakers", []) if training.get("corpus") == corpus.name else []
    speakers = {clip.speaker for clip in data.clips}
    return {
        "ser_version": __version__,
        "corpus": corpus.name,
        "split": split,
        "speakers": sorted(speakers),
        "speakers_trained_on": sorted(speakers & set(known)),
        "failed": data.failed,
        **evaluate_probabilities(y_true, probabilities, labels),
    }
