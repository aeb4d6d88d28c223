"""From a corpus to a model folder: fit, save, measure, and write the card."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sercli.cards import write_card
from sercli.classifiers.svm import SvmClassifier
from sercli.config import EvalConfig, Split, SvmConfig
from sercli.datasets.base import Clip, Corpus
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.measurement import Judgement, measure
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.run import Evaluation, describe_model, evaluate, find_limits
from sercli.extraction import ClipFeatures, Progress
from sercli.labels import EMOTIONS
from sercli.protocols import APART, fold_by_speaker, judge_protocol
from sercli.store import load_model, save_model
from sercli.training.svm import extract_versions, fit_svm

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Training:
    """A model that was trained, and what was measured of it.

    Parameters
    ----------
    classifier
        The model, as its folder holds it.
    evaluation
        On clips that it was not trained on; None if it was not asked for or there are none.
    failed
        Error of each clip that could not be decoded, by path.
    """

    classifier: SvmClassifier
    evaluation: Evaluation | None
    failed: dict[str, str]


def choose_training_labels(corpus: Corpus) -> tuple[str, ...]:
    """Return those of our emotions that a corpus has; all its labels if it has fewer than two."""
    found = {clip.emotion for clip in corpus.clips}
    ours = tuple(label for label in EMOTIONS if label in found)
    return ours if len(ours) > 1 else tuple(sorted(found))


def train(
    corpus: Corpus,
    folder: Path,
    config: SvmConfig,
    *,
    fit_on: Sequence[Split] = ("train",),
    test: bool = True,
    details: dict[str, Any] | None = None,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> Training:
    """Train a model on some splits of a corpus, and measure it on the clips of ``test``.

    Parameters
    ----------
    corpus
        Of which every clip has a split; see `sercli.protocols`. Its clips must have the labels
        that are to be learned, and no others.
    folder
        The model folder; it is made.
    config
        How to train.
    fit_on
        Splits that are learned from.
    test
        Measure the model, if there are clips of ``test`` that are not learned from.
    details
        Added to ``training`` in ``model.json``.
    say
        Told what is done next and what was found.
    progress
        Called with the number of clips whose features are newly extracted.

    Raises
    ------
    DatasetError
        If a split is empty, or the clips do not suffice.
    """
    clips = tuple(clip for split in fit_on for clip in corpus.select(split))
    held_out = tuple(clip for clip in corpus.clips if clip.split == "test")
    found = extract_versions(clips, config, progress)
    classifier = fit_svm(found, choose_training_labels(corpus), config, say=say)
    record = {"splits": list(fit_on), "protocol": judge_protocol(clips, held_out)}
    saved = _save(classifier, found, corpus, folder, record | (details or {}))
    evaluation = None
    if test and held_out and "test" not in fit_on:
        say(f"measuring on {len(held_out)} clips that were not learned from")
        evaluation = evaluate(saved, corpus, "test", EvalConfig(seed=config.seed, jobs=config.jobs))
    return _finish(saved, evaluation, found.failed, folder)


def cross_validate(
    corpus: Corpus,
    folder: Path,
    config: SvmConfig,
    n_folds: int,
    *,
    details: dict[str, Any] | None = None,
    say: Say = lambda _: None,
    progress: Progress | None = None,
) -> Training:
    """Train a model on all clips, and measure models that did not hear the speakers of a fold.

    Every fold's clips are judged by a model whose settings, weights and calibration come from the
    other folds alone. The model that is saved learns from all of them.

    Parameters
    ----------
    corpus
        Its clips must have the labels that are to be learned, and no others.
    folder
        The model folder; it is made.
    config
        How to train.
    n_folds
        Number of folds, at least 2; every speaker is in one.
    details, say, progress
        As for `train`.

    Raises
    ------
    DatasetError
        If speakers are unknown or fewer than folds, or the clips do not suffice.
    """
    labels = choose_training_labels(corpus)
    # Clips are heard in the background of others: features are extracted fold by fold, so that no
    # voice of one fold is heard in another.
    parts = [
        extract_versions([corpus.clips[i] for i in fold], config, progress)
        for fold in fold_by_speaker(corpus.clips, n_folds)
    ]
    probabilities = []
    for number, part in enumerate(parts):
        say(f"fold {number + 1} of {n_folds}")
        others = _concatenate([other for other in parts if other is not part])
        model = fit_svm(others, labels, config)
        as_they_are = model.score(np.stack([rows[0] for rows in part.features]))
        probabilities.append(model.spec.calibration.probabilities(as_they_are))
    found = _concatenate(parts)
    say("fitting on all clips")
    classifier = fit_svm(found, labels, config, say=say)
    split = f"{n_folds} folds"
    record = {"splits": ["all"], "protocol": f"{APART}, {split}"}
    saved = _save(classifier, found, corpus, folder, record | (details or {}))
    predictions = Predictions(saved.name, labels, found.clips, np.concatenate(probabilities))
    judgement = Judgement(predictions, {}, found.hashes, found.failed)
    figures = {
        **describe_model(saved),
        "corpus": corpus.name,
        "split": split,
        "protocol": APART,
        "overlap": {"speakers": [], "clips": 0},
        "warnings": [
            "The figures are those of models trained on the other folds, not of this one.",
            *find_limits(judgement),
        ],
        "labels_left_out": {"model": [], "corpus": {}},
        "left_out": corpus.count_skipped(),
        **measure(judgement, EvalConfig(seed=config.seed)),
    }
    return _finish(saved, Evaluation(predictions, figures), found.failed, folder)


def _save(
    classifier: SvmClassifier,
    found: ClipFeatures,
    corpus: Corpus,
    folder: Path,
    details: dict[str, Any],
) -> SvmClassifier:
    manifest = TrainingManifest.from_clips(found.clips, found.hashes)
    training = {
        "corpus": corpus.name,
        "licence": corpus.licence,
        **details,
        **classifier.spec.training,
        "manifest_sha256": manifest.digest(),
    }
    classifier.spec = replace(classifier.spec, training=training)
    save_model(classifier, folder)
    manifest.write(folder)
    saved = load_model(folder)
    assert isinstance(saved, SvmClassifier)
    return saved


def _finish(
    classifier: SvmClassifier,
    evaluation: Evaluation | None,
    failed: dict[str, str],
    folder: Path,
) -> Training:
    write_card(classifier.spec, folder, evaluation.figures if evaluation else None)
    return Training(classifier, evaluation, failed)


def _concatenate(parts: Sequence[ClipFeatures]) -> ClipFeatures:
    clips: list[Clip] = [clip for part in parts for clip in part.clips]
    return ClipFeatures(
        tuple(clips),
        tuple(rows for part in parts for rows in part.features),
        tuple(digest for part in parts for digest in part.hashes),
        {path: error for part in parts for path, error in part.failed.items()},
    )
