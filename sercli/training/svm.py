"""Fitting an SVM on a corpus, and its calibration.

The speakers of ``train`` fit the model; its settings are searched among them, by cross-validation
that keeps every speaker in one fold. The speakers of ``dev`` fit the calibration. Those of
``test`` are not read.

Every clip is learned from as it is and as other recordings might have it: see `sercli.augment`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from itertools import combinations
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import GroupKFold
from sklearn.svm import SVC

from sercli.audio import SAMPLE_RATE, load_audio
from sercli.augment import Utterance, vary
from sercli.calibration import Calibration, fit_temperature
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.svm import SvmClassifier, pair_votes, rbf_kernel, standardise
from sercli.config import SvmConfig
from sercli.datasets import Clip, Corpus, class_indices
from sercli.errors import AudioError
from sercli.evaluation import ClipFeatures, extract_clip_features
from sercli.features import FEATURE_SET, MAX_BAND_LIMIT, extract_features
from sercli.filters import telephone_band
from sercli.labels import EMOTIONS
from sercli.metrics import evaluate_probabilities, unweighted_average_recall
from sercli.segmentation import find_speech
from sercli.vad import SpeechDetector
from sercli.version import __version__

FloatArray = NDArray[np.float32]
ClassArray = NDArray[np.integer[Any]]

# Versions of each clip that are learned from, and those that the calibration is fitted on.
TRAIN_VERSIONS = ("whole", "varied", "varied")
DEV_VERSIONS = ("whole", "speech", "telephone", "varied")

# Telephones end below 4 kHz: what a model learns from must be there in all recordings.
BAND_LIMIT = MAX_BAND_LIMIT

_NO_CALIBRATION = Calibration("none", np.eye(len(EMOTIONS)), np.zeros(len(EMOTIONS)))

Say = Callable[[str], None]
# Settings with the UAR that they gave: "C", "gamma_scale", "uar", "folds".
Trial = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """What is learned from: rows of features with their class and speaker.

    Parameters
    ----------
    features
        Shape (n_rows, n_features).
    classes
        Indices of labels, shape (n_rows,).
    speakers
        Shape (n_rows,).
    """

    features: FloatArray
    classes: ClassArray
    speakers: NDArray[np.str_]

    def take(self, indices: NDArray[np.integer[Any]]) -> "Rows":
        """Return some of the rows."""
        return Rows(self.features[indices], self.classes[indices], self.speakers[indices])


class Projection(NamedTuple):
    """From features to principal components; the names are those of the model's tensors.

    Parameters
    ----------
    mean, scale
        Of the training features, shape (n_features,).
    axes
        Shape (n_features, n_components).
    """

    mean: FloatArray
    scale: FloatArray
    axes: NDArray[np.float16]


def train_svm(
    corpus: Corpus,
    config: SvmConfig,
    *,
    say: Say = lambda _: None,
    progress: Callable[[int], None] | None = None,
) -> SvmClassifier:
    """Train and calibrate an SVM.

    Parameters
    ----------
    corpus
        With clips of the speakers of ``train`` and ``dev``.
    config
        What to search, and how.
    say
        Told what is done next and what was found.
    progress
        Called with the number of clips whose features are newly extracted.

    Returns
    -------
    SvmClassifier
        Its ``spec.training`` tells how it came about and what it reached on ``dev``.

    Raises
    ------
    DatasetError
        If a split is empty, or none of its clips can be decoded.
    """
    found = {
        split: extract_clip_features(
            corpus.select(split),  # type: ignore[arg-type]
            Versions(names, corpus.select(split), config.seed),  # type: ignore[arg-type]
            jobs=config.jobs,
            progress=progress,
        )
        for split, names in (("train", TRAIN_VERSIONS), ("dev", DEV_VERSIONS))
    }
    rows = as_rows(found["train"])
    say(f"searching settings on {len(rows.classes)} versions of the clips")
    trials = search_settings(rows, config, say)
    best = max(trials, key=lambda trial: trial["uar"])
    say(f"fitting with C={best['C']:g} and gamma scale {best['gamma_scale']:g}")
    tensors, gamma = _fit(rows, best, config.components)
    dev = as_rows(found["dev"])
    raw = SvmClassifier.from_tensors(_spec(gamma, _NO_CALIBRATION, {}), tensors)
    scores = raw.score(dev.features)
    training = {
        "corpus": corpus.name,
        "licence": corpus.licence,
        "fitted_on": _describe(found["train"]),
        "calibrated_on": _describe(found["dev"]),
        "versions": list(TRAIN_VERSIONS),
        "seed": config.seed,
        "folds": config.folds,
        "search": trials,
        "chosen": best,
        "dev": cross_fitted_figures(scores, dev, config.folds),
    }
    calibration = fit_temperature(scores, dev.classes)
    return SvmClassifier.from_tensors(_spec(gamma, calibration, training), tensors)


@dataclass(frozen=True)
class Versions:
    """Extracts features of several versions of a clip, shape (n_versions, n_features).

    Parameters
    ----------
    names
        Which versions: ``"whole"``, ``"speech"``, ``"telephone"`` or ``"varied"``.
    pool
        Clips of the same split: what is joined with a clip, and who talks in the background.
    seed
        Together with the name of a clip, decides all draws.
    """

    names: tuple[str, ...]
    pool: tuple[Clip, ...]
    seed: int

    def __call__(self, clip: Clip, waveform: FloatArray) -> FloatArray:
        """Return the features of a clip's versions."""
        rng = np.random.default_rng([self.seed, crc32(clip.path.stem.encode())])
        utterance = _find_utterance(waveform)
        versions = [self._make(name, clip, utterance, rng) for name in self.names]
        return np.stack([extract_features(version, BAND_LIMIT) for version in versions])

    def _make(
        self, name: str, clip: Clip, utterance: Utterance, rng: np.random.Generator
    ) -> FloatArray:
        if name == "whole":
            return utterance.waveform
        if name == "speech":
            return utterance.waveform[utterance.start : utterance.end]
        if name == "telephone":
            return telephone_band(utterance.waveform)
        others = [
            other
            for other in self.pool
            if (other.speaker, other.emotion) == (clip.speaker, clip.emotion) and other != clip
        ]

        def find_partner() -> Utterance:
            if not others:
                return utterance
            return _find_utterance(_load_or_silence(others[rng.integers(len(others))]))

        return vary(utterance, find_partner, _Talkers(self.pool), rng)


