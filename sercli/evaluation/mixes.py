"""How much a baseline helps, or hurts, in groups of any size and mix of emotions.

Groups are drawn from the clips of each speaker. What is measured of them is what the model says of
each clip by itself, and what it says by the baseline of the group.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from sercli.arrays import DoubleArray, IntArray
from sercli.errors import DatasetError
from sercli.evaluation.metrics import expected_calibration_error
from sercli.labels import CALM

SIZES: Final = (3, 10, 30, 80)
# Shares of the calm label; all others are equally frequent.
CALM_SHARES: Final = (1.0, 0.8, 0.5)
EVEN: Final = "even"
# All of one label, which is not the calm one.
SINGLE: Final = "one emotion"
N_DRAWS: Final = 20
N_RESAMPLES: Final = 1000

# From the rows of a group to its probabilities.
Adapt = Callable[[IntArray], DoubleArray]


class Drawn(NamedTuple):
    """What was said of the clips of the groups of one size and mix."""

    voices: IntArray  # number of the speaker of each clip
    classes: IntArray
    alone: DoubleArray
    adapted: DoubleArray
    n_groups: int


def draw_group(
    classes: IntArray, shares: DoubleArray, size: int, rng: np.random.Generator
) -> IntArray:
    """Draw clips of one speaker so that their emotions have given shares, none twice.

    Parameters
    ----------
    classes
        Of the speaker's clips, shape (n_clips,).
    shares
        Of each label, shape (n_labels,), summing to 1.
    size
        Clips to draw; fewer, if a label has not enough for its share.
    rng
        Source of all draws.

    Returns
    -------
    ndarray of int
        Places of the clips.
    """
    there = np.bincount(classes, minlength=len(shares))
    wanted = shares > 0
    size = min(size, int(np.min(there[wanted] / shares[wanted]) + 1e-9))
    # Of shares that are no whole number of clips, by lot.
    counts = np.floor(shares * size + 1e-9).astype(int)
    rest = np.flatnonzero(wanted & (counts < there))
    left = shares[rest] * size - counts[rest]
    n_more = min(size - int(counts.sum()), len(rest))
    if n_more > 0:
        counts[rng.choice(rest, n_more, replace=False, p=(left + 1e-9) / (left + 1e-9).sum())] += 1
    return np.concatenate(
        [
            rng.permutation(np.flatnonzero(classes == label))[:count]
            for label, count in enumerate(counts)
        ]
    )


def list_mixes(labels: Sequence[str]) -> dict[str, list[DoubleArray]]:
    """Return the mixes by name, each as the shares of the labels that it is drawn by in turn.

    Parameters
    ----------
    labels
        In the order of the shares.
    """
    n_labels = len(labels)
    single = np.eye(n_labels)
    mixes: dict[str, list[DoubleArray]] = {}
    if CALM in labels:
        calm = labels.index(CALM)
        for share in CALM_SHARES:
            shares = np.full(n_labels, (1 - share) / (n_labels - 1))
            shares[calm] = share
            mixes[f"{share:.0%} {CALM}"] = [shares]
    mixes[EVEN] = [np.full(n_labels, 1 / n_labels)]
    mixes[SINGLE] = [row for label, row in zip(labels, single, strict=True) if label != CALM]
    return mixes


def measure_mixes(
    adapt: Adapt,
    alone: DoubleArray,
    classes: IntArray,
    voices: Sequence[str | None],
    labels: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Measure a model on groups of all sizes and mixes.

    Parameters
    ----------
    adapt
        Judges the clips of a group, which are given by their rows.
    alone
        What the model says of each clip by itself, shape (n_clips, n_labels).
    classes
        Indices of the true labels, shape (n_clips,).
    voices
        Speaker of each clip.
    labels
        In the order of the probabilities.
    seed
        Of all draws.

    Returns
    -------
    list of dict
        A row for each size and mix: figures of the clips by themselves and by the baseline, and the
        difference of their UAR, or of their accuracy where the labels are not equally frequent.

    Raises
    ------
    DatasetError
        If speakers are unknown.
    """
    if None in voices:
        raise DatasetError(
            "speakers are unknown; expected a speaker for every clip, to draw groups"
        )
    rows = []
    for mix, turns in list_mixes(labels).items():
        largest = 0.0
        for size in SIZES:
            rng = np.random.default_rng([seed, size])
            found = _draw(adapt, alone, classes, voices, turns, size, rng)
            mean_size = len(found.classes) / max(found.n_groups, 1)
            # No more clips than the size before had: it would be the same row again.
            if mean_size < largest + 1:
                break
            largest = mean_size
            rows.append(_describe(found, mix, size, seed))
    return rows


