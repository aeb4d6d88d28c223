"""Summaries of frame descriptors over time: statistics, modulation spectra and run lengths."""

from functools import cache, lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import FloatArray, IntArray
from sercli.features.spectral import FRAME_RATE

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
MOMENT_FLOOR: Final = 1e-3  # keeps the skewness of a constant finite
MODULATION_EDGES_HZ: Final = (0.5, 1.5, 3.0, 5.0, 8.0, 12.0, 18.0, 28.0)
MODULATION_FFT: Final = 512  # least size of the FFT: 0.2 Hz per bin
STATISTICS: Final = (
    *("mean", "deviation", "skewness", "magnitude", "trend"),
    *(f"quantile{100 * q:.0f}" for q in QUANTILES),
)


class Block(NamedTuple):
    """A table of features: summaries (rows) of descriptors (columns)."""

    source: str  # first part of the features' names
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: FloatArray  # (rows, columns)


def slopes(values: FloatArray) -> FloatArray:
    """Return regression slopes over five frames (Furui 1986).

    Parameters
    ----------
    values : FloatArray, shape (T, D)
        D descriptors of T frames.

    Returns
    -------
    FloatArray, shape (T, D)
        Change per frame.
    """
    first, last = values[:1], values[-1:]
    padded = np.concatenate((first, first, values, last, last))
    return (2.0 * (padded[4:] - padded[:-4]) + padded[3:-1] - padded[1:-3]) / np.float32(10.0)


def statistics(source: str, columns: tuple[str, ...], values: FloatArray) -> Block:
    """Return the `STATISTICS` of descriptors over frames.

    Parameters
    ----------
    source : str
        Kind of frames, for the names of the features.
    columns : tuple[str, ...]
        Names of the D descriptors.
    values : FloatArray, shape (T, D)
        D descriptors of T frames, at least one.

    Returns
    -------
    Block
        Values of shape (len(STATISTICS), D), in the units of the descriptors; `magnitude` is the
        mean absolute value, and `trend` half the change from the first frame to the last along
        the least-squares line.
    """
    rows = np.ascontiguousarray(values.T)
    count = rows.shape[1]
    share, line = _row_weights(count)
    mean = rows @ share
    centred = rows - mean[:, None]
    squares = centred * centred
    deviation = np.sqrt(squares @ share)
    skewness = (squares * centred) @ share / (deviation**3 + MOMENT_FLOOR)
    trend = centred @ line
    rows.sort(axis=1)
    quantiles = find_quantiles(rows, QUANTILES).T
    magnitude = np.abs(rows, out=rows) @ share
    table = np.array((mean, deviation, skewness, magnitude, trend, *quantiles), np.float32)
    return Block(source, STATISTICS, columns, table)


@lru_cache(maxsize=16)
def _row_weights(count: int) -> tuple[FloatArray, FloatArray]:
    """Return vectors whose products with rows are their means and trends."""
    time = np.linspace(-1.0, 1.0, count, dtype=np.float32)
    return np.full(count, 1.0 / count, np.float32), time / max(float(time @ time), 1.0)


def find_quantiles(ordered: FloatArray, shares: tuple[float, ...]) -> FloatArray:
    """Return quantiles between the nearest values, as `np.quantile`, which is slow for few values.

    Parameters
    ----------
    ordered : FloatArray, shape (..., T)
        Values in ascending order.
    shares : tuple[float, ...]
        Share of the values below each of Q quantiles.

    Returns
    -------
    FloatArray, shape (..., Q)
    """
    below, above, part = _find_places(ordered.shape[-1], shares)
    values: FloatArray = ordered[..., below] * (1 - part) + ordered[..., above] * part
    return values


@lru_cache(maxsize=16)
def _find_places(count: int, shares: tuple[float, ...]) -> tuple[IntArray, IntArray, FloatArray]:
    """Return the indices around each quantile, and its distance from the first."""
    place = np.array(shares) * (count - 1)
    below = place.astype(np.intp)
    return below, np.minimum(below + 1, count - 1), (place - below).astype(np.float32)


def median(values: FloatArray) -> float:
    """Return the median, as `np.median`, which is slow for few values."""
    ordered = np.sort(values)
    middle = len(ordered) // 2
    return float(ordered[middle] + ordered[-middle - 1]) / 2.0


@cache
def modulation_names() -> tuple[str, ...]:
    """Return the names of the rows of `modulation`."""
    return tuple(f"from{edge:g}hz" for edge in MODULATION_EDGES_HZ[:-1])


def modulation(values: FloatArray, floors: FloatArray) -> FloatArray:
    """Return the log power of trajectories in bands of modulation frequency.

    Parameters
    ----------
    values : FloatArray, shape (T, D)
        D descriptors of T frames.
    floors : FloatArray, shape (D,)
        Added to the power, in the squared units of the values.

    Returns
    -------
    FloatArray, shape (len(MODULATION_EDGES_HZ) - 1, D)
    """
    count = len(values)
    size = max(MODULATION_FFT, 1 << (count - 1).bit_length())
    taper = np.hanning(count + 2)[1:-1].astype(np.float32)[:, None]
    centred = values - values.mean(axis=0)
    # NumPy computes in single precision only where it divides by the size.
    spectrum = np.fft.rfft(centred * taper, size, axis=0, norm="forward")
    power = spectrum.real**2 + spectrum.imag**2
    edges = np.rint(np.array(MODULATION_EDGES_HZ) * size / FRAME_RATE).astype(np.intp)
    sums = np.add.reduceat(power[: edges[-1]], edges[:-1], axis=0)
    levels: FloatArray = np.log(sums * np.float32(2.0 * size / count) + floors)
    return levels


def runs(flags: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the lengths of the runs of true values, in frames; a single 0 if there are none."""
    padded = np.zeros(len(flags) + 2, dtype=np.bool_)
    padded[1:-1] = flags
    change = np.flatnonzero(padded[1:] != padded[:-1])
    return change[1::2] - change[::2] if len(change) else np.zeros(1, dtype=np.intp)