class _Talkers(Sequence[FloatArray]):
    """Waveforms of clips, decoded when they are asked for."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: Any) -> Any:
        return _load_or_silence(self._clips[index])


def _load_or_silence(clip: Clip) -> FloatArray:
    """Return a clip's waveform; a clip that is broken fails by itself, not those that borrow it."""
    try:
        return load_audio(clip.path)
    except AudioError:
        return np.zeros(SAMPLE_RATE, np.float32)


def _find_utterance(waveform: FloatArray) -> Utterance:
    spans = find_speech(waveform, _detector())
    start, end = (spans[0].start, spans[-1].end) if spans else (0, len(waveform))
    return Utterance(waveform, start, end)


@cache
def _detector() -> SpeechDetector:
    return SpeechDetector()  # one per process: it cannot be handed from one to another


def as_rows(found: ClipFeatures) -> Rows:
    """Return all versions of all clips, version by version."""
    n_versions = found.features.shape[1]
    classes = np.array(class_indices(found.clips, EMOTIONS))
    speakers = np.array([clip.speaker for clip in found.clips])
    return Rows(
        np.concatenate(found.features.swapaxes(0, 1)),
        np.tile(classes, n_versions),
        np.tile(speakers, n_versions),
    )


def search_settings(rows: Rows, config: SvmConfig, say: Say = lambda _: None) -> list[Trial]:
    """Return the UAR of every combination of settings, by cross-validation over speakers.

    Parameters
    ----------
    rows
        What is learned from.
    config
        The grid and the number of folds.
    say
        Told after each fold.
    """
    totals: dict[tuple[float, float], list[float]] = {}
    folds = GroupKFold(config.folds).split(rows.features, groups=rows.speakers)
    for number, (inside, outside) in enumerate(folds, 1):
        fitted, held_out = rows.take(inside), rows.take(outside)
        projection, components = _fit_projection(fitted.features, config.components)
        checked = _project(held_out.features, projection)
        for scale in config.gamma_scales:
            gamma = scale / components.var(axis=0, dtype=np.float64).sum()
            kernel = rbf_kernel(components, components, gamma).astype(np.float64)
            others = rbf_kernel(checked, components, gamma)
            # Fitting leaves the interpreter alone, and all fits share one kernel.
            results = Parallel(config.jobs, prefer="threads")(
                delayed(_fit_and_check)(kernel, fitted.classes, others, held_out.classes, c)
                for c in config.regularisations
            )
            for c, uar in zip(config.regularisations, results, strict=True):
                totals.setdefault((c, scale), []).append(uar)
        say(f"fold {number} of {config.folds} done")
    return [
        {"C": c, "gamma_scale": scale, "uar": float(np.mean(uars)), "folds": uars}
        for (c, scale), uars in totals.items()
    ]


