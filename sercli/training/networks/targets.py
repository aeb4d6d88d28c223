"""What a network is to say of each clip: its label, and how sure listeners were of it."""

from collections.abc import Sequence

import numpy as np

from sercli.arrays import DoubleArray, FloatArray
from sercli.datasets.base import Clip, class_indices
from sercli.datasets.votes import Votes, match_votes
from sercli.training.config import NeuralConfig


def make_targets(
    clips: Sequence[Clip],
    labels: Sequence[str],
    config: NeuralConfig,
    taught: DoubleArray | None = None,
) -> FloatArray:
    """Return the probabilities to be learned, shape (n_clips, n_labels), rows summing to 1.

    Parameters
    ----------
    clips
        Their labels must be among `labels`.
    labels
        In the order of the columns.
    config
        How much is spread over all labels, and how much a teacher counts.
    taught
        Probabilities that a teacher gives the clips, shape (n_clips, n_labels), or None.
    """
    smoothing = config.label_smoothing
    certain = np.eye(len(labels))[class_indices(clips, labels)]
    targets = (1 - smoothing) * certain + smoothing / len(labels)
    if taught is not None:
        targets = (1 - config.teacher_weight) * targets + config.teacher_weight * taught
    return targets.astype(np.float32)


def find_vote_shares(clips: Sequence[Clip], labels: Sequence[str], votes: Votes) -> FloatArray:
    """Return the shares of listeners who hear each label, shape (n_clips, n_labels).

    Parameters
    ----------
    clips
        Those without a vote for one of the labels have a row of zeros; all others sum to 1.
    labels
        In the order of the columns.
    votes
        Counts by label, by name of the clip.
    """
    found = match_votes(votes, clips)
    counts = np.array([[row.get(label, 0) for label in labels] for row in found], np.float32)
    shares: FloatArray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares
