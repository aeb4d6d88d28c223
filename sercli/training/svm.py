"""Fitting an SVM on a corpus, and its calibration.

Settings are searched by cross-validation that keeps every speaker in one fold. The calibration is
fitted on the scores of the held-out folds, so that it, too, knows only speakers that the model did
not. Then one model is fitted on all clips.

Every clip is learned from as it is and as other recordings might have it: see `sercli.augment`.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold

from sercli.audio import SAMPLE_RATE
from sercli.calibration import Calibration, fit_temperature
from sercli.classifiers.base import Classifier, ModelSpec
from sercli.classifiers.svm import SvmClassifier, pair_votes, rbf_kernel
from sercli.datasets.base import Clip, class_indices
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.metrics import unweighted_average_recall
from sercli.extraction import ClipFeatures, Progress, extract_clip_features
from sercli.features import FEATURE_SET, MAX_BAND_LIMIT
from sercli.training.adaptation import add_adapter
from sercli.training.cache import cache_clips
from sercli.training.config import SvmConfig
from sercli.training.folds import (
    GroupBy,
    check_labels,
    count_folds,
    cross_fitted_figures,
    group_clips,
)
from sercli.training.groups import Examples
from sercli.training.machine import (
    apply_projection,
    find_gamma,
    fit_machine,
    fit_projection,
    spread_coefficients,
)
from sercli.training.teachers import write_held_out
from sercli.training.trainer import Say, Trainer
from sercli.training.transposition import MIN_STRANGERS, Transposition, find_strangers
from sercli.training.unlabelled import Unlabelled
from sercli.training.versions import Versions
from sercli.version import __version__

FloatArray = NDArray[np.float32]
ClassArray = NDArray[np.integer[Any]]

# Versions of each clip that are learned from; and those if there is calm speech of strangers.
VERSIONS = ("whole", "varied", "varied", "varied")
TRANSPOSED = "transposed"
WITH_STRANGERS = ("whole", "varied", "varied", TRANSPOSED)

# Telephones end below 4 kHz: what a model learns from must be there in all recordings.
BAND_LIMIT = MAX_BAND_LIMIT


@dataclass(frozen=True)
class Rows:
    """What is learned from: rows of features with their class and group.

    Parameters
    ----------
    features
        Shape (n_rows, n_features).
    classes
        Indices of labels, shape (n_rows,).
    groups
        What cross-validation keeps together, such as the speaker, shape (n_rows,).
    labels
        Names of the classes.
    """

    features: FloatArray
    classes: ClassArray
    groups: NDArray[np.str_]
    labels: tuple[str, ...]

    def take(self, indices: NDArray[np.integer[Any]]) -> "Rows":
        """Return some of the rows."""
        return Rows(
            self.features[indices], self.classes[indices], self.groups[indices], self.labels
        )


@dataclass(frozen=True, eq=False)
class Trial:
    """Settings, and what they gave on speakers held out.

    Parameters
    ----------
    regularisation, gamma_scale
        The settings; see `SvmConfig`.
    classes
        True classes of the rows, shape (n_rows,).
    scores
        Shape (n_rows, n_labels); of each row by the model of the fold that held its speaker out.
    folds
        Rows of each fold.
    """

    regularisation: float
    gamma_scale: float
    classes: ClassArray
    scores: FloatArray
    folds: list[NDArray[np.integer[Any]]]

    @property
    def fold_uars(self) -> list[float]:
        """UAR of each fold."""
        predicted = self.scores.argmax(axis=1)
        return [unweighted_average_recall(self.classes[i], predicted[i]) for i in self.folds]

    @property
    def uar(self) -> float:
        """Mean UAR of the folds."""
        return float(np.mean(self.fold_uars))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "C": self.regularisation,
            "gamma_scale": self.gamma_scale,
            "uar": self.uar,
            "folds": self.fold_uars,
        }


class FittedSvm(NamedTuple):
    """A model, and what others like it say of clips that they did not learn from.

    Parameters
    ----------
    classifier
        Its ``spec.training`` tells its settings and what it reached on clips held out.
    held_out
        Calibrated probabilities of all versions of clips that it learned from, each by the model of
        a fold that did not, shape (n_versions, n_clips, n_labels).
    """

    classifier: SvmClassifier
    held_out: NDArray[np.float64]


def extract_versions(
    clips: Sequence[Clip], config: SvmConfig, progress: Progress | None = None
) -> ClipFeatures:
    """Extract the features of all versions of clips, a row for each version.

    Parameters
    ----------
    clips
        What is learned from; each may be heard in the background of another.
    config
        Seed and number of processes.
    progress
        Called with the number of clips that are newly done.

    Raises
    ------
    DatasetError
        If not one clip can be decoded.
    """
    versions = Versions(VERSIONS, tuple(clips), BAND_LIMIT, config.seed)
    return extract_clip_features(clips, versions, jobs=config.jobs, progress=progress)


def fit_svm(
    found: ClipFeatures,
    labels: Sequence[str],
    config: SvmConfig,
    *,
    strangers: FloatArray | None = None,
    say: Say = lambda _: None,
) -> FittedSvm:
    """Search settings, fit and calibrate an SVM.

    Parameters
    ----------
    found
        Of `extract_versions`.
    labels
        Of the clips, in the order of the model's probabilities.
    config
        What to search, and how; with fewer speakers than folds, each speaker is a fold.
    strangers
        What their calm speech has in common, of
        `sercli.training.transposition.find_strangers`, or None.
    say
        Told what is done next and what was found.

    Raises
    ------
    ConfigError
        If there are strangers, and no label is calm.
    DatasetError
        If speakers are unknown, there is only one, an emotion occurs with the speakers of one
        fold only, or there are strangers, and no clip is calm.
    """
    rows = as_rows(found, labels, config.group_by)
    config = replace(config, folds=count_folds(rows.groups, config.folds, config.group_by))
    versions = VERSIONS
    if strangers is not None:
        versions = WITH_STRANGERS
        rows = transpose_rows(rows, found.clips, strangers, config)
    with warnings.catch_warnings():
        # What is left after so many iterations are equal rows, of which any choice is as good.
        warnings.simplefilter("ignore", ConvergenceWarning)
        say(f"searching settings on {len(rows.classes)} versions of the clips")
        trials = search_settings(rows, config, say)
        best = max(trials, key=lambda trial: trial.uar)
        say(f"fitting with C={best.regularisation:g} and gamma scale {best.gamma_scale:g}")
        tensors, gamma = _fit(rows, best, config.components)
    training = {
        "clips": len(found.clips),
        "speakers": len({clip.voice for clip in found.clips} - {None}),
        "versions": list(versions),
        "seed": config.seed,
        "folds": config.folds,
        "group_by": config.group_by,
        "search": [trial.to_dict() for trial in trials],
        "chosen": best.to_dict(),
        "held_out": cross_fitted_figures(
            best.scores,
            rows.classes,
            rows.groups,
            rows.labels,
            config.folds,
            lambda scores, classes, _: fit_temperature(scores, classes),
            versions,
        ),
    }
    calibration = fit_temperature(best.scores, rows.classes)
    spec = _spec(tuple(labels), gamma, calibration, training)
    held_out = calibration.probabilities(best.scores)
    held_out = held_out.reshape(-1, len(found.clips), len(labels))
    return FittedSvm(SvmClassifier.from_tensors(spec, tensors), held_out)


def as_rows(found: ClipFeatures, labels: Sequence[str], group_by: GroupBy = "speaker") -> Rows:
    """Return all versions of all clips, version by version.

    Parameters
    ----------
    found
        Of `extract_versions`.
    labels
        Of the clips.
    group_by
        What stays together in cross-validation.

    Raises
    ------
    DatasetError
        If clips are to be grouped by speakers that are not known.
    """
    features = np.stack(found.features)
    n_versions = features.shape[1]
    classes = np.array(class_indices(found.clips, labels))
    groups = group_clips(found.clips, group_by)
    return Rows(
        np.concatenate(features.swapaxes(0, 1)),
        np.tile(classes, n_versions),
        np.tile(groups, n_versions),
        tuple(labels),
    )


def transpose_rows(
    rows: Rows, clips: Sequence[Clip], strangers: FloatArray, config: SvmConfig
) -> Rows:
    """Return rows of which the last version is as strangers might say it.

    Parameters
    ----------
    rows
        All versions of all clips, version by version, as they are first.
    clips
        Of which they are.
    strangers
        As of `fit_svm`; those of a fold are others than those of all other folds, so that who is
        held out is heard as strangers whom nobody learned from.
    config
        How folds are made, and the seed.

    Raises
    ------
    ConfigError
        If no label is calm.
    DatasetError
        If no clip is.
    """
    n_clips, features = len(clips), rows.features.copy()
    whole, last = slice(n_clips), slice(len(features) - n_clips, None)
    nothing = np.zeros(features.shape[1], bool)  # is a deviation
    moving = Transposition.of(clips, rows.labels, features[whole], strangers, nothing)
    for number, (_, outside) in enumerate(_split(rows, config)):
        mine = outside[outside < n_clips]
        own = replace(moving, strangers=strangers[number :: config.folds])
        features[last][mine] = own.draw(features[last][mine], mine, [config.seed, number], 1.0)
    return replace(rows, features=features)


def search_settings(rows: Rows, config: SvmConfig, say: Say = lambda _: None) -> list[Trial]:
    """Try every combination of settings by cross-validation over speakers.

    Parameters
    ----------
    rows
        What is learned from.
    config
        The grid and the number of folds.
    say
        Told after each fold.

    Raises
    ------
    DatasetError
        If an emotion occurs with the speakers of one fold only.
    """
    grid = list(product(config.regularisations, config.gamma_scales))
    scores = {
        settings: np.empty((len(rows.classes), len(rows.labels)), np.float32) for settings in grid
    }
    folds = _split(rows, config)
    for number, (inside, outside) in enumerate(folds, 1):
        fitted = rows.take(inside)
        check_labels(fitted.classes, rows.labels)
        projection, components = fit_projection(fitted.features, config.components)
        held_out = apply_projection(rows.features[outside], projection)
        for scale in config.gamma_scales:
            gamma = find_gamma(components, scale)
            kernel = rbf_kernel(components, components, gamma).astype(np.float64)
            others = rbf_kernel(held_out, components, gamma)
            # Fitting leaves the interpreter alone, and all fits share one kernel.
            results = Parallel(config.jobs, prefer="threads")(
                delayed(_fit_and_score)(kernel, fitted.classes, others, c)
                for c in config.regularisations
            )
            for c, result in zip(config.regularisations, results, strict=True):
                scores[c, scale][outside] = result
        say(f"fold {number} of {config.folds} done")
    parts = [outside for _, outside in folds]
    return [Trial(c, scale, rows.classes, scores[c, scale], parts) for c, scale in grid]


def _split(
    rows: Rows, config: SvmConfig
) -> list[tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]]]:
    """Return what is learned from and what is judged in each fold."""
    return list(GroupKFold(config.folds).split(rows.features, groups=rows.groups))


def _fit(rows: Rows, settings: Trial, n_components: int) -> tuple[dict[str, NDArray[Any]], float]:
    """Return the tensors of a model, and its gamma."""
    projection, components = fit_projection(rows.features, n_components)
    gamma = find_gamma(components, settings.gamma_scale)
    kernel = rbf_kernel(components, components, gamma).astype(np.float64)
    machine = fit_machine(kernel, rows.classes, settings.regularisation)
    tensors = dict(projection._asdict())
    tensors["support_vectors"] = components[machine.support_].astype(np.float16)
    tensors["coefficients"] = spread_coefficients(machine).astype(np.float16)
    tensors["intercepts"] = machine.intercept_.astype(np.float32)
    return tensors, gamma


def _fit_and_score(
    kernel: NDArray[np.float64], classes: ClassArray, others: FloatArray, c: float
) -> FloatArray:
    machine = fit_machine(kernel, classes, c)
    decisions = others[:, machine.support_] @ spread_coefficients(machine) + machine.intercept_
    scores: FloatArray = np.tanh(decisions) @ pair_votes(len(machine.classes_))
    return scores


def _spec(
    labels: tuple[str, ...], gamma: float, calibration: Calibration, training: dict[str, Any]
) -> ModelSpec:
    packages = ("numpy", "scikit-learn", "soxr", "soundfile", "silero-vad")
    return ModelSpec(
        family=SvmClassifier.family,
        labels=labels,
        sample_rate=SAMPLE_RATE,
        band_limit=BAND_LIMIT,
        calibration=calibration,
        settings={"feature_set": FEATURE_SET, "gamma": gamma},
        training=training,
        versions={"sercli": __version__, **{name: version(name) for name in packages}},
    )


@dataclass(frozen=True, eq=False)
class SvmTrainer(Trainer[ClipFeatures]):
    """Trains SVMs.

    Parameters
    ----------
    config
        How to train.
    say
        Told what is done next and what was found.
    progress
        Called with the number of clips whose features are newly extracted.
    adapter
        Whether what judges by baselines is learned, too.
    calm
        Calm speech of strangers, as whom clips are heard, too, or None; see
        `sercli.training.transposition`.
    """

    uses_dev = False

    config: SvmConfig
    say: Say = lambda _: None
    progress: Progress | None = None
    adapter: bool = False
    calm: Unlabelled | None = None

    @property
    def failed(self) -> Mapping[str, str]:
        """Error of each recording of calm speech that could not be decoded."""
        return {} if self.calm is None else self.calm.failed

    def check_judged(self, clips: Sequence[Clip]) -> None:
        """Refuse calm speech that holds clips which are to be judged."""
        if self.calm is None:
            return
        self.say("looking for speech in what nobody labelled")
        self.say(self.calm.describe())
        if clips:
            self.calm.refuse_judged(cache_clips(clips, self.calm.cache, jobs=self.config.jobs))

    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[ClipFeatures]:
        """Extract the features of all versions of clips; see `extract_versions`."""
        found = [extract_versions(clips, self.config, self.progress) for clips in parts]
        if self.calm is not None:
            for part in found:  # of which folds are judged
                self.calm.refuse_judged(part)
        return found

    def join(self, parts: Sequence[ClipFeatures]) -> ClipFeatures:
        """Return the clips of several parts as one."""
        return ClipFeatures(
            tuple(clip for part in parts for clip in part.clips),
            tuple(rows for part in parts for rows in part.features),
            tuple(digest for part in parts for digest in part.hashes),
            {place: error for part in parts for place, error in part.failed.items()},
        )

    def fit(
        self,
        found: ClipFeatures,
        labels: Sequence[str],
        folder: Path,
        dev: ClipFeatures | None = None,
    ) -> SvmClassifier:
        """Train and calibrate a model; see `fit_svm`."""
        fitted = fit_svm(found, labels, self.config, strangers=self._strangers, say=self.say)
        classifier = fitted.classifier
        if self.calm is not None:
            training = {**classifier.spec.training, "calm": self.calm.facts}
            classifier.spec = replace(classifier.spec, training=training)
        write_held_out(folder, found.hashes, labels, fitted.held_out[0])
        if self.adapter:
            # What is heard as many strangers has no baseline.
            versions = classifier.spec.training["versions"]
            of_one = [
                said
                for said, name in zip(fitted.held_out, versions, strict=True)
                if name != TRANSPOSED
            ]
            examples = Examples.gather(found.clips, labels, *of_one)
            add_adapter(classifier, examples, self.config.seed, self.say)
        return classifier

    def fit_fold(
        self, found: ClipFeatures, labels: Sequence[str], folder: Path, number: int
    ) -> SvmClassifier:
        """Train and calibrate a model; its settings, too, come from the other folds alone."""
        return fit_svm(found, labels, self.config, strangers=self._strangers).classifier

    def judge(self, model: Classifier, found: ClipFeatures) -> NDArray[np.float64]:
        """Return a model's probabilities for clips as they are, shape (n_clips, n_labels)."""
        scores = model.score(np.stack([rows[0] for rows in found.features]))
        return model.spec.calibration.probabilities(scores)

    def make_manifest(self, found: ClipFeatures) -> TrainingManifest:
        """Return the manifest of a model that learned from clips, and from calm speech."""
        others = [] if self.calm is None else [self.calm.manifest]
        return super().make_manifest(found).join(others)

    @cached_property
    def _strangers(self) -> FloatArray | None:
        """What the calm speech of each stranger has in common, or None."""
        if self.calm is None:
            return None
        from sercli.training.guides import extract_clean_features  # which imports PyTorch

        self.say("extracting what strangers' calm speech has in common")
        cached = self.calm.cached
        rows = extract_clean_features(cached, BAND_LIMIT, self.config.jobs)
        least = max(MIN_STRANGERS, self.config.folds)
        return find_strangers(cached.clips, rows, np.zeros(rows.shape[1], bool), least)
