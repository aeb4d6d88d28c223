"""Fitting an SVM on a corpus, and its calibration.

Settings are searched by cross-validation that keeps every speaker in one fold. The calibration is
fitted on the scores of the held-out folds, so that it, too, knows only speakers that the model did
not. Then one model is fitted on all clips.

Every clip is learned from as it is and as other recordings might have it: see `sercli.augment`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import product
from typing import Any, Literal

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold

from sercli.audio import SAMPLE_RATE
from sercli.calibration import Calibration, fit_temperature
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.svm import SvmClassifier, pair_votes, rbf_kernel
from sercli.config import SvmConfig
from sercli.datasets.base import Clip, class_indices
from sercli.errors import DatasetError
from sercli.evaluation.metrics import evaluate_probabilities, unweighted_average_recall
from sercli.extraction import ClipFeatures, Progress, extract_clip_features
from sercli.features import FEATURE_SET, MAX_BAND_LIMIT
from sercli.training.machine import (
    apply_projection,
    find_gamma,
    fit_machine,
    fit_projection,
    spread_coefficients,
)
from sercli.training.versions import Versions
from sercli.version import __version__

FloatArray = NDArray[np.float32]
ClassArray = NDArray[np.integer[Any]]

# Versions of each clip that are learned from.
VERSIONS = ("whole", "varied", "varied", "varied")

# Telephones end below 4 kHz: what a model learns from must be there in all recordings.
BAND_LIMIT = MAX_BAND_LIMIT

# Fewer cannot be told apart by leaving one out.
MIN_GROUPS = 2

Say = Callable[[str], None]


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
    say: Say = lambda _: None,
) -> SvmClassifier:
    """Search settings, fit and calibrate an SVM.

    Parameters
    ----------
    found
        Of `extract_versions`.
    labels
        Of the clips, in the order of the model's probabilities.
    config
        What to search, and how; with fewer speakers than folds, each speaker is a fold.
    say
        Told what is done next and what was found.

    Returns
    -------
    SvmClassifier
        Its ``spec.training`` tells its settings and what it reached on clips held out.

    Raises
    ------
    DatasetError
        If speakers are unknown, there is only one, or an emotion occurs with the speakers of one
        fold only.
    """
    rows = as_rows(found, labels, config.group_by)
    n_groups = len(np.unique(rows.groups))
    if n_groups < MIN_GROUPS:
        raise DatasetError(
            f"found clips of a single {config.group_by}; expected {MIN_GROUPS} or more to "
            "cross-validate by"
        )
    config = replace(config, folds=min(config.folds, n_groups))
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
        "versions": list(VERSIONS),
        "seed": config.seed,
        "folds": config.folds,
        "group_by": config.group_by,
        "search": [trial.to_dict() for trial in trials],
        "chosen": best.to_dict(),
        "held_out": cross_fitted_figures(best.scores, rows, config.folds),
    }
    calibration = fit_temperature(best.scores, rows.classes)
    spec = _spec(tuple(labels), gamma, calibration, training)
    return SvmClassifier.from_tensors(spec, tensors)


def as_rows(
    found: ClipFeatures, labels: Sequence[str], group_by: Literal["speaker", "clip"] = "speaker"
) -> Rows:
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
    if group_by == "clip":
        groups = np.arange(len(found.clips)).astype(str)
    elif all(clip.voice for clip in found.clips):
        groups = np.array([clip.voice for clip in found.clips])
    else:
        raise DatasetError(
            "speakers are unknown; expected a speaker for every clip, or a random split"
        )
    return Rows(
        np.concatenate(features.swapaxes(0, 1)),
        np.tile(classes, n_versions),
        np.tile(groups, n_versions),
        tuple(labels),
    )


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
    folds = list(GroupKFold(config.folds).split(rows.features, groups=rows.groups))
    for number, (inside, outside) in enumerate(folds, 1):
        fitted = rows.take(inside)
        if missing := set(range(len(rows.labels))) - set(fitted.classes.tolist()):
            names = ", ".join(rows.labels[index] for index in sorted(missing))
            raise DatasetError(
                f"without the speakers of a fold, no clips of {names} are left to learn from; "
                "expected every emotion of several speakers"
            )
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


def cross_fitted_figures(scores: FloatArray, rows: Rows, n_folds: int) -> dict[str, Any]:
    """Return figures of clips as they are and varied, of speakers that no part of it has heard.

    Parameters
    ----------
    scores
        Held out: of models that did not hear the speaker, shape (n_rows, n_labels).
    rows
        The clips, version by version.
    n_folds
        Of the cross-validation.
    """
    probabilities = np.empty(scores.shape)
    for inside, outside in GroupKFold(n_folds).split(scores, groups=rows.groups):
        calibration = fit_temperature(scores[inside], rows.classes[inside])
        probabilities[outside] = calibration.probabilities(scores[outside])
    n_clips = len(scores) // len(VERSIONS)
    parts = {"whole": slice(n_clips), "varied": slice(n_clips, None)}
    return {
        name: evaluate_probabilities(rows.classes[part], probabilities[part], rows.labels)
        for name, part in parts.items()
    }


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
