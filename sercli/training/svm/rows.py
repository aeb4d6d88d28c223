"""Training rows of SVMs: features of every version of every clip."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import FloatArray, IntArray
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import class_indices
from sercli.datasets.extraction import ClipFeatures
from sercli.training.config import SvmConfig
from sercli.training.folds import GroupBy, group_clips, split_groups
from sercli.training.transposition import Transposition, average_calm


@dataclass(frozen=True)
class Rows:
    """Rows of features with their classes and groups.

    Parameters
    ----------
    features
        Features, shape (n_rows, n_features).
    classes
        Indices of the labels, shape (n_rows,).
    groups
        Group of each row, such as the speaker, that cross-validation keeps together, shape
        (n_rows,).
    labels
        Labels, in the order of the class indices.
    """

    features: FloatArray
    classes: IntArray
    groups: NDArray[np.str_]
    labels: tuple[str, ...]

    def take(self, indices: IntArray) -> "Rows":
        """Return some of the rows."""
        return Rows(
            self.features[indices], self.classes[indices], self.groups[indices], self.labels
        )


def as_rows(found: ClipFeatures, labels: Sequence[str], group_by: GroupBy = "speaker") -> Rows:
    """Return the rows of all versions of all clips, all clips of one version after another.

    Parameters
    ----------
    found
        Features from `sercli.training.svm.versions.extract_versions`.
    labels
        Labels of the clips.
    group_by
        Whether cross-validation keeps all clips of a speaker together, or the versions of a clip.

    Raises
    ------
    DatasetError
        If clips are grouped by speaker and a speaker is unknown.
    """
    features = np.stack(found.features)
    n_versions = features.shape[1]
    classes = np.array(class_indices(found.clips, labels))
    groups = group_clips(found.clips, group_by, found.hashes)
    return Rows(
        np.concatenate(features.swapaxes(0, 1)),
        np.tile(classes, n_versions),
        np.tile(groups, n_versions),
        tuple(labels),
    )


def transpose_rows(
    rows: Rows,
    clips: Sequence[Clip],
    strangers: FloatArray,
    config: SvmConfig,
    learned: IntArray | None = None,
) -> Rows:
    """Return rows in which the last version of each clip is transposed to a stranger.

    Each fold has its own strangers, so that held-out clips are transposed to strangers that no
    training row comes from.

    Parameters
    ----------
    rows
        Rows of all versions, all clips of one version after another, the unchanged version first.
    clips
        The clips of the rows.
    strangers
        As for `fit_svm`.
    config
        Training settings, of which the number of folds and the seed are used.
    learned
        Indices of the training rows; None for all. Held-out rows do not change these if
        clips are grouped by speaker.

    Raises
    ------
    SerError
        As for `average_calm`.
    """
    n_clips, features = len(clips), rows.features.copy()
    whole, last = slice(n_clips), slice(len(features) - n_clips, None)
    nothing = np.zeros(features.shape[1], bool)  # no feature is a deviation
    known = np.arange(n_clips) if learned is None else learned[learned < n_clips]
    theirs = [clips[i] for i in known.tolist()]
    everybody = average_calm(theirs, rows.labels, features[known], nothing)
    moving = Transposition.of(clips, rows.labels, features[whole], strangers, nothing, everybody)
    for number, (_, outside) in enumerate(split_groups(rows.groups, config.folds)):
        mine = outside[outside < n_clips]
        own = replace(moving, strangers=strangers[number :: config.folds])
        features[last][mine] = own.draw(features[last][mine], mine, [config.seed, number], 1.0)
    return replace(rows, features=features)
