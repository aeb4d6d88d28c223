"""Comparison of a model with human listeners, whose votes on the same clips give a ceiling.

Votes are counts of listeners per label. A vote for a label that is not scored is a wrong answer;
distributions are compared over the scored labels only. Cross-entropy is in nats, the Jensen-Shannon
divergence in bits, so that it lies in ``[0, 1]``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, IntArray, RealArray


def compare_with_listeners(
    votes: RealArray, y_true: IntArray, probabilities: RealArray
) -> dict[str, Any]:
    """Return the figures of listeners and of a model on the same clips.

    Parameters
    ----------
    votes
        Votes for the scored labels, in their order, followed by those for other labels, shape
        (n_segments, n_labels or more). Every clip has at least one vote, and at least one clip has
        a vote for a scored label.
    y_true
        Indices of the intended labels, shape (n_segments,).
    probabilities
        The model's probabilities, shape (n_segments, n_labels).

    Returns
    -------
    dict
        ``n_segments``, and ``n_votes`` including those for other labels;

        - ``listener``: accuracy of a single vote, and its mean divergence from the votes of the
          other listeners of the clip (clips with two votes or more);
        - ``majority``: accuracy of the label with the most votes, scored or not; a tie that
          includes the right label counts as the fraction 1 / number of tied labels;
        - ``model``: accuracy, mean cross-entropy and divergence against the votes;
        - ``constant``: the same for the mean distribution of these votes, the constant with the
          lowest cross-entropy;
        - ``floor``: the cross-entropy of the votes' own distributions, the lower bound.

        Accuracy is over all clips and votes; cross-entropy and divergence are over the votes for
        scored labels, and over the clips that have any.
    """
    scored = votes[:, : probabilities.shape[1]]
    told = scored.sum(axis=1) > 0
    shares = scored[told] / scored[told].sum(axis=1, keepdims=True)
    rows = np.arange(len(votes))
    most = votes == votes.max(axis=1, keepdims=True)
    constant = np.broadcast_to(shares.mean(axis=0), probabilities.shape)
    return {
        "n_segments": len(votes),
        "n_votes": int(votes.sum()),
        "listener": {
            "accuracy": float(votes[rows, y_true].sum() / votes.sum()),
            "jensen_shannon": _divergence_of_a_listener(scored[told]),
        },
        "majority": {"accuracy": float((most[rows, y_true] / most.sum(axis=1)).mean())},
        "model": _closeness(shares, told, y_true, probabilities),
        "constant": _closeness(shares, told, y_true, constant),
        "floor": {"cross_entropy": float(cross_entropy(shares, shares).mean())},
    }


def cross_entropy(shares: RealArray, probabilities: RealArray) -> DoubleArray:
    """Return the cross-entropy of each row of votes under a model, in nats.

    Parameters
    ----------
    shares
        Distributions of votes, shape (n_segments, n_labels).
    probabilities
        The model's probabilities, same shape.
    """
    floor = np.finfo(np.float64).tiny
    logs = np.log(np.maximum(probabilities.astype(np.float64), floor))
    result: DoubleArray = -(shares * logs).sum(axis=1)
    return result


def jensen_shannon(shares: RealArray, probabilities: RealArray) -> DoubleArray:
    """Return the Jensen-Shannon divergence of each pair of rows, in bits (Lin 1991).

    Parameters
    ----------
    shares, probabilities
        Distributions, shape (n_segments, n_labels).
    """
    from scipy.spatial.distance import jensenshannon

    # scipy returns the distance, the square root of the divergence. By rounding, it may take the
    # root of a number just below 0, which gives NaN and a warning.
    with np.errstate(invalid="ignore"):
        distances = jensenshannon(shares, probabilities, base=2, axis=1)
    rounded = np.isnan(distances) & np.isfinite(probabilities).all(axis=1)
    result: DoubleArray = np.square(np.where(rounded, 0.0, distances))
    return result


def _closeness(
    shares: RealArray, told: NDArray[np.bool_], y_true: IntArray, probabilities: RealArray
) -> dict[str, float]:
    """Return the accuracy on all clips, and the distance from the vote shares of `told` clips."""
    return {
        "accuracy": float((probabilities.argmax(axis=1) == y_true).mean()),
        "cross_entropy": float(cross_entropy(shares, probabilities[told]).mean()),
        "jensen_shannon": float(jensen_shannon(shares, probabilities[told]).mean()),
    }


def _divergence_of_a_listener(votes: RealArray) -> float | None:
    """Return the mean divergence over all votes on clips with others; None if there are none."""
    total, weight = 0.0, 0.0
    for label in range(votes.shape[1]):
        rows = (votes[:, label] >= 1) & (votes.sum(axis=1) >= 2)
        if not rows.any():
            continue
        others = votes[rows].astype(np.float64)
        others[:, label] -= 1
        one = np.zeros_like(others)
        one[:, label] = 1
        divergence = jensen_shannon(others / others.sum(axis=1, keepdims=True), one)
        total += float(divergence @ votes[rows, label])
        weight += float(votes[rows, label].sum())
    return total / weight if weight else None
