"""Folds of training clips, and figures of held-out clips."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import GroupKFold

from sercli.arrays import FloatArray, IntArray
from sercli.calibration import Calibration
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import class_indices
from sercli.datasets.matching import join_voices
from sercli.errors import DatasetError
from sercli.evaluation.metrics import evaluate_probabilities

# Fewer groups than this cannot be split into folds.
MIN_GROUPS = 2
# Versions of held-out clips: unchanged, augmented, and transposed to other speakers, see
# `sercli.training.transposition`.
VERSIONS = ("whole", "varied", "transposed")

GroupBy = Literal["speaker", "clip"]
Groups = NDArray[np.str_]
# Function from scores, classes and groups to a calibration.
Calibrate = Callable[[FloatArray, IntArray, Groups], Calibration]


def group_clips(clips: Sequence[Clip], group_by: GroupBy, hashes: Sequence[str] = ()) -> Groups:
    """Return the group of each clip; clips of a group stay in the same fold.

    Parameters
    ----------
    clips
        Clips to divide into folds.
    group_by
        Whether all clips of a speaker form a group, or each clip its own.
    hashes
        Hashes of the clips' audio, if they are decoded; groups with the same audio become one, or
        a model would be scored on what it was trained on. If all became one, audio of more than two
        groups does not count, such as a beep.

    Returns
    -------
    ndarray of str, shape (n_clips,)

    Raises
    ------
    DatasetError
        If clips are grouped by speaker and a speaker is unknown.
    """
    voices = [*map(str, range(len(clips)))] if group_by == "clip" else join_voices(clips)
    if None in voices:
        raise DatasetError(
            "speakers are unknown; expected a speaker for every clip, or a random split"
        )
    groups = np.array(voices)
    joined = _join_copies(groups, hashes) if hashes else groups
    if len(np.unique(joined)) >= MIN_GROUPS or not hashes:
        return joined
    n_groups = Counter(audio for _, audio in {*zip(groups, hashes, strict=True)})
    return _join_copies(groups, [one if n_groups[one] <= MIN_GROUPS else "" for one in hashes])


def _join_copies(groups: Groups, hashes: Sequence[str]) -> Groups:
    """Return groups of which those that have audio in common bear the name of the first."""
    rows = np.unique(groups, return_inverse=True)[1]
    unique = [audio or f"unknown {place}" for place, audio in enumerate(hashes)]
    columns = np.unique(unique, return_inverse=True)[1] + rows.max() + 1
    size = columns.max() + 1
    links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size, size))
    parts = connected_components(links, directed=False)[1][rows]
    _, first, part = np.unique(parts, return_index=True, return_inverse=True)
    joined: Groups = groups[first][part]
    return joined


def count_folds(groups: Groups, n_folds: int, group_by: GroupBy) -> int:
    """Return the number of folds; with fewer groups than `n_folds`, each group is a fold.

    Parameters
    ----------
    groups
        Group of each clip, as returned by `group_clips`.
    n_folds
        Requested number of folds.
    group_by
        Kind of the groups, for the error message.

    Raises
    ------
    DatasetError
        If there is a single group.
    """
    n_groups = len(np.unique(groups))
    if n_groups < MIN_GROUPS:
        raise DatasetError(
            f"the training clips are of one {group_by}; expected {MIN_GROUPS} or more, also "
            f"without those of a fold, for cross-validation; add clips of more {group_by}s, or "
            "train on more splits, such as train+dev"
        )
    return min(n_folds, n_groups)


def split_groups(groups: Groups, n_folds: int) -> list[tuple[IntArray, IntArray]]:
    """Return the indices of the training and of the held-out rows of each fold.

    Parameters
    ----------
    groups
        Group of each row; those of a group are in the same fold.
    n_folds
        Number of folds, at most that of the groups.
    """
    return list(GroupKFold(n_folds).split(groups, groups=groups))


def check_labels(
    classes: IntArray, labels: Sequence[str], held_out: GroupBy | None = None, others: str = ""
) -> None:
    """Raise if the training clips lack a label.

    Parameters
    ----------
    classes
        Index of the label of each training clip.
    labels
        All labels.
    held_out
        Kind of the groups if a fold is held out of the training clips; None if no fold is.
    others
        Description of what else is held out in that case, for the error message.

    Raises
    ------
    DatasetError
        If labels are missing; the message names them.
    """
    present: Collection[int] = set(classes.tolist())
    missing = ", ".join(label for index, label in enumerate(labels) if index not in present)
    if missing and held_out:
        raise DatasetError(
            f"without the {held_out}s of a fold{others}, no training clips of {missing} are left; "
            f"expected clips of every emotion from several {held_out}s; leave rare emotions out "
            "with --emotions"
        )
    if missing:
        raise DatasetError(
            f"the training clips include none of {missing}; expected clips of every emotion; "
            "train on more splits, such as train+dev, or use --folds"
        )


def check_folds(
    clips: Sequence[Clip], labels: Sequence[str], n_folds: int, group_by: GroupBy
) -> None:
    """Raise if the folds of clips do not suffice for training; nothing is decoded for that.

    Parameters
    ----------
    clips
        Clips to divide into folds.
    labels
        Labels of the clips.
    n_folds, group_by
        As for `count_folds`.

    Raises
    ------
    DatasetError
        If speakers are unknown, there is only one, or an emotion does not occur at all or only
        with the speakers of one fold.
    """
    groups = group_clips(clips, group_by)
    classes = np.array(class_indices(clips, labels))
    check_labels(classes, labels)
    for inside, _ in split_groups(groups, count_folds(groups, n_folds, group_by)):
        check_labels(classes[inside], labels, group_by)


def cross_fitted_figures(
    scores: FloatArray,
    classes: IntArray,
    groups: Groups,
    labels: Sequence[str],
    n_folds: int,
    calibrate: Calibrate,
    versions: Sequence[str],
) -> dict[str, Any]:
    """Return figures of versions of clips, cross-fitting the calibration.

    Neither the model nor the calibration that gives a probability has seen the group of the clip.

    Parameters
    ----------
    scores
        Held-out scores, each by a model not trained on the clip's group; all clips of one version
        after those of another, shape (n_rows, n_labels).
    classes, groups
        Classes and groups of the rows, shape (n_rows,).
    labels
        Labels, in the order of the columns.
    n_folds
        Number of folds; the calibration of each fold is fitted on all others.
    calibrate
        Function that fits a calibration.
    versions
        Names of the versions, see `VERSIONS`; versions of the same name are pooled.

    Returns
    -------
    dict
        Figures by version name.
    """
    probabilities = np.empty(scores.shape)
    for inside, outside in split_groups(groups, n_folds):
        calibration = calibrate(scores[inside], classes[inside], groups[inside])
        probabilities[outside] = calibration.probabilities(scores[outside])
    names = np.repeat(versions, len(scores) // len(versions))
    return {
        name: evaluate_probabilities(classes[names == name], probabilities[names == name], labels)
        for name in dict.fromkeys(versions)
    }
