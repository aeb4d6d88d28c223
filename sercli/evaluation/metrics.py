"""Figures of a classifier: pure functions of true labels and probabilities.

``y_true`` always holds the indices of the true labels, shape (n_segments,), and ``probabilities``
has shape (n_segments, n_labels). WA (weighted accuracy) is plain accuracy; UAR (unweighted average
recall) is the mean recall of the classes, also called balanced accuracy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, IntArray, RealArray

N_BINS = 15
# Number of simulations for the calibration error of exact probabilities.
N_EXACT_DRAWS = 1000
# Most points of a curve of accuracy against coverage.
MAX_CURVE_POINTS = 201
# A threshold must keep at least this many segments: a few may all be right by chance.
MIN_KEPT = 20


def evaluate_probabilities(
    y_true: IntArray, probabilities: RealArray, labels: Sequence[str]
) -> dict[str, Any]:
    """Return all figures of a set of segments, as JSON-serialisable values.

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Predicted probabilities, rows summing to 1.
    labels
        Label names, in the order of the columns.

    Returns
    -------
    dict
        ``n_segments``, ``accuracy``, ``uar``, ``macro_f1``, ``ece``, ``nll``, ``brier``,
        ``classes`` (per label: precision, recall, f1, support) and ``confusion`` (rows: true,
        columns: predicted). Averages are over the labels that occur.
    """
    from sklearn import metrics

    y_pred = probabilities.argmax(axis=1)
    indices = list(range(len(labels)))
    scores = metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=indices, zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    classes = {
        label: {name: values[index].item() for name, values in zip(names, scores, strict=True)}
        for index, label in enumerate(labels)
    }
    return {
        **summarise_labels(y_true, y_pred),
        "ece": expected_calibration_error(y_true, probabilities),
        "nll": float(segment_nll(y_true, probabilities).mean()),
        "brier": float(segment_brier(y_true, probabilities).mean()),
        "classes": classes,
        "confusion": metrics.confusion_matrix(y_true, y_pred, labels=indices).tolist(),
    }


def summarise_labels(y_true: IntArray, y_pred: IntArray) -> dict[str, Any]:
    """Return ``n_segments``, ``accuracy``, ``uar`` and ``macro_f1``.

    Averages are over the labels that occur in `y_true`.

    Parameters
    ----------
    y_true, y_pred
        Indices of the true and the predicted labels.
    """
    from sklearn.metrics import accuracy_score, f1_score

    present = np.unique(y_true)
    return {
        "n_segments": len(y_true),
        "accuracy": float(accuracy_score(y_true, y_pred)),
        "uar": unweighted_average_recall(y_true, y_pred),
        "macro_f1": float(
            f1_score(y_true, y_pred, labels=present, average="macro", zero_division=0)
        ),
    }


def unweighted_average_recall(y_true: IntArray, y_pred: IntArray) -> float:
    """Return the mean recall of the classes that occur in `y_true`, in ``[0, 1]``.

    Parameters
    ----------
    y_true, y_pred
        Indices of the true and the predicted labels.
    """
    from sklearn.metrics import recall_score

    return float(recall_score(y_true, y_pred, labels=np.unique(y_true), average="macro"))


def rate_counts(hits: DoubleArray, counts: DoubleArray, figure: str) -> DoubleArray:
    """Return the accuracy or the UAR of each row of counts by label.

    Parameters
    ----------
    hits, counts
        Numbers of correctly classified and of all segments of each label, shape (n, n_labels).
    figure
        ``"accuracy"`` or ``"uar"``, which is over the labels that occur.
    """
    if figure == "accuracy":
        accuracy: DoubleArray = hits.sum(axis=1) / counts.sum(axis=1)
        return accuracy
    return average_ratios(hits, counts, counts > 0)


def average_ratios(
    hits: DoubleArray, divisors: DoubleArray, present: NDArray[np.bool_]
) -> DoubleArray:
    """Return the mean of ``hits / divisors`` over the labels present, for each row.

    Parameters
    ----------
    hits, divisors, present
        Arrays of shape (n, n_labels).
    """
    ratios = np.divide(hits, divisors, out=np.zeros_like(hits, np.float64), where=present)
    mean: DoubleArray = ratios.sum(axis=1) / present.sum(axis=1)
    return mean


def segment_nll(y_true: IntArray, probabilities: RealArray) -> DoubleArray:
    """Return the negative log-likelihood of each segment's true label, in nats.

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Predicted probabilities, raised to at least the smallest normal double.
    """
    chosen = probabilities[np.arange(len(y_true)), y_true].astype(np.float64)
    result: DoubleArray = -np.log(np.maximum(chosen, np.finfo(np.float64).tiny))
    return result


def segment_brier(y_true: IntArray, probabilities: RealArray) -> DoubleArray:
    """Return each segment's Brier score, in ``[0, 2]``.

    It is the squared difference to the one-hot truth, summed over all labels (Brier 1950).

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Predicted probabilities.
    """
    distance = probabilities.astype(np.float64)
    distance[np.arange(len(y_true)), y_true] -= 1
    result: DoubleArray = np.square(distance).sum(axis=1)
    return result


def expected_calibration_error(
    y_true: IntArray, probabilities: RealArray, n_bins: int = N_BINS
) -> float:
    """Return the mean distance between confidence and accuracy over equal-mass bins, in ``[0, 1]``.

    Segments are sorted by confidence and split into bins of nearly equal size; see Nguyen and
    O'Connor (2015) for equal-mass bins, Guo et al. (2017) for the error.

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Predicted probabilities.
    n_bins
        Number of bins; with fewer segments, each is a bin of its own.
    """
    bins = reliability_bins(y_true, probabilities, n_bins)
    distances = [abs(one["confidence"] - one["accuracy"]) for one in bins]
    return float(np.average(distances, weights=[one["n"] for one in bins]))


def exact_calibration_error(probabilities: RealArray, level: float, seed: int) -> dict[str, Any]:
    """Return the calibration error that these probabilities would show if they were exact.

    Bins of few segments deviate by chance, which counts as error. It is simulated by drawing labels
    from the probabilities (Bröcker and Smith 2007). A measured error within the interval is no
    evidence of miscalibration.

    Parameters
    ----------
    probabilities
        Predicted probabilities.
    level
        Share of draws within the interval, in ``(0, 1)``.
    seed
        Seed of the draws.

    Returns
    -------
    dict
        ``mean`` and ``interval`` of `expected_calibration_error` over `N_EXACT_DRAWS` simulations,
        in which each segment is right with the probability of its confidence.
    """
    confidence = np.sort(probabilities.max(axis=1).astype(np.float64))
    rng = np.random.default_rng(seed)
    sizes = [len(one) for one in np.array_split(confidence, N_BINS) if len(one)]
    starts = np.cumsum([0, *sizes[:-1]])
    # Segments with equal confidence share their mean accuracy, as in `reliability_bins`.
    _, tie, n_tied = np.unique(confidence, return_inverse=True, return_counts=True)
    errors = []
    for _ in range(N_EXACT_DRAWS):
        correct = rng.random(len(confidence)) < confidence
        shared = (np.bincount(tie, correct) / n_tied)[tie]
        errors.append(np.abs(np.add.reduceat(confidence - shared, starts)))
    found = np.sum(errors, axis=1) / len(confidence)
    limits = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    return {"mean": float(found.mean()), "interval": [float(limit) for limit in limits]}


def reliability_bins(
    y_true: IntArray, probabilities: RealArray, n_bins: int = N_BINS
) -> list[dict[str, Any]]:
    """Return the bins of the expected calibration error, in ascending order of confidence.

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Predicted probabilities.
    n_bins
        Number of bins; with fewer segments, each is a bin of its own.

    Returns
    -------
    list of dict
        Mean ``confidence``, ``accuracy`` and number of segments ``n`` of each bin.
    """
    confidence = probabilities.max(axis=1)
    # Segments with equal confidence share their mean accuracy, so that the result does not depend
    # on which of them fall on which side of a bin boundary.
    _, tie, n_tied = np.unique(confidence, return_inverse=True, return_counts=True)
    correct = (np.bincount(tie, probabilities.argmax(axis=1) == y_true) / n_tied)[tie]
    order = np.argsort(confidence, kind="stable")
    return [
        {
            "confidence": float(confidence[rows].mean()),
            "accuracy": float(correct[rows].mean()),
            "n": len(rows),
        }
        for rows in np.array_split(order, n_bins)
        if len(rows)
    ]


def coverage_curve(y_true: IntArray, probabilities: RealArray) -> list[dict[str, float]]:
    """Return accuracy against coverage as segments of low confidence are left out.

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Predicted probabilities.

    Returns
    -------
    list of dict
        In ascending order of ``threshold``: the share of segments with at least that confidence
        (``coverage``) and their ``accuracy``; at most `MAX_CURVE_POINTS` points.
    """
    thresholds, kept, accuracy = _accuracy_above(y_true, probabilities)
    if len(thresholds) > MAX_CURVE_POINTS:
        wanted = np.linspace(len(y_true), kept[-1], MAX_CURVE_POINTS)
        points = np.unique([np.abs(kept - n).argmin() for n in wanted])
    else:
        points = np.arange(len(thresholds))
    return [
        {
            "threshold": float(thresholds[i]),
            "coverage": float(kept[i] / len(y_true)),
            "accuracy": float(accuracy[i]),
        }
        for i in points
    ]


def threshold_for_precision(
    y_true: IntArray, probabilities: RealArray, target: float
) -> dict[str, float | None]:
    """Return the confidence threshold at which the kept labels reach a given precision.

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Predicted probabilities.
    target
        The required precision, in ``(0, 1]``.

    Returns
    -------
    dict
        ``target``; the ``threshold`` that reaches it and keeps the most segments, the share of
        segments kept (``coverage``) and their ``precision``. The last three are None if no
        threshold that keeps at least `MIN_KEPT` segments reaches the target.
    """
    thresholds, kept, accuracy = _accuracy_above(y_true, probabilities)
    reached = np.flatnonzero((accuracy >= target) & (kept >= MIN_KEPT))
    if not len(reached):
        return {"target": target, "threshold": None, "coverage": None, "precision": None}
    first = reached[0]
    return {
        "target": target,
        "threshold": float(thresholds[first]),
        "coverage": float(kept[first] / len(y_true)),
        "precision": float(accuracy[first]),
    }


def _accuracy_above(
    y_true: IntArray, probabilities: RealArray
) -> tuple[DoubleArray, NDArray[np.int64], DoubleArray]:
    """Return the distinct confidences, ascending, and the number and accuracy of segments kept."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == y_true
    order = np.argsort(confidence, kind="stable")
    thresholds, first = np.unique(confidence[order], return_index=True)
    kept = len(y_true) - first
    right = np.cumsum(correct[order][::-1])[::-1][first]
    return thresholds, kept, right / kept
