"""Classification of clips as `ser annotate` does it: clean, under stress and with baselines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, FloatArray, split_by
from sercli.classifiers.base import Classifier
from sercli.config import Adaptation, EvalConfig, Precision
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import cut_equally
from sercli.datasets.extraction import ClipFeatures, Cut, Progress, extract_clip_features
from sercli.datasets.matching import join_voices
from sercli.errors import DatasetError
from sercli.evaluation.measurement import ClassifiedClips
from sercli.evaluation.mixes import measure_mixes
from sercli.evaluation.predictions import Predictions
from sercli.evaluation.stress import apply_condition, condition_rng, needs_talkers
from sercli.evaluation.talkers import Pool, draw_talkers, find_other_speakers, name_people

CLEAN: Final = "clean"


def renormalise(
    probabilities: DoubleArray, labels: Sequence[str], wanted: Sequence[str]
) -> DoubleArray:
    """Return the probabilities of some labels, given that one of these is right.

    Parameters
    ----------
    probabilities
        Probabilities of all labels, shape (n_segments, n_labels), in the order of `labels`.
    labels
        All labels.
    wanted
        The labels to keep, in the order of the result.
    """
    # Avoids 0 / 0 where all wanted labels have the probability 0.
    chosen = probabilities[:, [list(labels).index(label) for label in wanted]] + 1e-300
    result: DoubleArray = chosen / chosen.sum(axis=1, keepdims=True)
    return result


def classify_clips(
    classifiers: Sequence[Classifier],
    clips: Sequence[Clip],
    labels: tuple[str, ...],
    config: EvalConfig,
    progress: Progress | None,
) -> list[ClassifiedClips]:
    """Classify clips under every condition with models that share their features.

    Parameters
    ----------
    classifiers
        Models with equal front ends.
    clips
        Clips to decode. Those of other labels are not scored but contribute to the baselines of
        their groups, as they do in annotation, where labels are unknown.
    labels
        Scored labels.
    config
        Which conditions, number types and mixes to add to the clean clips.
    progress
        Callback, as for `sercli.evaluation.run.evaluate_all`.

    Returns
    -------
    list of ClassifiedClips
        The predictions of each model, in the order of the models.
    """
    scoring = _Scoring(clips, labels, config, progress)
    clean = scoring.extract(classifiers[0])
    measured = clean.select(scoring.find_scored(clean.clips))
    places = {clip.place for clip in scoring.to_score}
    failed = {place: error for place, error in clean.failed.items() if place in places}
    if not measured.clips:  # those that could be decoded have other labels
        first = next(iter(failed.values()))
        raise DatasetError(f"none of {len(places)} clips could be decoded; the first: {first}")
    stressed: list[dict[str, DoubleArray]] = [{} for _ in classifiers]
    for condition in config.stress:
        # One condition at a time, so that memory does not grow with the number of conditions.
        found = clean if condition == CLEAN else scoring.extract(classifiers[0], condition)
        for classifier, under_stress in zip(classifiers, stressed, strict=True):
            under_stress[condition] = scoring.classify(classifier, found)
    n_alone = scoring.count_alone(measured.clips)
    classified = []
    for one, under_stress in zip(classifiers, stressed, strict=True):
        converted: dict[str, DoubleArray] = {}
        for precision in config.precisions:
            with using_precision(one, precision):
                converted[precision] = scoring.classify(one, scoring.extract(one))
        own = one.spec.labels
        written = Predictions(one.name, own, measured.clips, scoring.annotate(one, clean))
        probabilities = renormalise(written.probabilities, own, labels)
        classified.append(
            ClassifiedClips(
                Predictions(one.name, labels, measured.clips, probabilities, measured.hashes),
                stressed=under_stress,
                failed=failed,
                mixes=_measure_mixes(one, measured, labels, config.seed) if config.mixes else None,
                converted=converted,
                written=written,
                n_alone=n_alone,
                notes=clean.notes,
            )
        )
    return classified


class _Scoring:
    """Feature extraction and classification of a set of clips.

    Parameters
    ----------
    clips, labels, config, progress
        As for `classify_clips`.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: tuple[str, ...],
        config: EvalConfig,
        progress: Progress | None,
    ) -> None:
        self._clips = clips
        self._labels = labels
        self._config = config
        self._progress = progress
        self.to_score = [clip for clip in clips if clip.emotion in labels]
        self._people = name_people(clips)

    def find_scored(self, clips: Sequence[Clip]) -> list[int]:
        """Return the indices of the clips that are scored."""
        return [index for index, clip in enumerate(clips) if clip.emotion in self._labels]

    def extract(self, model: Classifier, condition: str = CLEAN) -> ClipFeatures:
        """Return the clips' features, which all models with the same front end share."""
        config = self._config
        talks = needs_talkers(condition)
        pool = Pool(self.to_score, config.seed, self._people) if talks else None
        cut = partial(_cut, condition, config.seed, pool)
        embed = None if model.in_workers else model.extract_features
        return extract_clip_features(
            self._clips,
            partial(_extract, model, cut) if embed is None else cut,
            embed=embed,
            jobs=config.jobs,
            progress=self._progress,
        )

    def annotate(self, model: Classifier, found: ClipFeatures) -> DoubleArray:
        """Return a model's probabilities for the scored clips, over all of its labels."""
        lengths = [len(rows) for rows in found.features]
        scores = model.score(np.concatenate(found.features))
        calibration = model.spec.find_calibration(self._config.target)
        pieces = model.check_finite(calibration.probabilities(scores))
        adapt = choose_adaptation(model, self._config, self._clips)
        if adapt != "none":
            adapter = model.find_adapter(self._config.target)
            groups = np.repeat(name_groups(found.clips, adapt), lengths)
            for members in split_by(groups):
                pieces[members] = adapter.adapt(pieces[members])
        # The pieces of a clip have equal lengths and equal weights: the sum is normalised.
        sums = np.add.reduceat(pieces, np.cumsum([0, *lengths])[:-1])
        means: DoubleArray = sums / sums.sum(axis=1, keepdims=True)
        return means[self.find_scored(found.clips)]

    def classify(self, model: Classifier, found: ClipFeatures) -> DoubleArray:
        """Return a model's probabilities for the scored clips, over the scored labels."""
        return renormalise(self.annotate(model, found), model.spec.labels, self._labels)

    def count_alone(self, clips: Sequence[Clip]) -> int:
        """Return for how many clips the babble may contain the clip's own speaker."""
        if not any(map(needs_talkers, self._config.stress)):
            return 0
        talkers = draw_talkers(self.to_score, self._config.seed)
        people = {self._people[clip.voice] for clip in talkers}
        return sum(not find_other_speakers(self._people[clip.voice], people) for clip in clips)


