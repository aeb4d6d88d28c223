"""From a model's raw scores to probabilities that mean what they say.

Every calibration is an affine map of the scores followed by a softmax; temperature scaling (Guo et
al. 2017) is the one that multiplies by a single number. It is fitted on scores of speakers that the
model which gave them was not trained on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sercli.errors import ModelError


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
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def probabilities(self, scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return probabilities, shape (n_segments, n_labels), rows summing to 1.

        Parameters
        ----------
        scores
            Shape (n_segments, n_scores).
        """
        logits = np.asarray(scores, np.float64) @ self.weights + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        odds = np.exp(logits)
        result: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
        return result

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
            If keys are missing or unknown, or the shapes do not fit each other.
        """
        if set(data) != {"method", "weights", "bias"}:
            raise ModelError(
                f"calibration has the keys {sorted(data)}; expected method, weights, bias"
            )
        try:
            weights = np.array(data["weights"], np.float64)
            bias = np.array(data["bias"], np.float64)
        except (TypeError, ValueError) as error:
            raise ModelError("calibration weights and bias are not arrays of numbers") from error
        if weights.ndim != 2 or bias.shape != weights.shape[1:]:
            raise ModelError(
                f"calibration weights have shape {weights.shape}, bias {bias.shape}; "
                "expected (n_scores, n_labels) and (n_labels,)"
            )
        return cls(str(data["method"]), weights, bias)


def fit_temperature(
    scores: NDArray[np.floating[Any]], classes: NDArray[np.integer[Any]]
) -> Calibration:
    """Fit one factor for all scores, by the log-likelihood.

    Parameters
    ----------
    scores
        One score per label, shape (n_segments, n_labels).
    classes
        Index of the true label of each segment, shape (n_segments,).
    """
    from scipy.optimize import minimize_scalar

    n_labels = scores.shape[1]
    rows = np.arange(len(classes))

    def calibration(log_factor: float) -> Calibration:
        return Calibration("temperature", np.exp(log_factor) * np.eye(n_labels), np.zeros(n_labels))

    def loss(log_factor: float) -> float:
        likelihoods = calibration(log_factor).probabilities(scores)[rows, classes]
        return float(-np.log(np.maximum(likelihoods, 1e-300)).mean())

    return calibration(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x)
