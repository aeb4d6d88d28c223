"""Figures of a classifier: pure functions of true labels and probabilities.

``y_true`` is always the index of the true label, shape (n_segments,), and ``probabilities`` has
shape (n_segments, n_labels). WA (weighted accuracy) is plain accuracy; UAR (unweighted average
recall) is the mean of the recalls of the classes, also called balanced accuracy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

N_BINS = 15


def evaluate_probabilities(
    y_true: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    labels: Sequence[str],
) -> dict[str, Any]:
    """Return all figures as JSON holds them.

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Of every label, rows summing to 1.
    labels
        Names in the order of the columns.

    Returns
    -------
    dict
        ``n_segments``, ``accuracy``, ``uar``, ``macro_f1``, ``ece``, ``nll``, ``classes`` (per
        label: precision, recall, f1, support) and ``confusion`` (rows: true, columns: predicted).
        Averages are over the labels that occur.
    """
    from sklearn import metrics

    y_pred = probabilities.argmax(axis=1)
    indices = list(range(len(labels)))
    present = sorted(set(y_true.tolist()))
    scores = metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=indices, zero_division=0
    )
    names = ("precision", "recall", "f1", "support")
    classes = {
        label: {name: values[index].item() for name, values in zip(names, scores, strict=True)}
        for index, label in enumerate(labels)
    }
    return {
        "n_segments": len(y_true),
        "accuracy": float(metrics.accuracy_score(y_true, y_pred)),
        "uar": unweighted_average_recall(y_true, y_pred),
        "macro_f1": float(np.mean([classes[labels[index]]["f1"] for index in present])),
        "ece": expected_calibration_error(y_true, probabilities),
        "nll": float(metrics.log_loss(y_true, probabilities, labels=indices)),
        "classes": classes,
        "confusion": metrics.confusion_matrix(y_true, y_pred, labels=indices).tolist(),
    }


def unweighted_average_recall(
    y_true: NDArray[np.integer[Any]], y_pred: NDArray[np.integer[Any]]
) -> float:
    """Return the mean recall of the classes that occur, in ``[0, 1]``.

    Parameters
    ----------
    y_true, y_pred
        Indices of the true and of the predicted labels.
    """
    from sklearn.metrics import recall_score

    return float(recall_score(y_true, y_pred, labels=np.unique(y_true), average="macro"))


def expected_calibration_error(
    y_true: NDArray[np.integer[Any]],
    probabilities: NDArray[np.floating[Any]],
    n_bins: int = N_BINS,
) -> float:
    """Return the mean distance of confidence and accuracy over bins of equal mass, in ``[0, 1]``.

    Segments are sorted by confidence and dealt into bins of as equal a size as can be; see
    Nguyen and O'Connor (2015) for bins of equal mass, Guo et al. (2017) for the error.

    Parameters
    ----------
    y_true
        Indices of the true labels.
    probabilities
        Of every label.
    n_bins
        Number of bins; fewer segments than that make a bin each.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == y_true
    order = np.argsort(confidence, kind="stable")
    bins = [rows for rows in np.array_split(order, n_bins) if len(rows)]
    distances = [abs(confidence[rows].mean() - correct[rows].mean()) for rows in bins]
    return float(np.average(distances, weights=[len(rows) for rows in bins]))
