"""Weights of the members of a fusion, and calibration of their weighted mean."""

from typing import NamedTuple

import numpy as np

from sercli.arrays import DoubleArray, IntArray
from sercli.calibration import Calibration, fit_temperature
from sercli.classifiers.fusion import mix
from sercli.training.folds import Groups, split_groups

# The weights have converged if no others could be better by more than this, in nats per clip.
TOLERANCE = 1e-6
MAX_STEPS = 10_000


class Mixture(NamedTuple):
    """Map from the probabilities of members to those of the fusion.

    Parameters
    ----------
    weights
        Weights of the members, shape (n_members,), summing to 1.
    calibration
        Calibration of the logarithm of the members' weighted mean.
    """

    weights: DoubleArray
    calibration: Calibration

    def apply(self, probabilities: DoubleArray) -> DoubleArray:
        """Return the fusion's probabilities, shape (n_clips, n_labels).

        Parameters
        ----------
        probabilities
            Probabilities of each member, shape (n_members, n_clips, n_labels).
        """
        return self.calibration.probabilities(mix(probabilities, self.weights))


def fit_weights(likelihoods: DoubleArray) -> DoubleArray:
    """Return the weights whose mean has the highest likelihood, shape (n_members,), summing to 1.

    They are found by expectation maximisation. The log-likelihood is concave, so that no weights
    can be better than the current ones by more than the largest gain minus 1.

    Parameters
    ----------
    likelihoods
        Each member's probability of the true label of each clip, above 0, shape
        (n_members, n_clips).
    """
    weights = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(MAX_STEPS):
        gains = (likelihoods / (weights @ likelihoods)).mean(axis=1)
        if gains.max() - 1 < TOLERANCE:
            break
        weights = weights * gains
    return weights


def fit_mixture(
    probabilities: DoubleArray, classes: IntArray, *, equal_weights: bool = False
) -> Mixture:
    """Fit the weights of members, then the calibration of their mean.

    Parameters
    ----------
    probabilities
        Probabilities of each member, none below `sercli.classifiers.fusion.LEAST`, shape
        (n_members, n_clips, n_labels).
    classes
        Index of the true label of each clip, shape (n_clips,).
    equal_weights
        Whether all weights are equal, and only the calibration is fitted.
    """
    if equal_weights:
        weights = np.full(len(probabilities), 1 / len(probabilities))
    else:
        weights = fit_weights(probabilities[:, np.arange(len(classes)), classes])
    # Temperature only: a bias would be that of the networks that scored these held-out clips.
    return Mixture(weights, fit_temperature(mix(probabilities, weights), classes))


def cross_fit(
    probabilities: DoubleArray,
    classes: IntArray,
    groups: Groups,
    n_folds: int,
    *,
    equal_weights: bool = False,
) -> DoubleArray:
    """Return probabilities of each clip by a fusion that was not fitted on the clip's group.

    Parameters
    ----------
    probabilities, classes, equal_weights
        As for `fit_mixture`.
    groups
        Group of each clip, which folds keep together, shape (n_clips,).
    n_folds
        Number of folds; the mixture of each fold is fitted on all others.

    Returns
    -------
    ndarray of float64, shape (n_clips, n_labels)
    """
    mixed = np.empty(probabilities.shape[1:])
    for inside, outside in split_groups(groups, n_folds):
        mixture = fit_mixture(
            probabilities[:, inside], classes[inside], equal_weights=equal_weights
        )
        mixed[outside] = mixture.apply(probabilities[:, outside])
    return mixed
