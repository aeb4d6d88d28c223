"""How much each member of a fusion counts, and how their mean is calibrated."""

from typing import NamedTuple

import numpy as np
from sklearn.model_selection import GroupKFold

from sercli.arrays import DoubleArray, IntArray
from sercli.calibration import Calibration, fit_temperature
from sercli.classifiers.fusion import mix
from sercli.training.folds import Groups

# Weights are found when no others could be better by more than this, in nats per clip.
TOLERANCE = 1e-6
MAX_STEPS = 10_000


class Mixture(NamedTuple):
    """From the probabilities of members to those of the fusion.

    Parameters
    ----------
    weights
        Of the members, shape (n_members,), summing to 1.
    calibration
        Of the logarithm of their mean.
    """

    weights: DoubleArray
    calibration: Calibration

    def judge(self, probabilities: DoubleArray) -> DoubleArray:
        """Return the fusion's probabilities, shape (n_clips, n_labels).

        Parameters
        ----------
        probabilities
            Of each member, shape (n_members, n_clips, n_labels).
        """
        return self.calibration.probabilities(mix(probabilities, self.weights))


def fit_weights(likelihoods: DoubleArray) -> DoubleArray:
    """Return the weights of which the mean is the most likely, shape (n_members,), summing to 1.

    They are found by expectation maximisation. The log-likelihood is concave, so that no weights
    are better than those found by more than the largest gain less 1.

    Parameters
    ----------
    likelihoods
        Probability that each member gives the true label of each clip, above 0, shape
        (n_members, n_clips).
    """
    weights = np.full(len(likelihoods), 1 / len(likelihoods))
    for _ in range(MAX_STEPS):
        gains = (likelihoods / (weights @ likelihoods)).mean(axis=1)
        if gains.max() - 1 < TOLERANCE:
            break
        weights = weights * gains
    return weights


def fit_mixture(probabilities: DoubleArray, classes: IntArray) -> Mixture:
    """Fit the weights of members, then the calibration of their mean.

    Parameters
    ----------
    probabilities
        Of each member, none below `LEAST`, shape (n_members, n_clips, n_labels).
    classes
        Index of the true label of each clip, shape (n_clips,).
    """
    weights = fit_weights(probabilities[:, np.arange(len(classes)), classes])
    # One factor alone: a bias would be that of the networks which judged these clips.
    return Mixture(weights, fit_temperature(mix(probabilities, weights), classes))


def cross_fit(
    probabilities: DoubleArray, classes: IntArray, groups: Groups, n_folds: int
) -> DoubleArray:
    """Return what a fusion says of each clip that was not fitted on the clip's group.

    Parameters
    ----------
    probabilities, classes
        As for `fit_mixture`.
    groups
        What stays together, shape (n_clips,).
    n_folds
        Of which all but one are fitted on, and one is judged.

    Returns
    -------
    ndarray of float64, shape (n_clips, n_labels)
    """
    judged = np.empty(probabilities.shape[1:])
    for inside, outside in GroupKFold(n_folds).split(classes, groups=groups):
        mixture = fit_mixture(probabilities[:, inside], classes[inside])
        judged[outside] = mixture.judge(probabilities[:, outside])
    return judged
