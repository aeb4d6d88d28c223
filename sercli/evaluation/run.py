"""Measuring models on a corpus: each clip is one segment, judged as `ser annotate` judges it.

Clips of more than 30 s are judged in equal pieces, and their probabilities are the mean of theirs.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sercli.audio import SAMPLE_RATE
from sercli.classifiers.base import Classifier
from sercli.config import LONGEST_SEGMENT_S, Adaptation, EvalConfig, Precision, Split, Target
from sercli.datasets.base import Clip, Corpus
from sercli.datasets.votes import Votes
from sercli.errors import DatasetError, ModelError
from sercli.evaluation.leaks import MANIFEST_FILE, TrainingManifest
from sercli.evaluation.measurement import Judgement, measure
from sercli.evaluation.mixes import measure_mixes
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.resampling import FEW_UNITS
from sercli.extraction import ClipFeatures, Cut, Progress, Waveforms, extract_clip_features
from sercli.protocols import APART, SHARED, UNKNOWN
from sercli.stress import apply_condition, condition_rng
from sercli.text import format_count
from sercli.version import __version__

# Version of the layout of metrics.json, `sercli/data/metrics.schema.json`.
SCHEMA = 1
CLEAN = "clean"

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's predictions for a corpus, and what was measured on them.

    Parameters
    ----------
    predictions
        Of the clips as they are.
    figures
        What ``metrics.json`` holds; its layout is described in
        ``sercli/data/metrics.schema.json``.
    """

    predictions: Predictions = field(repr=False)
    figures: dict[str, Any] = field(repr=False)


def evaluate(
    classifier: Classifier,
    corpus: Corpus,
    split: Split | None = None,
    config: EvalConfig | None = None,
    *,
    votes: Votes | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on one split of a corpus.

    Only labels that both the model and the clips have are scored, with the model's probabilities
    renormalised over them.

    Parameters
    ----------
    classifier
        The model.
    corpus
        Labelled clips.
    split
        Whose clips: None: those of ``test``, or all of a corpus without any.
    config
        What to measure besides.
    votes
        Of listeners, by name of the clip; clips without votes stay out of that comparison.
    progress
        Called with the number of clips that are newly done, once for each condition and number
        type.

    Returns
    -------
    Evaluation

    Raises
    ------
    DatasetError
        If the split is empty, has no label of the model, or `EvalConfig.strict` is set and the
        model was trained on some of it.
    ConfigError
        If the model cannot multiply one of `EvalConfig.precisions`.
    """
    return evaluate_all([classifier], corpus, split, config, votes=votes, progress=progress)[0]


def evaluate_all(
    classifiers: Sequence[Classifier],
    corpus: Corpus,
    split: Split | None = None,
    config: EvalConfig | None = None,
    *,
    votes: Votes | None = None,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Measure several models on the same clips and the labels that all of them have.

    Models with equal front ends share their features. The parameters are those of `evaluate`;
    progress is called once for each clip, condition and front end, and for each number type of
    each model.

    Returns
    -------
    list of Evaluation
        In the order of the models.
    """
    config, split = config or EvalConfig(), split or corpus.default_split
    for classifier in classifiers:
        classifier.spec.find_calibration(config.target)
        if config.adapt != "none" or config.mixes:
            classifier.find_adapter(config.target)
        for precision in config.precisions:
            # What cannot be had is told now, not after an hour.
            with _multiplying(classifier, precision):
                pass
    clips, labels, left_out = choose_labels(classifiers, corpus.select(split))
    if config.adapt == "speaker" and not any(clip.voice for clip in clips):
        raise DatasetError(
            f"{corpus.name}: speakers are unknown, and adapt is 'speaker'; expected a speaker of "
            "some clips, or another adapt"
        )
    if config.strict:
        for classifier in classifiers:
            _refuse(classifier, _manifest(classifier), clips, ())
    judgements: dict[int, Judgement] = {}
    for front_end in dict.fromkeys(one.front_end for one in classifiers):
        members = [i for i, one in enumerate(classifiers) if one.front_end == front_end]
        found = _judge([classifiers[i] for i in members], clips, labels, config, progress)
        judgements |= dict(zip(members, found, strict=True))
    results = []
    for index, classifier in enumerate(classifiers):
        judgement = judgements[index]
        manifest = _manifest(classifier)
        if config.strict:
            _refuse(classifier, manifest, judgement.predictions.clips, judgement.hashes)
        unused = [label for label in classifier.spec.labels if label not in labels]
        figures = {
            **describe_model(classifier),
            "target": config.target,
            "adapt": config.adapt,
            "precision": classifier.precision,
            "corpus": corpus.name,
            "split": split,
            **_check_overlap(manifest, judgement, config.target, classifier.limits),
            "labels_left_out": {"model": unused, "corpus": left_out},
            "left_out": corpus.count_skipped(),
            **measure(judgement, config, votes),
        }
        results.append(Evaluation(judgement.predictions, figures))
    return results


def choose_labels(
    classifiers: Sequence[Classifier], clips: Sequence[Clip]
) -> tuple[tuple[Clip, ...], tuple[str, ...], dict[str, int]]:
    """Return the clips and labels that are scored, and the number of clips left out by label.

    Scored are labels that all models and at least one clip have. Where that is a single one,
    nothing could be told apart, and all labels that the models share are scored.

    Parameters
    ----------
    classifiers
        The models.
    clips
        Of any labels.

    Raises
    ------
    DatasetError
        If no clip has a label that all models have.
    """
    common = [
        label
        for label in classifiers[0].spec.labels
        if all(label in one.spec.labels for one in classifiers)
    ]
    counts = Counter(clip.emotion for clip in clips)
    shared = tuple(label for label in common if counts[label])
    if not shared or len(common) < 2:
        raise DatasetError(
            f"the clips have the labels {sorted(counts)}; expected some of the model's "
            f"{list(classifiers[0].spec.labels)}; say which is which by --map THEIRS=OURS"
        )
    left_out = {label: n for label, n in sorted(counts.items()) if label not in common}
    kept = tuple(clip for clip in clips if clip.emotion in common)
    return kept, shared if len(shared) > 1 else tuple(common), left_out


def renormalise(
    probabilities: NDArray[np.float64], labels: Sequence[str], wanted: Sequence[str]
) -> NDArray[np.float64]:
    """Return the probabilities of some labels, given that it is one of them.

    Parameters
    ----------
    probabilities
        Shape (n_segments, n_labels), in the order of `labels`.
    labels
        All labels.
    wanted
        Some of them.
    """
    # What is too small to matter must not be lost in 0 / 0.
    chosen = probabilities[:, [list(labels).index(label) for label in wanted]] + 1e-300
    result: NDArray[np.float64] = chosen / chosen.sum(axis=1, keepdims=True)
    return result


def _judge(
    classifiers: Sequence[Classifier],
    clips: Sequence[Clip],
    labels: tuple[str, ...],
    config: EvalConfig,
    progress: Progress | None,
) -> list[Judgement]:
    """Judge clips under every condition with models that share their features."""

    def extract(condition: str, model: Classifier = classifiers[0]) -> ClipFeatures:
        cut = partial(_cut, condition, config.seed, tuple(clips))
        if model.in_workers:
            hear = partial(_hear, model, cut)
            return extract_clip_features(clips, hear, jobs=config.jobs, progress=progress)
        return extract_clip_features(
            clips, cut, embed=model.extract_features, jobs=config.jobs, progress=progress
        )

    def judge(classifier: Classifier, features: Sequence[FloatArray]) -> NDArray[np.float64]:
        scores = classifier.score(np.concatenate(features))
        pieces = classifier.spec.find_calibration(config.target).probabilities(scores)
        if config.adapt != "none":
            adapter = classifier.find_adapter(config.target)
            names = _name_groups(clean.clips, config.adapt)
            groups = np.repeat(names, [len(rows) for rows in features])
            for name in np.unique(groups):
                pieces[groups == name] = adapter.adapt(pieces[groups == name])
        # Pieces of a clip are of one length, and count alike.
        first = np.cumsum([0, *map(len, features)])[:-1]
        means = np.add.reduceat(pieces, first) / [[len(rows)] for rows in features]
        return renormalise(means, classifier.spec.labels, labels)

    clean = extract(CLEAN)
    stressed: list[dict[str, NDArray[np.float64]]] = [{} for _ in classifiers]
    for condition in config.stress:
        # One condition at a time, so that memory does not grow with their number.
        features = clean.features if condition == CLEAN else extract(condition).features
        for classifier, found in zip(classifiers, stressed, strict=True):
            found[condition] = judge(classifier, features)
    converted: list[dict[str, NDArray[np.float64]]] = [{} for _ in classifiers]
    for classifier, found in zip(classifiers, converted, strict=True):
        for precision in config.precisions:
            with _multiplying(classifier, precision):
                found[precision] = judge(classifier, extract(CLEAN, classifier).features)
    return [
        Judgement(
            Predictions(one.name, labels, clean.clips, judge(one, clean.features)),
            under_stress,
            clean.hashes,
            clean.failed,
            _measure_mixes(one, clean, labels, config.seed) if config.mixes else None,
            in_other,
        )
        for one, under_stress, in_other in zip(classifiers, stressed, converted, strict=True)
    ]


@contextmanager
def _multiplying(classifier: Classifier, precision: Precision) -> Iterator[None]:
    """Let a model multiply another number type within the block."""
    before = classifier.precision
    try:
        classifier.use_precision(precision)
        yield
    finally:
        classifier.use_precision(before)


def _name_groups(clips: Sequence[Clip], adapt: Adaptation) -> NDArray[np.str_]:
    """Return by whose baseline each clip is judged."""
    if adapt == "auto":
        apart = any(clip.channel is not None for clip in clips)
        adapt = "channel" if apart else "recording"
        if all(clip.voice is not None for clip in clips):
            adapt = "speaker"
    if adapt == "corpus":
        return np.full(len(clips), adapt)
    # Of whom it is not known who speaks, a recording is a group of its own.
    return np.array(
        [
            (clip.voice if adapt == "speaker" else None)
            or (f"{clip.path}@{clip.channel}" if adapt == "channel" else str(clip.path))
            for clip in clips
        ]
    )


def _measure_mixes(
    classifier: Classifier, found: ClipFeatures, labels: tuple[str, ...], seed: int
) -> list[dict[str, Any]]:
    """Measure groups of clips, each clip by its first piece."""
    adapter, own = classifier.find_adapter(), classifier.spec.labels
    scores = classifier.score(np.stack([rows[0] for rows in found.features]))
    alone = classifier.spec.calibration.probabilities(scores)
    return measure_mixes(
        lambda group: renormalise(adapter.adapt(alone[group]), own, labels),
        renormalise(alone, own, labels),
        np.array([labels.index(clip.emotion) for clip in found.clips]),
        [clip.voice for clip in found.clips],
        labels,
        seed,
    )


def _hear(classifier: Classifier, cut: Cut, clip: Clip, waveform: FloatArray) -> FloatArray:
    return classifier.extract_features(cut(clip, waveform))


def _cut(
    condition: str, seed: int, pool: tuple[Clip, ...], clip: Clip, waveform: FloatArray
) -> list[FloatArray]:
    """Return a clip as it is heard under a condition, in equal pieces of 30 s at most."""
    if condition != CLEAN:
        rng = condition_rng(seed, condition, clip.name)
        waveform = apply_condition(waveform, condition, rng, Waveforms(pool))
    n_pieces = math.ceil(len(waveform) / (LONGEST_SEGMENT_S * SAMPLE_RATE))
    return np.array_split(waveform, n_pieces)


def describe_model(classifier: Classifier) -> dict[str, Any]:
    """Return what figures must say of their model: its name, hash and the version of `ser`.

    Parameters
    ----------
    classifier
        The model.
    """
    return {
        "schema": SCHEMA,
        "ser_version": __version__,
        "model": classifier.name,
        "sha256": classifier.sha256,
    }


def _manifest(classifier: Classifier) -> TrainingManifest | None:
    """Read the manifest of a model's folder, if it is the one that the model came with."""
    manifest = TrainingManifest.read(classifier.folder) if classifier.folder else None
    if manifest and manifest.digest() != classifier.spec.training.get("manifest_sha256"):
        raise ModelError(
            f"{classifier.folder}: {MANIFEST_FILE} is not the one that the model was saved with; "
            "copy the folder anew"
        )
    return manifest


def _refuse(
    classifier: Classifier,
    manifest: TrainingManifest | None,
    clips: Sequence[Clip],
    hashes: Sequence[str],
) -> None:
    if manifest is None:
        raise DatasetError(
            f"model {classifier.name}: does not say what it was trained on, so that it cannot be "
            "checked for overlap; expected a manifest.csv in its folder"
        )
    if known := manifest.describe_known(clips, hashes):
        raise DatasetError(
            f"model {classifier.name}: was {known} of those to measure on; choose clips that it "
            "does not know"
        )


def find_limits(judgement: Judgement) -> list[str]:
    """Return what limits the figures of predictions, whatever the model; a sentence each.

    Parameters
    ----------
    judgement
        What was predicted.
    """
    clips = judgement.predictions.clips
    voices = {clip.voice for clip in clips}
    warnings = []
    if None in voices:
        warnings.append("Speakers are unknown: intervals are from resampled clips, and too narrow.")
    elif len(voices) < FEW_UNITS:
        warnings.append(
            f"Intervals from {format_count(len(voices), 'speaker')} are too narrow."
            if len(voices) > 1
            else "There are no intervals: all clips are of one speaker."
        )
    if len({clip.emotion for clip in clips}) == 1:
        warnings.append("All clips have one label: UAR is its recall.")
    if judgement.failed:
        warnings.append(
            f"{format_count(len(judgement.failed), 'clip')} could not be decoded and stayed out."
        )
    return warnings


def _check_overlap(
    manifest: TrainingManifest | None,
    judgement: Judgement,
    target: Target,
    limits: Sequence[str],
) -> dict[str, Any]:
    """Return ``protocol``, ``overlap`` and ``warnings``: what a reader must know of the figures."""
    clips = judgement.predictions.clips
    voices = {clip.voice for clip in clips}
    warnings = []
    overlap: dict[str, Any] | None = None
    if manifest is None:
        protocol = UNKNOWN
        warnings.append(
            "The model does not say what it was trained on: it may know these clips or speakers."
        )
    else:
        speakers, n_clips = manifest.find_speakers(clips), manifest.count_clips(judgement.hashes)
        overlap = {"speakers": speakers, "clips": n_clips}
        unknown = manifest.explain_unknown()
        known = unknown is None and None not in voices
        protocol = SHARED if speakers or n_clips else APART if known else UNKNOWN
        if protocol == SHARED:
            warnings.append(
                f"The model was {manifest.describe_known(clips, judgement.hashes)} of these: its "
                "figures are too good."
            )
        elif unknown is not None:
            warnings.append(unknown)
    if target == "perceived":
        warnings.append(
            "These probabilities tell what listeners hear; the expected labels are what was "
            "intended. Compare them with listeners by their votes."
        )
    warnings += [*limits, *find_limits(judgement)]
    return {"protocol": protocol, "overlap": overlap, "warnings": warnings}
