"""The parts of an SVM that are fitted: its projection, its machine, its coefficients."""

from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.svm import SVC

from sercli.arrays import DoubleArray, FloatArray, IntArray
from sercli.classifiers.svm import project, standardise

# libsvm may go round for ever among rows that are equal but for rounding, such as copies of a clip.
# Other fits take a few iterations per row.
ITERATIONS_PER_ROW: Final = 100
MIN_ITERATIONS: Final = 1_000_000

N_BINARY: Final = 2


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


def fit_projection(features: FloatArray, n_components: int) -> tuple[Projection, FloatArray]:
    """Fit standardisation and principal axes.

    Parameters
    ----------
    features
        Shape (n_rows, n_features).
    n_components
        Principal components that are kept, if there are as many.

    Returns
    -------
    projection : Projection
        With axes rounded as they are stored.
    components : ndarray of float32, shape (n_rows, n_components)
        Of the rows, rounded to 16 bits as support vectors are stored.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = features.std(axis=0, dtype=np.float64).astype(np.float32)
    scale[scale == 0] = 1
    standard = standardise(features, mean, scale)
    # Exact both ways; the covariance is the smaller matrix only where there are many rows.
    solver = "covariance_eigh" if len(standard) > standard.shape[1] else "full"
    pca = PCA(min(n_components, *standard.shape), svd_solver=solver).fit(standard)
    projection = Projection(mean, scale, pca.components_.T.astype(np.float16))
    # Rounded as they will be stored: before fitting it costs nothing, after it moves the margins.
    return projection, apply_projection(features, projection).astype(np.float16).astype(np.float32)


def apply_projection(features: FloatArray, projection: Projection) -> FloatArray:
    """Return the components of features, shape (n_rows, n_components).

    Parameters
    ----------
    features
        Shape (n_rows, n_features).
    projection
        Of `fit_projection`.
    """
    axes = projection.axes.astype(np.float32)
    return project(features, projection.mean, projection.scale, axes)


def find_gamma(components: FloatArray, scale: float) -> float:
    """Return a kernel's gamma.

    Parameters
    ----------
    components
        Shape (n_rows, n_components).
    scale
        In units of one over the total variance of the components.
    """
    return float(scale / components.var(axis=0, dtype=np.float64).sum())


def fit_machine(kernel: DoubleArray, classes: IntArray, c: float) -> SVC:
    """Fit a one-against-one machine, all classes weighing alike.

    Parameters
    ----------
    kernel
        Of the rows with each other, shape (n_rows, n_rows).
    classes
        Of the rows, shape (n_rows,).
    c
        Regularisation: the largest coefficient of a row.
    """
    machine = SVC(
        C=c,
        kernel="precomputed",
        class_weight="balanced",
        cache_size=500,
        max_iter=max(MIN_ITERATIONS, ITERATIONS_PER_ROW * len(classes)),
    )
    return machine.fit(kernel, classes)


def read_machine(machine: SVC) -> tuple[FloatArray, FloatArray]:
    """Return what decides between each pair of classes (i, j), above 0 for i.

    libsvm's packed dual coefficients are spread over one column per pair.

    Row ``j - 1`` of class ``i``'s vectors belongs to the pair (i, j) with i < j, row ``i`` of
    class ``j``'s vectors to the same pair (Chang and Lin 2011, section 4.1).

    Parameters
    ----------
    machine
        Fitted.

    Returns
    -------
    coefficients : ndarray of float32, shape (n_support_vectors, n_pairs)
    intercepts : ndarray of float32, shape (n_pairs,)
    """
    ends = np.cumsum(machine.n_support_)
    blocks = [slice(end - n, end) for end, n in zip(ends, machine.n_support_, strict=True)]
    pairs = list(combinations(range(len(blocks)), 2))
    dense = np.zeros((len(machine.support_), len(pairs)), np.float32)
    for column, (i, j) in enumerate(pairs):
        dense[blocks[i], column] = machine.dual_coef_[j - 1, blocks[i]]
        dense[blocks[j], column] = machine.dual_coef_[i, blocks[j]]
    # Of two classes, scikit-learn turns the signs, to be above 0 for the second.
    sign = np.float32(-1 if len(blocks) == N_BINARY else 1)
    return sign * dense, sign * machine.intercept_.astype(np.float32)
