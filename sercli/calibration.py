"""Calibration: a map from a model's raw scores to calibrated probabilities.

Every calibration is an affine map of the scores followed by a softmax (Guo et al. 2017):
temperature scaling multiplies all scores by one number, vector scaling has a factor and a bias for
each label. It is fitted on scores of held-out speakers, which the model was not trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, IntArray, RealArray
from sercli.errors import ModelError

# Values of `Calibration.method`.
UNCALIBRATED = "none"
TEMPERATURE = "temperature"
VECTOR_SCALING = "vector scaling"
# In nats: the penalty for one bias of 1, or for one factor of twice the temperature's.
PENALTY = 1.0
# Folds of groups by which the methods are compared; with fewer groups, each group is a fold.
N_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Calibration:
    """Map from scores to probabilities.

    Parameters
    ----------
    method
        Name of the method by which it was fitted.
    weights
        Matrix that scores are multiplied by, shape (n_scores, n_labels).
    bias
        Vector that is added to the product, shape (n_labels,).
    """

    method: str
    weights: DoubleArray
    bias: DoubleArray

    def probabilities(self, scores: RealArray) -> DoubleArray:
        """Return probabilities, shape (n_segments, n_labels), rows summing to 1.

        Parameters
        ----------
        scores
            Raw scores of the model, shape (n_segments, n_scores).
        """
        return _softmax(self.logits(scores))

    def logits(self, scores: RealArray) -> DoubleArray:
        """Return calibrated logits, the input of the softmax, shape (n_segments, n_labels).

        Parameters
        ----------
        scores
            Raw scores of the model, shape (n_segments, n_scores).
        """
        result: DoubleArray = np.asarray(scores, np.float64) @ self.weights + self.bias
        return result

    def widen(self, first: int, n_scores: int) -> Self:
        """Return the same calibration for wider rows of scores, of which it ignores the others.

        Parameters
        ----------
        first
            Index of the first score that this calibration uses.
        n_scores
            Number of scores in a row.
        """
        weights = np.zeros((n_scores, len(self.bias)))
        weights[first : first + len(self.weights)] = self.weights
        return replace(self, weights=weights)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of JSON types, from which `from_dict` rebuilds it exactly."""
        return {
            "method": self.method,
            "weights": self.weights.tolist(),
            "bias": self.bias.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a calibration from the result of `to_dict`.

        Raises
        ------
        ModelError
            If keys are missing or unknown, the shapes do not fit, or a value is not finite.
        """
        if set(data) != {"method", "weights", "bias"}:
            raise ModelError(
                f"calibration has the keys {sorted(data)}; expected method, weights, bias"
            )
        try:
            weights = np.array(data["weights"], np.float64)
            bias = np.array(data["bias"], np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise ModelError("calibration weights and bias are not arrays of numbers") from error
        if weights.ndim != 2 or bias.shape != weights.shape[1:]:
            raise ModelError(
                f"calibration weights have shape {weights.shape}, bias {bias.shape}; "
                "expected (n_scores, n_labels) and (n_labels,)"
            )
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ModelError("calibration weights and bias are not all finite; expected numbers")
        return cls(str(data["method"]), weights, bias)


Fit = Callable[[RealArray, IntArray | RealArray], Calibration]


def fit_temperature(scores: RealArray, classes: IntArray | RealArray) -> Calibration:
    """Fit temperature scaling, one factor for all scores, by maximum likelihood.

    Parameters
    ----------
    scores
        One score per label, shape (n_segments, n_labels).
    classes
        Index of the true label of each segment, shape (n_segments,); or soft labels, shape
        (n_segments, n_labels), rows summing to 1.
    """
    from scipy.optimize import minimize_scalar

    scores = np.asarray(scores, np.float64)
    n_labels = scores.shape[1]
    truth = _find_shares(classes, n_labels)
    # The search is centred on the inverse of the scores' mean deviation, so that their unit does
    # not matter.
    size = np.abs(scores - scores.mean(axis=1, keepdims=True)).mean() or 1.0

    def loss(log_factor: float) -> float:
        return _negative_log_likelihood(np.exp(log_factor) / size * scores, truth)

    factor = np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x) / size
    return Calibration(TEMPERATURE, factor * np.eye(n_labels), np.zeros(n_labels))


def fit_vector_scaling(scores: RealArray, classes: IntArray | RealArray) -> Calibration:
    """Fit vector scaling, a factor and a bias for each label, by penalised maximum likelihood.

    With few segments, it stays near temperature scaling: the sum of the squared biases and of the
    squared relative differences from the temperature's factor, times `PENALTY`, is added to the
    negative log-likelihood of all segments.

    Parameters
    ----------
    scores
        One score per label, shape (n_segments, n_labels).
    classes
        As for `fit_temperature`.
    """
    from scipy.optimize import minimize

    start = fit_temperature(scores, classes)
    logits = np.asarray(scores, np.float64) @ start.weights
    n_segments, n_labels = logits.shape
    truth = _find_shares(classes, n_labels)

    def loss_and_slope(
        parameters: DoubleArray,
    ) -> tuple[float, DoubleArray]:
        changes, bias = np.split(parameters, 2)
        scaled = logits * (1 + changes) + bias
        errors = _softmax(scaled) - truth
        slope = np.concatenate(((errors * logits).mean(axis=0), errors.mean(axis=0)))
        penalty = PENALTY / n_segments
        loss = _negative_log_likelihood(scaled, truth) + penalty * float(parameters @ parameters)
        return loss, slope + 2 * penalty * parameters

    found = minimize(loss_and_slope, np.zeros(2 * n_labels), jac=True, method="L-BFGS-B")
    changes, bias = np.split(found.x, 2)
    return Calibration(VECTOR_SCALING, start.weights * (1 + changes), bias)


def choose_calibration(
    scores: RealArray,
    classes: IntArray | RealArray,
    groups: NDArray[Any],
) -> Calibration:
    """Fit temperature or vector scaling, whichever is better in cross-validation over groups.

    Parameters
    ----------
    scores
        One score per label, shape (n_segments, n_labels).
    classes
        As for `fit_temperature`.
    groups
        Group of each segment, such as its speaker, shape (n_segments,); a fold keeps groups
        together. With a single group nothing can be compared, and temperature scaling is fitted.
        So it is if no segment has one of the labels: a bias would keep that label from ever being
        predicted. Not if classes are shares of votes, which tell that nobody names it.

    Returns
    -------
    Calibration
        The better one, fitted on all segments.
    """
    from sklearn.model_selection import GroupKFold

    n_groups = len(np.unique(groups))
    truth = _find_shares(classes, scores.shape[1])
    is_missing = classes.ndim == 1 and not truth.any(axis=0).all()
    if n_groups < 2 or is_missing:
        return fit_temperature(scores, classes)
    folds = list(GroupKFold(min(N_FOLDS, n_groups)).split(scores, groups=groups))

    def find_loss(fit: Fit) -> float:
        held_out = np.empty(scores.shape)
        for inside, outside in folds:
            held_out[outside] = fit(scores[inside], classes[inside]).logits(scores[outside])
        return _negative_log_likelihood(held_out, truth)

    # On a tie, `min` takes the first, which has fewer parameters.
    best = min((fit_temperature, fit_vector_scaling), key=find_loss)
    return best(scores, classes)


def _softmax(logits: DoubleArray) -> DoubleArray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: DoubleArray = odds / odds.sum(axis=1, keepdims=True)
    return result


def _find_shares(classes: IntArray | RealArray, n_labels: int) -> DoubleArray:
    """Return the truth as soft labels, shape (n_segments, n_labels)."""
    if classes.ndim == 1:
        certain: DoubleArray = np.eye(n_labels)[classes]
        return certain
    return np.asarray(classes, np.float64)


def _negative_log_likelihood(logits: DoubleArray, shares: DoubleArray) -> float:
    """Return the mean over segments in nats; computed from logits, so it is finite if they are."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    true = (shares * shifted).sum(axis=1)
    return float((np.log(np.exp(shifted).sum(axis=1)) - true).mean())