def cross_fitted_figures(scores: FloatArray, rows: Rows, n_folds: int) -> dict[str, Any]:
    """Return figures of each version, calibrated on other speakers than those it is measured on.

    Parameters
    ----------
    scores
        Of all versions of the clips, shape (n_rows, n_labels).
    rows
        The clips, version by version.
    n_folds
        Of the speakers.
    """
    probabilities = np.empty(scores.shape)
    for inside, outside in GroupKFold(n_folds).split(scores, groups=rows.speakers):
        calibration = fit_temperature(scores[inside], rows.classes[inside])
        probabilities[outside] = calibration.probabilities(scores[outside])
    parts = np.split(np.arange(len(scores)), len(DEV_VERSIONS))
    return {
        version: evaluate_probabilities(rows.classes[part], probabilities[part], EMOTIONS)
        for version, part in zip(DEV_VERSIONS, parts, strict=True)
    }


def _fit(rows: Rows, settings: Trial, n_components: int) -> tuple[dict[str, NDArray[Any]], float]:
    """Return the tensors of a model, and its gamma."""
    projection, components = _fit_projection(rows.features, n_components)
    gamma = float(settings["gamma_scale"] / components.var(axis=0, dtype=np.float64).sum())
    kernel = rbf_kernel(components, components, gamma).astype(np.float64)
    machine = _fit_machine(kernel, rows.classes, settings["C"])
    tensors = dict(projection._asdict())
    tensors["support_vectors"] = components[machine.support_].astype(np.float16)
    tensors["coefficients"] = _dense_coefficients(machine).astype(np.float16)
    tensors["intercepts"] = machine.intercept_.astype(np.float32)
    return tensors, gamma


def _fit_projection(features: FloatArray, n_components: int) -> tuple[Projection, FloatArray]:
    """Return standardisation and principal axes, and the rows that they were fitted on."""
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = features.std(axis=0, dtype=np.float64).astype(np.float32)
    scale[scale == 0] = 1
    standard = standardise(features, mean, scale)
    # Exact both ways; the covariance is the smaller matrix only where there are many rows.
    solver = "covariance_eigh" if len(standard) > standard.shape[1] else "full"
    pca = PCA(min(n_components, *standard.shape), svd_solver=solver).fit(standard)
    projection = Projection(mean, scale, pca.components_.T.astype(np.float16))
    # Rounded as they will be stored: before fitting it costs nothing, after it moves the margins.
    return projection, _project(features, projection).astype(np.float16).astype(np.float32)


def _project(features: FloatArray, projection: Projection) -> FloatArray:
    standard = standardise(features, projection.mean, projection.scale)
    return standard @ projection.axes.astype(np.float32)


def _fit_machine(kernel: NDArray[np.float64], classes: ClassArray, c: float) -> SVC:
    machine = SVC(C=c, kernel="precomputed", class_weight="balanced", cache_size=500)
    return machine.fit(kernel, classes)


def _fit_and_check(
    kernel: NDArray[np.float64],
    classes: ClassArray,
    others: FloatArray,
    true_classes: ClassArray,
    c: float,
) -> float:
    machine = _fit_machine(kernel, classes, c)
    decisions = others[:, machine.support_] @ _dense_coefficients(machine) + machine.intercept_
    votes = np.tanh(decisions) @ pair_votes(len(machine.classes_))
    return unweighted_average_recall(true_classes, votes.argmax(axis=1))


def _dense_coefficients(machine: SVC) -> FloatArray:
    """Spread libsvm's packed dual coefficients over one column per pair of classes.

    Row ``j - 1`` of class ``i``'s vectors belongs to the pair (i, j) with i < j, row ``i`` of
    class ``j``'s vectors to the same pair (Chang and Lin 2011, section 4.1).
    """
    ends = np.cumsum(machine.n_support_)
    blocks = [slice(end - n, end) for end, n in zip(ends, machine.n_support_, strict=True)]
    pairs = list(combinations(range(len(blocks)), 2))
    dense = np.zeros((len(machine.support_), len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        dense[blocks[i], column] = machine.dual_coef_[j - 1, blocks[i]]
        dense[blocks[j], column] = machine.dual_coef_[i, blocks[j]]
    return dense


def _spec(gamma: float, calibration: Calibration, training: dict[str, Any]) -> ModelSpec:
    packages = ("numpy", "scikit-learn", "soxr", "soundfile", "silero-vad")
    return ModelSpec(
        family=SvmClassifier.family,
        labels=EMOTIONS,
        sample_rate=SAMPLE_RATE,
        band_limit=BAND_LIMIT,
        calibration=calibration,
        settings={"feature_set": FEATURE_SET, "gamma": gamma},
        training=training,
        versions={"sercli": __version__, **{name: version(name) for name in packages}},
    )


def _describe(found: ClipFeatures) -> dict[str, Any]:
    return {
        "clips": len(found.clips),
        "speakers": sorted({clip.speaker for clip in found.clips}),
        "failed": found.failed,
    }
