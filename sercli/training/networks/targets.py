"""Targets of the training clips: smoothed labels with a teacher's share, and listeners' votes."""

from collections.abc import Sequence

import numpy as np

from sercli.arrays import DoubleArray, FloatArray
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import class_indices
from sercli.datasets.votes import Votes, match_votes
from sercli.training.config import NeuralConfig


def make_targets(
    clips: Sequence[Clip],
    labels: Sequence[str],
    config: NeuralConfig,
    taught: DoubleArray | None = None,
) -> FloatArray:
    """Return target probabilities, shape (n_clips, n_labels), rows summing to 1.

    Parameters
    ----------
    clips
        Clips whose labels are all among `labels`.
    labels
        Labels, in the order of the columns.
    config
        Training settings, of which label smoothing and teacher weight are used.
    taught
        The teacher's probabilities of the clips, shape (n_clips, n_labels), or None.
    """
    smoothing = config.label_smoothing
    certain = np.eye(len(labels))[class_indices(clips, labels)]
    targets = (1 - smoothing) * certain + smoothing / len(labels)
    if taught is not None:
        targets = (1 - config.teacher_weight) * targets + config.teacher_weight * taught
    return targets.astype(np.float32)


def find_vote_shares(clips: Sequence[Clip], labels: Sequence[str], votes: Votes) -> FloatArray:
    """Return the shares of listeners who chose each label, shape (n_clips, n_labels).

    Parameters
    ----------
    clips
        The clips; the row of a clip without a vote for any label is zero, all others sum to 1.
    labels
        Labels, in the order of the columns.
    votes
        Number of votes by label, for each clip name.
    """
    found = match_votes(votes, clips)
    counts = np.array([[row.get(label, 0) for label in labels] for row in found], np.float32)
    shares: FloatArray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares
