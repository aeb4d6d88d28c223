"""From a model's raw scores to probabilities that mean what they say.

Every calibration is an affine map of the scores followed by a softmax (Guo et al. 2017):
temperature scaling multiplies all scores by one number, vector scaling has a factor and a bias for
each label. It is fitted on scores of speakers that the model which gave them was not trained on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, IntArray, RealArray
from sercli.errors import ModelError

# What `Calibration.method` says.
UNCALIBRATED = "none"
TEMPERATURE = "temperature"
VECTOR_SCALING = "vector scaling"
# In nats, of a vector scaling that has a bias of 1 or a factor twice as large as the temperature's.
PENALTY = 1.0


@dataclass(frozen=True, eq=False)
class Calibration:
    """Maps scores to probabilities.

    Parameters
    ----------
    method
        How it was fitted.
    weights
        Shape (n_scores, n_labels).
    bias
        Shape (n_labels,).
    """

    method: str
    weights: DoubleArray
    bias: DoubleArray

    def probabilities(self, scores: RealArray) -> DoubleArray:
        """Return probabilities, shape (n_segments, n_labels), rows summing to 1.

        Parameters
        ----------
        scores
            Shape (n_segments, n_scores).
        """
        return _softmax(self.logits(scores))

    def logits(self, scores: RealArray) -> DoubleArray:
        """Return what the softmax is taken of, shape (n_segments, n_labels).

        Parameters
        ----------
        scores
            Shape (n_segments, n_scores).
        """
        result: DoubleArray = np.asarray(scores, np.float64) @ self.weights + self.bias
        return result

    def widen(self, first: int, n_scores: int) -> Self:
        """Return the same for scores among which others are, too, that do not matter.

        Parameters
        ----------
        first
            Place of the first score that matters.
        n_scores
            Number of all.
        """
        weights = np.zeros((n_scores, len(self.bias)))
        weights[first : first + len(self.weights)] = self.weights
        return replace(self, weights=weights)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `from_dict` reads it back exactly."""
        return {
            "method": self.method,
            "weights": self.weights.tolist(),
            "bias": self.bias.tolist(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`.

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
    """Fit one factor for all scores, by the log-likelihood.

    Parameters
    ----------
    scores
        One score per label, shape (n_segments, n_labels).
    classes
        Index of the true label of each segment, shape (n_segments,); or shares of the labels, shape
        (n_segments, n_labels), rows summing to 1.
    """
    from scipy.optimize import minimize_scalar

    scores = np.asarray(scores, np.float64)
    n_labels = scores.shape[1]
    truth = _find_shares(classes, n_labels)
    # The factor is looked for around one over the size of the scores, whatever their unit is.
    size = np.abs(scores - scores.mean(axis=1, keepdims=True)).mean() or 1.0

    def loss(log_factor: float) -> float:
        return _negative_log_likelihood(np.exp(log_factor) / size * scores, truth)

    factor = np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x) / size
    return Calibration(TEMPERATURE, factor * np.eye(n_labels), np.zeros(n_labels))


def fit_vector_scaling(scores: RealArray, classes: IntArray | RealArray) -> Calibration:
    """Fit a factor and a bias for each label, by the log-likelihood.

    Where there are few segments, it stays near temperature scaling: the sum of the squared biases
    and of the squared relative differences from the one factor, times `PENALTY`, is added to the
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
    n_folds: int = 5,
) -> Calibration:
    """Fit temperature or vector scaling, whichever is better on groups that it was not fitted on.

    Parameters
    ----------
    scores
        One score per label, shape (n_segments, n_labels).
    classes
        As for `fit_temperature`.
    groups
        What a fold keeps together, such as the speaker of each segment, shape (n_segments,). With
        a single group nothing can be compared, and it is temperature scaling; as it is where no
        segment has one of the labels, or a bias would make sure that none is given it, either.
    n_folds
        At least 2; with fewer groups, each group is a fold.

    Returns
    -------
    Calibration
        Fitted on all segments.
    """
    from sklearn.model_selection import GroupKFold

    n_groups = len(np.unique(groups))
    truth = _find_shares(classes, scores.shape[1])
    is_missing = classes.ndim == 1 and not truth.any(axis=0).all()
    if n_groups < 2 or is_missing:
        return fit_temperature(scores, classes)
    folds = list(GroupKFold(min(n_folds, n_groups)).split(scores, groups=groups))

    def judge(fit: Fit) -> float:
        held_out = np.empty(scores.shape)
        for inside, outside in folds:
            held_out[outside] = fit(scores[inside], classes[inside]).logits(scores[outside])
        return _negative_log_likelihood(held_out, truth)

    # Of equals, the first: it has fewer parameters.
    best = min((fit_temperature, fit_vector_scaling), key=judge)
    return best(scores, classes)


def _softmax(logits: DoubleArray) -> DoubleArray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: DoubleArray = odds / odds.sum(axis=1, keepdims=True)
    return result


def _find_shares(classes: IntArray | RealArray, n_labels: int) -> DoubleArray:
    """Return what is true of each segment as shares of the labels, shape (n_segments, n_labels)."""
    if classes.ndim == 1:
        certain: DoubleArray = np.eye(n_labels)[classes]
        return certain
    return np.asarray(classes, np.float64)


def _negative_log_likelihood(logits: DoubleArray, shares: DoubleArray) -> float:
    """Return the mean over segments in nats; from logits, so that it is finite if they are."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    true = (shares * shifted).sum(axis=1)
    return float((np.log(np.exp(shifted).sum(axis=1)) - true).mean())
