"""The fitted parts of an SVM: projection, machine and coefficients."""

from itertools import combinations
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.svm import SVC

from sercli.arrays import DoubleArray, FloatArray, IntArray
from sercli.classifiers.svm import project, rbf_kernel, standardise

# libsvm may loop forever on rows that are equal but for rounding, such as copies of a clip. Other
# fits take a few iterations per row.
ITERATIONS_PER_ROW: Final = 100
MIN_ITERATIONS: Final = 1_000_000

N_BINARY: Final = 2

# Rows of the kernel matrix that are computed at a time.
ROWS_PER_BLOCK: Final = 1024


class Projection(NamedTuple):
    """Map from features to principal components; field names are those of the model's tensors.

    Parameters
    ----------
    mean, scale
        Mean and standard deviation of the training features, shape (n_features,).
    axes
        Principal axes, shape (n_features, n_components).
    """

    mean: FloatArray
    scale: FloatArray
    axes: NDArray[np.float16]


def fit_projection(features: FloatArray, n_components: int) -> tuple[Projection, FloatArray]:
    """Fit standardisation and principal axes.

    Parameters
    ----------
    features
        Training features, shape (n_rows, n_features).
    n_components
        Maximum number of principal components.

    Returns
    -------
    projection : Projection
        The projection, with axes rounded to 16 bits as they are stored.
    components : ndarray of float32, shape (n_rows, n_components)
        Components of the rows, rounded to 16 bits as support vectors are stored.
    """
    mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = features.std(axis=0, dtype=np.float64).astype(np.float32)
    scale[scale == 0] = 1
    standard = standardise(features, mean, scale)
    # Both solvers are exact; the covariance matrix is smaller only if there are many rows.
    solver = "covariance_eigh" if len(standard) > standard.shape[1] else "full"
    pca = PCA(min(n_components, *standard.shape), svd_solver=solver).fit(standard)
    projection = Projection(mean, scale, pca.components_.T.astype(np.float16))
    # Rounded as stored, and before fitting: rounding after it would move the margins.
    return projection, apply_projection(features, projection).astype(np.float16).astype(np.float32)


def apply_projection(features: FloatArray, projection: Projection) -> FloatArray:
    """Return the components of features, shape (n_rows, n_components).

    Parameters
    ----------
    features
        Features, shape (n_rows, n_features).
    projection
        Projection from `fit_projection`.
    """
    axes = projection.axes.astype(np.float32)
    return project(features, projection.mean, projection.scale, axes)


def find_gamma(components: FloatArray, scale: float) -> float:
    """Return the gamma of an RBF kernel.

    Parameters
    ----------
    components
        Principal components, shape (n_rows, n_components).
    scale
        Gamma in units of one over the total variance of the components.
    """
    return float(scale / components.var(axis=0, dtype=np.float64).sum())


def fill_kernel(
    components: FloatArray, gamma: float, kernel: DoubleArray | None = None
) -> DoubleArray:
    """Return the kernel matrix of the rows, shape (n_rows, n_rows).

    It is most of the memory that a training takes, so it is computed in blocks, in the double
    precision that libsvm needs.

    Parameters
    ----------
    components
        Principal components, shape (n_rows, n_components).
    gamma
        Gamma of the kernel.
    kernel
        Matrix of the same shape to overwrite and return; by default a new one.
    """
    if kernel is None:
        kernel = np.empty((len(components), len(components)))
    for start in range(0, len(components), ROWS_PER_BLOCK):
        block = slice(start, start + ROWS_PER_BLOCK)
        kernel[block] = rbf_kernel(components[block], components, gamma)
    return kernel


def fit_machine(kernel: DoubleArray, classes: IntArray, c: float) -> SVC:
    """Fit a one-against-one SVM with balanced class weights.

    Parameters
    ----------
    kernel
        Kernel matrix of the rows, shape (n_rows, n_rows).
    classes
        Classes of the rows, shape (n_rows,).
    c
        Regularisation parameter C: the upper bound of a row's coefficient, before class weights.
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
    """Return the decision functions of all pairs of classes (i, j), positive for class i.

    libsvm's packed dual coefficients are unpacked into one column per pair. For the pair (i, j)
    with i < j, row ``j - 1`` has the coefficients of class ``i``'s support vectors, and row ``i``
    those of class ``j``'s (Chang and Lin 2011, section 4.1).

    Parameters
    ----------
    machine
        The fitted SVM.

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
    # With two classes, scikit-learn flips the signs, to be positive for the second class.
    sign = np.float32(-1 if len(blocks) == N_BINARY else 1)
    return sign * dense, sign * machine.intercept_.astype(np.float32)
