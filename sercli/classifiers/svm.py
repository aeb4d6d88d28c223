"""A support vector machine with an RBF kernel on spectral statistics.

The machine is kept as plain arrays. Its scores are one matrix product for all segments and all
pairs of classes, so that using a model needs no scikit-learn; training does.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sercli.classifiers.base import Classifier, ModelSpec, Tensors
from sercli.errors import ModelError
from sercli.features import FEATURE_SET, extract_features, feature_names

# Standardised features beyond this are outliers that would only make a segment look like nothing.
MAX_DEVIATION = 5.0


class SvmClassifier(Classifier):
    """One-against-one SVM; its scores are the decision values of all pairs of classes.

    Parameters
    ----------
    spec
        ``settings`` holds ``gamma`` and ``feature_set``.
    mean, scale
        Of the training features, shape (n_features,).
    support_vectors
        Standardised, shape (n_vectors, n_features).
    coefficients
        Shape (n_vectors, n_pairs), pairs in the order (0, 1), (0, 2), ..., (1, 2), ...
    intercepts
        Shape (n_pairs,).
    """

    family = "svm"

    def __init__(
        self,
        spec: ModelSpec,
        mean: NDArray[np.float32],
        scale: NDArray[np.float32],
        support_vectors: NDArray[np.floating[Any]],
        coefficients: NDArray[np.float32],
        intercepts: NDArray[np.float32],
    ) -> None:
        super().__init__(spec)
        self._mean = mean
        self._scale = scale
        self._vectors = support_vectors.astype(np.float32)
        self._stored_vectors = support_vectors
        self._norms = np.square(self._vectors).sum(axis=1)
        self._coefficients = coefficients
        self._intercepts = intercepts
        self._gamma = float(spec.settings["gamma"])

    @classmethod
    def from_tensors(cls, spec: ModelSpec, tensors: Tensors) -> Self:
        """Build the model from its stored weights.

        Raises
        ------
        ModelError
            If the features are another version's, or the tensors do not fit.
        """
        found = spec.settings.get("feature_set")
        if found != FEATURE_SET:
            raise ModelError(
                f"is trained on feature set {found!r}, this version computes {FEATURE_SET!r}; "
                "train it anew or use the version that trained it"
            )
        if not isinstance(spec.settings.get("gamma"), int | float):
            raise ModelError("settings lack the number gamma")
        n_features = len(feature_names())
        n_pairs = len(spec.labels) * (len(spec.labels) - 1) // 2
        n_vectors = tensors["support_vectors"].shape[0] if "support_vectors" in tensors else 0
        expected = {
            "mean": (n_features,),
            "scale": (n_features,),
            "support_vectors": (n_vectors, n_features),
            "coefficients": (n_vectors, n_pairs),
            "intercepts": (n_pairs,),
        }
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != expected:
            raise ModelError(f"weights have the shapes {shapes}; expected {expected}")
        return cls(spec, **tensors)

    @classmethod
    def fit(
        cls,
        spec: ModelSpec,
        features: NDArray[np.float32],
        classes: NDArray[np.integer[Any]],
        *,
        regularisation: float,
    ) -> Self:
        """Train on features.

        Parameters
        ----------
        spec
            Its ``settings`` give ``gamma``.
        features
            Shape (n_segments, n_features).
        classes
            Index into the labels, shape (n_segments,); every label must occur.
        regularisation
            The SVM's C.
        """
        from sklearn.svm import SVC

        mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        scale = features.std(axis=0, dtype=np.float64).astype(np.float32)
        scale[scale == 0] = 1
        # Trained on what is stored: rounding to half precision costs nothing then.
        rounded = standardise(features, mean, scale).astype(np.float16)
        machine = SVC(
            C=regularisation,
            gamma=spec.settings["gamma"],
            class_weight="balanced",
            cache_size=1000,
        )
        machine.fit(rounded.astype(np.float64), classes)
        return cls(
            spec,
            mean,
            scale,
            rounded[machine.support_],
            _dense_coefficients(machine.dual_coef_, machine.n_support_),
            machine.intercept_.astype(np.float32),
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights as they are stored."""
        return {
            "mean": self._mean,
            "scale": self._scale,
            "support_vectors": self._stored_vectors,
            "coefficients": self._coefficients,
            "intercepts": self._intercepts,
        }

    def extract_features(self, waveforms: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return spectral statistics, shape (n_segments, n_features)."""
        limit = self.spec.band_limit
        return np.stack([extract_features(waveform, limit) for waveform in waveforms])

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the decision values of all pairs of classes, shape (n_segments, n_pairs)."""
        rows = standardise(features, self._mean, self._scale)
        distances = np.square(rows).sum(axis=1)[:, None] + self._norms - 2 * rows @ self._vectors.T
        kernel = np.exp(-self._gamma * np.maximum(distances, 0))
        result: NDArray[np.float32] = kernel @ self._coefficients + self._intercepts
        return result


def standardise(
    features: NDArray[np.float32], mean: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return features centred, scaled and clipped to `MAX_DEVIATION`, of the same shape."""
    deviations: NDArray[np.float32] = (features - mean) / scale
    return np.clip(deviations, -MAX_DEVIATION, MAX_DEVIATION)


def _dense_coefficients(
    dual: NDArray[np.float64], n_support: NDArray[np.integer[Any]]
) -> NDArray[np.float32]:
    """Spread libsvm's packed dual coefficients over one column per pair of classes.

    Row ``j - 1`` of class ``i``'s vectors belongs to the pair (i, j) for j > i, row ``i`` of
    class ``j``'s vectors to the same pair (Chang and Lin 2011, section 4.1).
    """
    ends = np.cumsum(n_support)
    blocks = [slice(end - n, end) for end, n in zip(ends, n_support, strict=True)]
    pairs = list(combinations(range(len(n_support)), 2))
    dense = np.zeros((int(ends[-1]), len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        dense[blocks[i], column] = dual[j - 1, blocks[i]]
        dense[blocks[j], column] = dual[i, blocks[j]]
    return dense
