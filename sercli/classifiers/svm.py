"""A support vector machine with an RBF kernel on spectral statistics.

The model is stored as plain arrays, and its decisions are a few matrix products for all segments
and all pairs of classes. Only training needs scikit-learn.
"""

import copy
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import FloatArray, Tensors
from sercli.classifiers.base import ModelSpec, TensorClassifier, check_scores
from sercli.classifiers.processes import Extract, FeatureProcesses
from sercli.errors import ConfigError, ModelError
from sercli.features.vector import FEATURE_SET, MAX_BAND_LIMIT, extract_rows, feature_names
from sercli.json_text import is_number

# Standardised features are clipped to this: outliers would put a segment far from everything.
MAX_DEVIATION = 3.0
# Seconds of audio in a batch: each reads all support vectors.
BATCH_S = 120.0
# Segments whose kernel is computed at once: the memory for it does not grow with the batch.
BLOCK_SIZE = 64
# Accepted names of its only device.
DEVICES = ("auto", "cpu")


class SvmClassifier(TensorClassifier):
    """One-against-one SVM on the principal components of standardised features, scaled to length 1.

    Parameters
    ----------
    spec
        Specification, whose ``settings`` hold ``gamma`` and ``feature_set``.
    mean, scale
        Mean and scale of the training features, shape (n_features,).
    axes
        Principal axes, shape (n_features, n_components).
    support_vectors
        Support vectors, shape (n_vectors, n_components).
    coefficients
        Dual coefficients, shape (n_vectors, n_pairs), pairs in the order (0, 1), (0, 2), ...,
        (1, 2), ...
    intercepts
        Intercepts of the pairs, shape (n_pairs,).
    """

    family = "svm"

    def __init__(
        self,
        spec: ModelSpec,
        mean: FloatArray,
        scale: FloatArray,
        axes: NDArray[np.float16],
        support_vectors: NDArray[np.float16],
        coefficients: NDArray[np.float16],
        intercepts: FloatArray,
    ) -> None:
        super().__init__(spec)
        self._stored: dict[str, NDArray[Any]] = {
            "mean": mean,
            "scale": scale,
            "axes": axes,
            "support_vectors": support_vectors,
            "coefficients": coefficients,
            "intercepts": intercepts,
        }
        self._mean = mean
        self._scale = scale
        self._axes = axes.astype(np.float32)
        # With thousands of vectors and few segments, half of the time goes into reading the
        # vectors; in Fortran order, they are read contiguously.
        self._vectors = np.asfortranarray(support_vectors, np.float32)
        self._squares = np.square(self._vectors).sum(axis=1)
        # Thousands of terms of either sign cancel: in float32, their sum would depend on the order
        # of summation, and so on the batch.
        self._coefficients = coefficients.astype(np.float64)
        self._intercepts = intercepts
        self._gamma = float(spec.settings["gamma"])
        self._votes = pair_votes(len(spec.labels))
        self._extract: Extract = partial(extract_rows, band_limit=spec.band_limit)

    @property
    def front_end(self) -> Hashable:
        """The feature set and the band limit."""
        return self.spec.settings["feature_set"], self.spec.band_limit

    @classmethod
    def from_tensors(cls, spec: ModelSpec, tensors: Tensors, device: str = "auto") -> Self:
        """Build the model from its stored weights.

        Raises
        ------
        ModelError
            If the feature set is of another version, a setting is invalid, or the tensors do not
            fit.
        ConfigError
            If the device is not the CPU.
        """
        if device not in DEVICES:
            raise ConfigError(
                f"device is {device!r}; a model of the family svm runs on the CPU: expected "
                f"{' or '.join(DEVICES)}"
            )
        found = spec.settings.get("feature_set")
        if found != FEATURE_SET:
            raise ModelError(
                f"is trained on the features {found!r}, this version computes {FEATURE_SET!r}; "
                "train it again, or use the version that trained it"
            )
        gamma = spec.settings.get("gamma")
        if not is_number(gamma) or gamma <= 0:
            raise ModelError(f"its setting gamma is {gamma!r}; expected a number above 0")
        if not 0 < spec.band_limit <= MAX_BAND_LIMIT:
            raise ModelError(
                f"band_limit is {spec.band_limit} Hz; its features end at {MAX_BAND_LIMIT} Hz"
            )
        n_features = len(feature_names())
        n_pairs = len(pair_votes(len(spec.labels)))
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        n_vectors, n_components, *_ = *shapes.get("support_vectors", ()), 0, 0
        expected = {
            "mean": (n_features,),
            "scale": (n_features,),
            "axes": (n_features, n_components),
            "support_vectors": (n_vectors, n_components),
            "coefficients": (n_vectors, n_pairs),
            "intercepts": (n_pairs,),
        }
        if shapes != expected:
            raise ModelError(f"its weights have the shapes {shapes}; expected {expected}")
        check_scores(spec)
        return cls(spec, **tensors)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights in their stored form."""
        return dict(self._stored)

    @property
    def batch_seconds(self) -> float:
        """Best batch size of one worker, in seconds of audio."""
        return BATCH_S

    @contextmanager
    def replicas(
        self, n_workers: int, n_threads: int, batch_seconds: float
    ) -> Iterator[Sequence[Self]]:
        """Yield models that extract features in other processes; see `Classifier`."""
        with super().replicas(n_workers, n_threads, batch_seconds) as replicas:
            if n_workers == 1:
                yield replicas
                return
            with FeatureProcesses(self._extract, n_workers, n_threads) as processes:
                replica = copy.copy(self)
                replica._extract = processes
                yield [replica] * n_workers

    def extract_features(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        """Return spectral statistics, shape (n_segments, n_features)."""
        return self._extract(waveforms)

    def score(self, features: FloatArray) -> FloatArray:
        """Return the score of each class, shape (n_segments, n_labels).

        A class's score is the sum over its pairs of the hyperbolic tangent of the decision value:
        between a count of votes and a sum of margins. It keeps the ranks of the votes and leaves
        fewer ties.
        """
        return np.tanh(self.decide(features)) @ self._votes

    def decide(self, features: FloatArray) -> FloatArray:
        """Return the decision values of all pairs of classes, shape (n_segments, n_pairs)."""
        rows = project(features, self._mean, self._scale, self._axes)
        decisions = np.empty((len(rows), len(self._intercepts)), np.float32)
        for first in range(0, len(rows), BLOCK_SIZE):
            block = slice(first, first + BLOCK_SIZE)
            kernel = rbf_kernel(rows[block], self._vectors, self._gamma, self._squares)
            decisions[block] = kernel.astype(np.float64) @ self._coefficients + self._intercepts
        return decisions


def standardise(features: FloatArray, mean: FloatArray, scale: FloatArray) -> FloatArray:
    """Return features centred, scaled and clipped to `MAX_DEVIATION`, of the same shape."""
    deviations: FloatArray = (features - mean) / scale
    return np.clip(deviations, -MAX_DEVIATION, MAX_DEVIATION)


def project(
    features: FloatArray, mean: FloatArray, scale: FloatArray, axes: FloatArray
) -> FloatArray:
    """Return the principal components of standardised features, scaled to length 1.

    Distances on the unit sphere are bounded. Otherwise, a recording unlike all training data could
    be so far from every support vector that the intercepts alone would decide.

    Parameters
    ----------
    features
        Features, shape (n_segments, n_features).
    mean, scale
        Mean and scale of the training features, shape (n_features,).
    axes
        Principal axes, shape (n_features, n_components).

    Returns
    -------
    ndarray of float32, shape (n_segments, n_components)
    """
    components = standardise(features, mean, scale) @ axes
    lengths = np.linalg.norm(components, axis=1, keepdims=True)
    directions: FloatArray = components / np.maximum(lengths, np.float32(1e-6))
    return directions


def rbf_kernel(
    rows: FloatArray, columns: FloatArray, gamma: float, squares: FloatArray | None = None
) -> FloatArray:
    """Return exp(-gamma * squared distance) of all pairs, shape (n_rows, n_columns).

    Parameters
    ----------
    rows, columns
        Vectors, shapes (n_rows, n_components) and (n_columns, n_components).
    gamma
        Coefficient of the squared distance.
    squares
        Squared lengths of the columns, if known: for a single row, computing them would take as
        long as everything else.
    """
    if squares is None:
        squares = np.square(columns).sum(axis=1)
    distances = -2 * rows @ columns.T
    distances += np.square(rows).sum(axis=1)[:, None]
    distances += squares
    np.maximum(distances, 0, out=distances)
    distances *= -gamma
    kernel: FloatArray = np.exp(distances, out=distances)
    return kernel


def pair_votes(n_classes: int) -> FloatArray:
    """Return a row for each pair (i, j) of classes, with 1 in column i and -1 in column j."""
    pairs = list(combinations(range(n_classes), 2))
    votes = np.zeros((len(pairs), n_classes), np.float32)
    for row, (i, j) in enumerate(pairs):
        votes[row, i], votes[row, j] = 1, -1
    return votes
