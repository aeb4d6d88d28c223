"""Confidence intervals by resampling whole speakers.

Clips of one speaker are alike, so intervals from resampled clips would be far too narrow. Instead,
speakers are drawn with replacement, each with all their clips (a cluster bootstrap, Field and Welsh
2007); where speakers are unknown, clips are drawn. Intervals are bias-corrected and accelerated
(BCa, Efron 1987), or percentile intervals where there are so many units that it no longer matters.

Resampling itself raises a calibration error, so most draws exceed the error of the full sample, and
a BCa interval would depend on the few that do not. Its interval is therefore the percentiles minus
the bias, which is the mean of the draws minus the figure. This is an interval for the error
measured on so many segments, part of which even exact probabilities have. The same interval is used
for any figure whose own interval would be a single point or would exclude the figure.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, IntArray, RealArray
from sercli.evaluation.metrics import (
    N_BINS,
    average_ratios,
    rate_counts,
    segment_brier,
    segment_nll,
)

FIGURES: Final = ("uar", "accuracy", "macro_f1", "ece", "nll", "brier")
# Figures that resampling itself raises.
BIASED: Final = ("ece",)
# Largest value of figures that may exceed 1.
LIMITS: Final = {"nll": float("inf"), "brier": 2.0}
LEVEL: Final = 0.95
N_RESAMPLES: Final = 2000
# With fewer speakers than this, a warning says that intervals are too narrow; those of up to
# twice as many are so to a lesser degree, see `sercli.reporting.content.FEW_SPEAKERS`.
FEW_UNITS: Final = 10
# With more units than this, the jackknife for the acceleration takes too long.
MAX_ACCELERATED: Final = 1000
# Most numbers (resamples times units) that are held in memory at once.
BLOCK_NUMBERS: Final = 4_000_000

Interval = tuple[float, float]


class Resampled:
    """Figures of a set of segments under any weighting of its units.

    Parameters
    ----------
    y_true
        Indices of the true labels, shape (n_segments,).
    probabilities
        Predicted probabilities, shape (n_segments, n_labels).
    units
        Index of each segment's unit (its speaker, or the segment), shape (n_segments,).
    """

    def __init__(
        self,
        y_true: IntArray,
        probabilities: RealArray,
        units: IntArray,
    ) -> None:
        y_pred = probabilities.argmax(axis=1)
        self.n_units = int(units.max()) + 1
        self._n_labels = probabilities.shape[1]
        cells = self._n_labels**2
        joint = (units * self._n_labels + y_true) * self._n_labels + y_pred
        confusion = np.bincount(joint, minlength=self.n_units * cells)
        self._confusion = confusion.reshape(self.n_units, cells).astype(np.float64)
        self._sums = {
            "nll": np.bincount(units, segment_nll(y_true, probabilities), self.n_units),
            "brier": np.bincount(units, segment_brier(y_true, probabilities), self.n_units),
        }
        confidence = probabilities.max(axis=1).astype(np.float64)
        order = np.argsort(confidence, kind="stable")
        self._sorted_units = units[order]
        self._sorted_correct = (y_pred == y_true)[order]
        # Each distinct confidence, and the index of its first segment in the sorted order.
        self._confidence, self._first = np.unique(confidence[order], return_index=True)

    def figure(self, name: str, counts: DoubleArray) -> DoubleArray:
        """Return a figure for each row of counts.

        Parameters
        ----------
        name
            Name of the figure, one of `FIGURES`.
        counts
            How often each unit was drawn, shape (n_resamples, n_units).

        Returns
        -------
        ndarray, shape (n_resamples,)
        """
        if name == "ece":
            return np.array([self._calibration_error(row) for row in counts])
        shape = (len(counts), self._n_labels, self._n_labels)
        confusion = (counts @ self._confusion).reshape(shape)
        if name in self._sums:
            result: DoubleArray = counts @ self._sums[name] / confusion.sum(axis=(1, 2))
            return result
        hits = np.diagonal(confusion, axis1=1, axis2=2)
        true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
        if name == "macro_f1":  # F1 is hits / mean of true and predicted
            return average_ratios(hits, (true + predicted) / 2, true > 0)
        return rate_counts(hits, true, name)

    def _calibration_error(self, counts: DoubleArray) -> float:
        repeats = counts[self._sorted_units].astype(np.int64)
        drawn = np.add.reduceat(repeats, self._first)
        right = np.add.reduceat(repeats * self._sorted_correct, self._first)
        # Segments with equal confidence share their mean accuracy, as in
        # `metrics.reliability_bins`.
        gaps = np.repeat(self._confidence - right / np.maximum(drawn, 1), drawn)
        bins = np.array_split(gaps, N_BINS)
        return float(sum(abs(one.sum()) for one in bins) / len(gaps))


def number_units(speakers: Sequence[str | None]) -> tuple[NDArray[np.int64], str]:
    """Return the resampling unit of each segment, and the kind of unit.

    Parameters
    ----------
    speakers
        Speaker of each segment.

    Returns
    -------
    units : ndarray of int, shape (n_segments,)
        Indices of the speakers, or of the segments themselves if any speaker is unknown.
    kind : str
        ``"speakers"`` or ``"segments"``.
    """
    if any(speaker is None for speaker in speakers):
        return np.arange(len(speakers)), "segments"
    return np.unique(np.array(speakers), return_inverse=True)[1], "speakers"


def find_intervals(
    sample: Resampled, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> dict[str, Interval | None]:
    """Return the 95 % interval of each figure, or None if there is a single unit.

    Parameters
    ----------
    sample
        The resampling statistics of a model's predictions.
    seed
        Seed of the resampling.
    n_resamples
        Number of bootstrap resamples.
    """
    return {name: _interval(sample, None, name, seed, n_resamples) for name in FIGURES}


def compare(
    sample: Resampled, other: Resampled, *, seed: int = 0, n_resamples: int = N_RESAMPLES
) -> dict[str, dict[str, Any]]:
    """Return the differences between two models on the same segments, with paired 95 % intervals.

    Parameters
    ----------
    sample, other
        Resampling statistics of two models on the same segments in the same order.
    seed
        Seed of the resampling.
    n_resamples
        Number of bootstrap resamples; both models get the same ones.

    Returns
    -------
    dict
        For each figure the ``difference``, `sample` minus `other`, and its ``interval``.
    """
    once = np.ones((1, sample.n_units))
    return {
        name: {
            "difference": float((sample.figure(name, once) - other.figure(name, once))[0]),
            "interval": _interval(sample, other, name, seed, n_resamples),
        }
        for name in FIGURES
    }


def _interval(
    sample: Resampled, other: Resampled | None, name: str, seed: int, n_resamples: int
) -> Interval | None:
    from scipy.stats import bootstrap

    n_units = sample.n_units
    if n_units < 2:
        return None

    def statistic(drawn: IntArray, axis: int = -1) -> DoubleArray:
        # scipy passes one resample or many at once; the unit axis is reduced.
        rows = np.moveaxis(np.asarray(drawn), axis, -1)
        flat = rows.reshape(-1, rows.shape[-1]).astype(np.int64)
        counts = np.zeros((len(flat), n_units))
        np.add.at(counts, (np.arange(len(flat))[:, None], flat), 1)
        values = sample.figure(name, counts)
        if other is not None:
            values = values - other.figure(name, counts)
        return values.reshape(rows.shape[:-1])

    with warnings.catch_warnings():
        # If all draws are equal, BCa warns and returns NaN, which is replaced below.
        warnings.simplefilter("ignore")
        result = bootstrap(
            (np.arange(n_units),),
            statistic,
            n_resamples=n_resamples,
            batch=max(1, BLOCK_NUMBERS // n_units),
            vectorized=True,
            confidence_level=LEVEL,
            method="percentile" if name in BIASED or n_units > MAX_ACCELERATED else "BCa",
            rng=np.random.default_rng(seed),
        )
    low, high = map(float, result.confidence_interval)
    found = float(statistic(np.arange(n_units)))
    if name in BIASED or not low <= found <= high or low == high:  # also true for NaN
        draws = result.bootstrap_distribution
        low, high = np.quantile(draws, (0.025, 0.975)) - (draws.mean() - found)
        # Of draws that are almost all equal, a few others move the mean, but not the quantiles.
        low, high = min(low, found), max(high, found)
        limit = LIMITS.get(name, 1.0)
        low, high = max(low, 0.0 if other is None else -limit), min(high, limit)
    return float(low), float(high)