def _draw(
    adapt: Adapt,
    alone: DoubleArray,
    classes: IntArray,
    voices: Sequence[str | None],
    turns: Sequence[DoubleArray],
    size: int,
    rng: np.random.Generator,
) -> Drawn:
    names, numbers = np.unique(np.array(voices, str), return_inverse=True)
    parts: list[tuple[IntArray, IntArray, DoubleArray]] = []
    for voice in range(len(names)):
        own = np.flatnonzero(numbers == voice)
        for number in range(N_DRAWS):
            group = own[draw_group(classes[own], turns[number % len(turns)], size, rng)]
            if not len(group):
                continue
            parts.append((np.full(len(group), voice), group, adapt(group)))
    if not parts:
        empty = np.empty((0, alone.shape[1]))
        return Drawn(numbers[:0], classes[:0], empty, empty, 0)
    drawn_voices, drawn, adapted_rows = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Drawn(drawn_voices, classes[drawn], alone[drawn], adapted_rows, len(parts))


def _describe(found: Drawn, mix: str, size: int, seed: int) -> dict[str, Any]:
    figure = "uar" if mix == EVEN else "accuracy"
    tables = {"alone": found.alone, "adapted": found.adapted}
    n_labels = found.alone.shape[1]
    # Of each speaker, the clips of each label and those of them that were recognised.
    sums = {name: np.stack(list(_count(found, rows, n_labels))) for name, rows in tables.items()}
    rng = np.random.default_rng([seed, 1])
    n_voices = len(sums["alone"])
    counts = rng.multinomial(n_voices, np.full(n_voices, 1 / n_voices), N_RESAMPLES)
    differences = [
        _rate(np.tensordot(counts, sums["adapted"], 1), figure)
        - _rate(np.tensordot(counts, sums["alone"], 1), figure)
    ]
    # Of one speaker, nothing is known of how others differ.
    interval = np.percentile(differences, [2.5, 97.5]).tolist() if n_voices > 1 else None
    rates = {name: float(_rate(one.sum(axis=0)[None], figure)[0]) for name, one in sums.items()}
    return {
        "mix": mix,
        "size": size,
        "mean_size": round(len(found.classes) / found.n_groups, 1),
        "groups": found.n_groups,
        "figure": figure,
        **{
            name: {
                figure: rates[name],
                "ece": expected_calibration_error(found.classes, rows),
            }
            for name, rows in tables.items()
        },
        "difference": rates["adapted"] - rates["alone"],
        "interval": interval,
    }


def _count(found: Drawn, rows: DoubleArray, n_labels: int) -> Iterator[DoubleArray]:
    right = rows.argmax(axis=1) == found.classes
    for voice in np.unique(found.voices):
        own = found.voices == voice
        yield np.stack(
            (
                np.bincount(found.classes[own], minlength=n_labels),
                np.bincount(found.classes[own], right[own], n_labels),
            )
        )


def _rate(sums: DoubleArray, figure: str) -> DoubleArray:
    """Return UAR or accuracy of counts, shape (n, 2, n_labels)."""
    there, right = sums[:, 0], sums[:, 1]
    if figure == "accuracy":
        accuracy: DoubleArray = right.sum(axis=1) / there.sum(axis=1)
        return accuracy
    recalls = np.divide(right, there, out=np.zeros_like(right, np.float64), where=there > 0)
    uar: DoubleArray = recalls.sum(axis=1) / (there > 0).sum(axis=1)
    return uar
