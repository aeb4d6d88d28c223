"""Folds of clips that are learned from, and figures of those held out."""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from sercli.arrays import FloatArray, IntArray
from sercli.calibration import Calibration
from sercli.datasets.base import Clip, class_indices
from sercli.datasets.matching import join_voices
from sercli.errors import DatasetError
from sercli.evaluation.metrics import evaluate_probabilities

# Fewer cannot be told apart by leaving one out.
MIN_GROUPS = 2
# Of clips that are judged: as they are, as other recordings might have them, and as strangers might
# say them, see `sercli.training.transposition`.
VERSIONS = ("whole", "varied", "transposed")

GroupBy = Literal["speaker", "clip"]
Groups = NDArray[np.str_]
# From scores, classes and groups.
Calibrate = Callable[[FloatArray, IntArray, Groups], Calibration]


def group_clips(clips: Sequence[Clip], group_by: GroupBy) -> Groups:
    """Return a name for each clip, which those share that a fold keeps together.

    Parameters
    ----------
    clips
        What is divided.
    group_by
        What stays together.

    Raises
    ------
    DatasetError
        If clips are to be grouped by speakers that are not known.
    """
    if group_by == "clip":
        return np.arange(len(clips)).astype(str)
    voices = join_voices(clips)
    if None not in voices:
        return np.array(voices)
    raise DatasetError("speakers are unknown; expected a speaker for every clip, or a random split")


def count_folds(groups: Groups, n_folds: int, group_by: GroupBy) -> int:
    """Return the number of folds: with fewer groups, each group is a fold.

    Raises
    ------
    DatasetError
        If there is a single group.
    """
    n_groups = len(np.unique(groups))
    if n_groups < MIN_GROUPS:
        raise DatasetError(
            f"found clips of a single {group_by}; expected {MIN_GROUPS} or more to "
            "cross-validate by; learn from more splits, such as train+dev, or by folds of all clips"
        )
    return min(n_folds, n_groups)


def check_labels(
    classes: IntArray, labels: Sequence[str], held_out: GroupBy | None = None, others: str = ""
) -> None:
    """Refuse clips to learn from that lack a label.

    Parameters
    ----------
    classes
        Indices of the labels that are left to learn from.
    labels
        All of them.
    held_out
        What a fold keeps together, if it is a fold that they are without; None: they are all clips
        to learn from.
    others
        Who else is left out then, for the error.

    Raises
    ------
    DatasetError
        With the labels that are missing.
    """
    present: Collection[int] = set(classes.tolist())
    missing = ", ".join(label for index, label in enumerate(labels) if index not in present)
    if missing and held_out:
        raise DatasetError(
            f"without the {held_out}s of a fold{others}, no clips of {missing} are left to learn "
            f"from; expected every emotion of several {held_out}s"
        )
    if missing:
        raise DatasetError(
            f"no clips of {missing} are among those to learn from; expected some of every emotion; "
            "learn from more splits, such as train+dev, or by folds of all clips"
        )


def check_folds(
    clips: Sequence[Clip], labels: Sequence[str], n_folds: int, group_by: GroupBy
) -> None:
    """Refuse clips whose folds do not suffice to learn from, before any of them is heard.

    Parameters
    ----------
    clips
        What is to be divided.
    labels
        Of the clips.
    n_folds, group_by
        As for `count_folds`.

    Raises
    ------
    DatasetError
        If speakers are unknown, there is only one, or an emotion does not occur, or with the
        speakers of one fold only.
    """
    groups = group_clips(clips, group_by)
    classes = np.array(class_indices(clips, labels))
    check_labels(classes, labels)
    for inside, _ in GroupKFold(count_folds(groups, n_folds, group_by)).split(
        groups, groups=groups
    ):
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
    """Return figures of versions of clips, of groups that no part of it has heard.

    Parameters
    ----------
    scores
        Held out: of models that did not hear the group; version after version, of all clips each,
        shape (n_rows, n_labels).
    classes, groups
        Of the rows, shape (n_rows,).
    labels
        In the order of the columns.
    n_folds
        Of which all but one are calibrated on, and one is judged.
    calibrate
        Fits the calibration.
    versions
        Names of the versions, see `VERSIONS`; what has the same name is one.

    Returns
    -------
    dict
        Figures of each version, by its name.
    """
    probabilities = np.empty(scores.shape)
    for inside, outside in GroupKFold(n_folds).split(scores, groups=groups):
        calibration = calibrate(scores[inside], classes[inside], groups[inside])
        probabilities[outside] = calibration.probabilities(scores[outside])
    names = np.repeat(versions, len(scores) // len(versions))
    return {
        name: evaluate_probabilities(classes[names == name], probabilities[names == name], labels)
        for name in dict.fromkeys(versions)
    }