@contextmanager
def using_precision(classifier: Classifier, precision: Precision) -> Iterator[None]:
    """Let a model compute with another number type within the block.

    Parameters
    ----------
    classifier
        The model.
    precision
        The number type.

    Raises
    ------
    ConfigError
        If the model does not support it.
    """
    before = classifier.precision
    try:
        classifier.use_precision(precision)
        yield
    finally:
        classifier.use_precision(before)


def choose_adaptation(
    classifier: Classifier, config: EvalConfig, clips: Sequence[Clip]
) -> Adaptation:
    """Return the kind of group that gives the baselines, with ``"auto"`` resolved.

    Parameters
    ----------
    classifier
        The model.
    config
        Settings of the evaluation.
    clips
        The clips that are decoded.
    """
    usual: Adaptation = "speaker"
    if any(clip.voice is None for clip in clips):
        apart = any(clip.channel is not None for clip in clips)
        usual = "channel" if apart else "recording"
    return classifier.resolve_adaptation(config.adapt, config.target, usual)


def name_groups(clips: Sequence[Clip], adapt: Adaptation) -> NDArray[np.str_]:
    """Return the group whose baseline each clip is adapted to.

    Parameters
    ----------
    clips
        The clips.
    adapt
        Kind of group, as in `EvalConfig`, other than ``"none"`` and ``"auto"``.

    Returns
    -------
    ndarray of str, shape (n_clips,)
        Name of each clip's group.
    """
    if adapt == "corpus":
        return np.full(len(clips), adapt)
    # Where the speaker is unknown, the recording is the group.
    return np.array(
        [
            (voice if adapt == "speaker" else None)
            or (f"{clip.path}@{clip.channel}" if adapt == "channel" else str(clip.path))
            for voice, clip in zip(join_voices(clips), clips, strict=True)
        ]
    )


def _measure_mixes(
    classifier: Classifier, found: ClipFeatures, labels: tuple[str, ...], seed: int
) -> list[dict[str, Any]]:
    """Measure the effect of baselines; each clip is represented by its first piece."""
    adapter, own = classifier.find_adapter(), classifier.spec.labels
    scores = classifier.score(np.stack([rows[0] for rows in found.features]))
    alone = classifier.spec.calibration.probabilities(scores)
    return measure_mixes(
        lambda group: renormalise(adapter.adapt(alone[group]), own, labels),
        renormalise(alone, own, labels),
        np.array([labels.index(clip.emotion) for clip in found.clips]),
        join_voices(found.clips),
        labels,
        seed,
    )


def _extract(classifier: Classifier, cut: Cut, clip: Clip, waveform: FloatArray) -> FloatArray:
    return classifier.extract_features(cut(clip, waveform))


def _cut(
    condition: str, seed: int, pool: Pool | None, clip: Clip, waveform: FloatArray
) -> list[FloatArray]:
    """Return a clip under a condition, cut into pieces of equal length."""
    if condition != CLEAN:
        rng = condition_rng(seed, condition, clip.name)
        talkers = pool.find_talkers(clip) if pool is not None else ()
        waveform = apply_condition(waveform, condition, rng, talkers)
    return cut_equally(waveform)
