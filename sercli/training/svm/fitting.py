"""Fitting and calibrating an SVM on a corpus.

Settings are searched by cross-validation that keeps every speaker in one fold. The calibration is
fitted on the held-out scores, which come from models that were not trained on the speaker. The
final model is then fitted on all clips.

Every clip is used unchanged and in augmented versions; see `sercli.audio.augment`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from sercli.arrays import DoubleArray, FloatArray, IntArray
from sercli.audio import SAMPLE_RATE
from sercli.calibration import Calibration, fit_temperature
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.svm import SvmClassifier, pair_votes, rbf_kernel
from sercli.datasets.extraction import ClipFeatures
from sercli.datasets.matching import count_speakers
from sercli.evaluation.metrics import unweighted_average_recall
from sercli.features.vector import FEATURE_SET
from sercli.training.config import SvmConfig
from sercli.training.folds import (
    check_labels,
    count_folds,
    cross_fitted_figures,
    split_groups,
)
from sercli.training.svm.machine import (
    apply_projection,
    fill_kernel,
    find_gamma,
    fit_machine,
    fit_projection,
    read_machine,
)
from sercli.training.svm.rows import Rows, as_rows, transpose_rows
from sercli.training.svm.versions import BAND_LIMIT, VERSIONS, WITH_STRANGERS
from sercli.training.trainer import Say
from sercli.version import __version__


@dataclass(frozen=True, eq=False)
class Trial:
    """A combination of settings, with its held-out scores.

    Parameters
    ----------
    regularisation, gamma_scale
        The settings; see `SvmConfig`.
    classes
        True classes of the rows, shape (n_rows,).
    scores
        Scores of each row by the model that was not trained on its fold, shape (n_rows, n_labels).
    folds
        Indices of the held-out rows of each fold.
    """

    regularisation: float
    gamma_scale: float
    classes: IntArray
    scores: FloatArray
    folds: list[IntArray]

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
        """Return settings and UARs as a JSON-serialisable dict."""
        return {
            "C": self.regularisation,
            "gamma_scale": self.gamma_scale,
            "uar": self.uar,
            "folds": self.fold_uars,
        }


def fit_svm(
    found: ClipFeatures,
    labels: Sequence[str],
    config: SvmConfig,
    *,
    strangers: FloatArray | None = None,
    say: Say = lambda _: None,
) -> tuple[SvmClassifier, DoubleArray]:
    """Search settings, then fit and calibrate an SVM.

    Parameters
    ----------
    found
        Features from `extract_versions`.
    labels
        Labels of the clips, in the order of the model's probabilities.
    config
        Training settings; with fewer speakers than folds, each speaker is a fold.
    strangers
        Mean calm speech of each stranger, from `sercli.training.transposition.find_strangers`,
        shape (n_strangers, n_features), or None.
    say
        Called with each message.

    Returns
    -------
    classifier : SvmClassifier
        The model; its ``spec.training`` records settings and figures on held-out clips.
    held_out : ndarray of float64, shape (n_versions, n_clips, n_labels)
        Calibrated probabilities of all versions of the clips, each by the model that was not
        trained on the clip's fold.

    Raises
    ------
    ConfigError
        If there are strangers but no label is calm.
    DatasetError
        If speakers are unknown, there is only one, an emotion occurs only with the speakers of one
        fold, or there are strangers but no clip is calm.
    """
    rows = as_rows(found, labels, config.group_by)
    config = replace(config, folds=count_folds(rows.groups, config.folds, config.group_by))
    versions = VERSIONS if strangers is None else WITH_STRANGERS
    transpose = None
    if strangers is not None:
        transpose = partial(transpose_rows, rows, found.clips, strangers, config)
    with warnings.catch_warnings():
        # After that many iterations only equal rows are left undecided, and any choice will do.
        warnings.simplefilter("ignore", ConvergenceWarning)
        say(f"searching hyperparameters on {len(rows.classes)} versions of the clips")
        trials = search_settings(rows, config, say, transpose)
        best = max(trials, key=lambda trial: trial.uar)
        say(f"fitting with C={best.regularisation:g} and gamma scale {best.gamma_scale:g}")
        tensors, gamma = _fit(transpose() if transpose else rows, best, config.components)
    training = {
        "clips": len(found.clips),
        "speakers": count_speakers(found.clips),
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
    return SvmClassifier.from_tensors(spec, tensors), held_out


def search_settings(
    rows: Rows,
    config: SvmConfig,
    say: Say = lambda _: None,
    transpose: Callable[[IntArray], Rows] | None = None,
) -> list[Trial]:
    """Evaluate every combination of settings by grouped cross-validation.

    Parameters
    ----------
    rows
        Training rows.
    config
        Training settings, of which the grid, the number of folds and others are used.
    say
        Called with a message after each fold.
    transpose
        Function from the indices of the training rows of a fold to all rows for that fold, of which
        the training rows depend on no others if clips are grouped by speaker; None: `rows` as they
        are.

    Returns
    -------
    list of Trial
        A trial for each combination of settings.

    Raises
    ------
    DatasetError
        If an emotion occurs only with the speakers of one fold.
    """
    grid = list(product(config.regularisations, config.gamma_scales))
    scores = {
        settings: np.empty((len(rows.classes), len(rows.labels)), np.float32) for settings in grid
    }
    folds = split_groups(rows.groups, config.folds)
    for inside, _ in folds:  # before anything is fitted
        check_labels(rows.classes[inside], rows.labels, config.group_by)
    for number, (inside, outside) in enumerate(folds, 1):
        every = rows if transpose is None else transpose(inside)
        fitted = every.take(inside)
        projection, components = fit_projection(fitted.features, config.components)
        held_out = apply_projection(every.features[outside], projection)
        kernel = None
        for scale in config.gamma_scales:
            gamma = find_gamma(components, scale)
            kernel = fill_kernel(components, gamma, kernel)
            others = rbf_kernel(held_out, components, gamma)
            # Threads, since fitting releases the GIL and all fits can share one kernel matrix.
            results = Parallel(config.jobs, prefer="threads")(
                delayed(_fit_and_score)(kernel, fitted.classes, others, c)
                for c in config.regularisations
            )
            for c, result in zip(config.regularisations, results, strict=True):
                scores[c, scale][outside] = result
        say(f"fold {number} of {config.folds} done")
    parts = [outside for _, outside in folds]
    return [Trial(c, scale, rows.classes, scores[c, scale], parts) for c, scale in grid]


def _fit(rows: Rows, settings: Trial, n_components: int) -> tuple[dict[str, NDArray[Any]], float]:
    """Return the tensors of a model, and its gamma."""
    projection, components = fit_projection(rows.features, n_components)
    gamma = find_gamma(components, settings.gamma_scale)
    kernel = fill_kernel(components, gamma)
    machine = fit_machine(kernel, rows.classes, settings.regularisation)
    tensors = dict(projection._asdict())
    tensors["support_vectors"] = components[machine.support_].astype(np.float16)
    coefficients, tensors["intercepts"] = read_machine(machine)
    tensors["coefficients"] = coefficients.astype(np.float16)
    return tensors, gamma


def _fit_and_score(
    kernel: DoubleArray, classes: IntArray, others: FloatArray, c: float
) -> FloatArray:
    machine = fit_machine(kernel, classes, c)
    coefficients, intercepts = read_machine(machine)
    decisions = others[:, machine.support_] @ coefficients + intercepts
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
