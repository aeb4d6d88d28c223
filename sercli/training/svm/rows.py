"""What SVMs learn from: rows of features of every version of every clip."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from sercli.arrays import FloatArray, IntArray
from sercli.datasets.base import Clip, class_indices
from sercli.datasets.extraction import ClipFeatures, Progress, extract_clip_features
from sercli.features.vector import MAX_BAND_LIMIT
from sercli.training.company import gather_company
from sercli.training.config import SvmConfig
from sercli.training.folds import GroupBy, group_clips
from sercli.training.transposition import Transposition
from sercli.training.versions import Versions

# Versions of each clip that are learned from; and those if there is calm speech of strangers.
VERSIONS = ("whole", "varied", "varied", "varied")
TRANSPOSED = "transposed"
WITH_STRANGERS = ("whole", "varied", "varied", TRANSPOSED)

# Telephones end below 4 kHz: what a model learns from must be there in all recordings.
BAND_LIMIT = MAX_BAND_LIMIT


@dataclass(frozen=True)
class Rows:
    """What is learned from: rows of features with their class and group.

    Parameters
    ----------
    features
        Shape (n_rows, n_features).
    classes
        Indices of labels, shape (n_rows,).
    groups
        What cross-validation keeps together, such as the speaker, shape (n_rows,).
    labels
        Names of the classes.
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

    def split(self, n_folds: int) -> list[tuple[IntArray, IntArray]]:
        """Return what is learned from and what is judged in each fold."""
        return list(GroupKFold(n_folds).split(self.features, groups=self.groups))


def extract_versions(
    clips: Sequence[Clip], config: SvmConfig, progress: Progress | None = None
) -> ClipFeatures:
    """Extract the features of all versions of clips, a row for each version.

    Parameters
    ----------
    clips
        What is learned from; each may be heard in the background of another.
    config
        Seed and number of processes.
    progress
        Called with the number of clips that are newly done.

    Raises
    ------
    DatasetError
        If not one clip can be decoded.
    OutputError
        If there is no room for decoded audio.
    """
    with gather_company(clips, config.jobs) as company:
        versions = Versions(VERSIONS, tuple(clips), company, BAND_LIMIT, config.seed)
        return extract_clip_features(clips, versions, jobs=config.jobs, progress=progress)


def as_rows(found: ClipFeatures, labels: Sequence[str], group_by: GroupBy = "speaker") -> Rows:
    """Return all versions of all clips, version by version.

    Parameters
    ----------
    found
        Of `extract_versions`.
    labels
        Of the clips.
    group_by
        What stays together in cross-validation.

    Raises
    ------
    DatasetError
        If clips are to be grouped by speakers that are not known.
    """
    features = np.stack(found.features)
    n_versions = features.shape[1]
    classes = np.array(class_indices(found.clips, labels))
    groups = group_clips(found.clips, group_by)
    return Rows(
        np.concatenate(features.swapaxes(0, 1)),
        np.tile(classes, n_versions),
        np.tile(groups, n_versions),
        tuple(labels),
    )


def transpose_rows(
    rows: Rows, clips: Sequence[Clip], strangers: FloatArray, config: SvmConfig
) -> Rows:
    """Return rows of which the last version is as strangers might say it.

    Parameters
    ----------
    rows
        All versions of all clips, version by version, as they are first.
    clips
        Of which they are.
    strangers
        As of `fit_svm`; those of a fold are others than those of all other folds, so that who is
        held out is heard as strangers whom nobody learned from.
    config
        How folds are made, and the seed.

    Raises
    ------
    SerError
        As of `Transposition.of`.
    """
    n_clips, features = len(clips), rows.features.copy()
    whole, last = slice(n_clips), slice(len(features) - n_clips, None)
    nothing = np.zeros(features.shape[1], bool)  # is a deviation
    moving = Transposition.of(clips, rows.labels, features[whole], strangers, nothing)
    for number, (_, outside) in enumerate(rows.split(config.folds)):
        mine = outside[outside < n_clips]
        own = replace(moving, strangers=strangers[number :: config.folds])
        features[last][mine] = own.draw(features[last][mine], mine, [config.seed, number], 1.0)
    return replace(rows, features=features)
