"""A fusion of models: the weighted mean of the calibrated probabilities of its members.

This is a linear opinion pool (Stone 1961). A mean of calibrated members is underconfident (Ranjan
and Gneiting 2010), so it is calibrated once more. If all members also predict what is perceived,
the fusion predicts the weighted mean of that, too.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Self

import numpy as np

from sercli.arrays import DoubleArray, FloatArray, RealArray
from sercli.classifiers.base import Classifier, ModelSpec, check_scores
from sercli.classifiers.members import read_members
from sercli.config import Precision, Target
from sercli.errors import ModelError

# Members' probabilities are raised to at least this, or a member that is almost certain could not
# be outvoted.
LEAST = 5e-5


def mix(probabilities: RealArray, weights: DoubleArray) -> DoubleArray:
    """Return the logarithm of the weighted mean of probabilities, shape (n_segments, n_labels).

    Parameters
    ----------
    probabilities
        Probabilities of each member, shape (n_members, n_segments, n_labels).
    weights
        Weights of the members, shape (n_members,), summing to 1.
    """
    members = np.maximum(probabilities.astype(np.float64), LEAST)
    result: DoubleArray = np.log(np.tensordot(weights, members, 1))
    return result


class FusionClassifier(Classifier):
    """Models whose probabilities are averaged.

    Each member limits the band of its input itself; the fusion's band limit is the highest of them.

    Parameters
    ----------
    spec
        Specification, whose ``settings`` hold the members; see `read_members`.
    members
        The models, in the same order.

    Raises
    ------
    ModelError
        If a member has other labels than the fusion or lacks an output of it, or the fusion's
        calibration does not take one score per label and output.

    Attributes
    ----------
    members
        The models.
    weights
        Their weights, shape (n_members,).
    """

    family = "fusion"
    # Any member may be a network.
    in_workers = False

    def __init__(self, spec: ModelSpec, members: Sequence[Classifier]) -> None:
        super().__init__(spec)
        self._targets: tuple[Target, ...] = ("intended",)
        if spec.perceived is not None:
            self._targets = ("intended", "perceived")
        check_scores(spec, len(self._targets))
        self.weights = np.array([member.weight for member in read_members(spec.settings)])
        self.members = tuple(members)
        for member in members:
            if set(member.spec.labels) != set(spec.labels):
                raise ModelError(
                    f"its member {member.name} has the labels {', '.join(member.spec.labels)}; "
                    f"expected {', '.join(spec.labels)}; train the fusion again"
                )
            if spec.perceived is not None and member.spec.perceived is None:
                raise ModelError(
                    f"its member {member.name} predicts only the intended emotion; expected one "
                    "that also predicts the perceived one, as the fusion does; train the fusion "
                    "again"
                )

    @property
    def _networks(self) -> list[Classifier]:
        return [member for member in self.members if not member.in_workers]

    @property
    def batch_seconds(self) -> float:
        """Best batch size of one worker for its networks, which take longest."""
        return max(member.batch_seconds for member in self._networks or self.members)

    @property
    def precision(self) -> Precision:
        """Number type of its first network's matrix products, else ``"fp32"``."""
        return next((network.precision for network in self._networks), "fp32")

    def use_precision(self, precision: Precision) -> None:
        """Change the number type of the networks among its members; see `Classifier`."""
        for member in self._networks or self.members:
            member.use_precision(precision)

    @contextmanager
    def using_threads(self, n_threads: int) -> Iterator[None]:
        """Limit the threads of each worker; see `Classifier`."""
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.using_threads(n_threads))
            yield

    @contextmanager
    def replicas(
        self, n_workers: int, n_threads: int, batch_seconds: float
    ) -> Iterator[Sequence[Self]]:
        """Yield models that may be used at the same time; see `Classifier`."""
        with ExitStack() as stack:
            replicas = [
                stack.enter_context(member.replicas(n_workers, n_threads, batch_seconds))
                for member in self.members
            ]
            found = []
            for members in zip(*replicas, strict=False):  # networks on a GPU have fewer replicas
                replica = copy.copy(self)
                replica.members = members
                found.append(replica)
            yield found

    def extract_features(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        """Return the members' probabilities.

        Parameters
        ----------
        waveforms
            Segments at the model's sample rate, each of shape (n_samples,).

        Returns
        -------
        ndarray of float32, shape (n_segments, n_members * n_outputs * n_labels)
            Member by member, and output by output of each, in the order of the fusion's labels.
        """
        parts = []
        for member in self.members:
            order = [member.spec.labels.index(label) for label in self.spec.labels]
            scores = member.score(member.extract_features(waveforms))
            for target in self._targets:
                calibration = member.spec.find_calibration(target)
                parts.append(calibration.probabilities(scores)[:, order])
        return np.hstack(parts).astype(np.float32)

    def score(self, features: FloatArray) -> FloatArray:
        """Return the logarithms of the weighted means, shape (n_segments, n_outputs * n_labels)."""
        shape = (len(features), len(self.members), len(self._targets), len(self.spec.labels))
        outputs = features.reshape(shape).transpose(2, 1, 0, 3)
        return np.hstack([mix(one, self.weights) for one in outputs]).astype(np.float32)
