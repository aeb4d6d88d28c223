"""Type aliases of NumPy arrays by the kind of number that they hold, and grouping of elements."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Waveforms, features and weights.
FloatArray = NDArray[np.float32]
# Scores and probabilities.
DoubleArray = NDArray[np.float64]
# Any floating-point type.
RealArray = NDArray[np.floating[Any]]
# Indices of classes, rows or groups.
IntArray = NDArray[np.integer[Any]]
# Largest number in half precision.
LARGEST_HALF = float(np.finfo(np.float16).max)
# Parts of a model by name.
Tensors = Mapping[str, NDArray[Any]]


def store_weights(weights: NDArray[Any]) -> NDArray[Any]:
    """Return weights in the number type in which models store them.

    Parameters
    ----------
    weights
        Floating-point numbers of any shape.

    Returns
    -------
    ndarray
        Matrices in float16, unless a value exceeds its range; these, and vectors, in float32.
    """
    fits = weights.ndim > 1 and np.abs(weights).max(initial=0.0) <= LARGEST_HALF
    return weights.astype(np.float16 if fits else np.float32)


def split_by(keys: NDArray[Any]) -> Iterator[IntArray]:
    """Yield the indices of equal keys, group by group, in the order of the sorted keys.

    Parameters
    ----------
    keys
        Array of keys, such as names of speakers, shape (n,).

    Yields
    ------
    ndarray of int
        Indices of one key, in ascending order.
    """
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    ends = np.flatnonzero(keys[order][1:] != keys[order][:-1]) + 1
    yield from np.split(order, ends)
