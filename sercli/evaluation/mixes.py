"""Effect of adapting to a group's baseline, by group size and mix of emotions.

Groups are drawn from the clips of each speaker. Each clip is classified twice, by itself and with
the baseline of its group, and the two results are compared.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from sercli.arrays import DoubleArray, IntArray, split_by
from sercli.evaluation.metrics import expected_calibration_error, rate_counts
from sercli.labels import CALM

SIZES: Final = (3, 10, 30, 80)
# Shares of the calm label; the other labels are equally frequent.
CALM_SHARES: Final = (1.0, 0.8, 0.5)
EVEN: Final = "even"
# Name of the mix in which all clips have the same label, other than the calm one.
SINGLE: Final = "one emotion"
N_DRAWS: Final = 20
N_RESAMPLES: Final = 1000

# Maps the row indices of a group to its adapted probabilities.
Adapt = Callable[[IntArray], DoubleArray]


class Drawn(NamedTuple):
    """Probabilities of the clips in all groups of one size and mix."""

    voices: IntArray  # index of each clip's speaker
    classes: IntArray  # index of each clip's true label
    alone: DoubleArray  # each clip by itself
    adapted: DoubleArray  # with the baseline of its group
    n_groups: int


def draw_group(
    classes: IntArray, shares: DoubleArray, size: int, rng: np.random.Generator
) -> IntArray:
    """Draw clips of one speaker, without replacement, so that the labels have given shares.

    Parameters
    ----------
    classes
        Label indices of the speaker's clips, shape (n_clips,).
    shares
        Share of each label, shape (n_labels,), summing to 1; labels that the speaker lacks leave
        theirs to the others. If one of them has the largest share, or they leave a single label,
        nothing is drawn.
    size
        Number of clips to draw; fewer are drawn if a label has too few clips for its share.
    rng
        Source of all draws.

    Returns
    -------
    ndarray of int
        Indices of the drawn clips.
    """
    there = np.bincount(classes, minlength=len(shares))
    wanted = (shares > 0) & (there > 0)
    # Without the label of the largest share, or with one label alone, it would be another mix.
    is_other = shares[wanted].max(initial=0) < shares.max()
    if is_other or np.count_nonzero(wanted) == 1 < np.count_nonzero(shares):
        return np.empty(0, np.int64)
    if np.any(wanted != (shares > 0)):
        shares = np.where(wanted, shares, 0.0) / shares[wanted].sum()
    size = min(size, int(np.min(there[wanted] / shares[wanted]) + 1e-9))
    # Fractional counts are rounded up at random, with the fractions as weights.
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
    """Return the mixes by name, each as the label shares that successive groups use in turn.

    Parameters
    ----------
    labels
        Label names, in the order of the shares.
    """
    n_labels = len(labels)
    mixes: dict[str, list[DoubleArray]] = {}
    if CALM in labels:
        calm = labels.index(CALM)
        for share in CALM_SHARES:
            shares = np.full(n_labels, (1 - share) / (n_labels - 1))
            shares[calm] = share
            mixes[f"{share:.0%} {CALM}"] = [shares]
    mixes[EVEN] = [np.full(n_labels, 1 / n_labels)]
    single = zip(labels, np.eye(n_labels), strict=True)
    mixes[SINGLE] = [row for label, row in single if label != CALM]
    return mixes


def measure_mixes(
    adapt: Adapt,
    alone: DoubleArray,
    classes: IntArray,
    voices: Sequence[str | None],
    labels: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Measure the effect of baselines in groups of all sizes and mixes.

    Parameters
    ----------
    adapt
        Returns the probabilities of a group, given its row indices, with the group's baseline.
    alone
        The model's probabilities of each clip by itself, shape (n_clips, n_labels).
    classes
        Indices of the true labels, shape (n_clips,).
    voices
        Speaker of each clip.
    labels
        Label names, in the order of the probabilities.
    seed
        Seed of all draws.

    Returns
    -------
    list of dict
        A row for each size and mix: the figures without and with the baseline, and the difference
        in UAR, or in accuracy where the labels are not equally frequent.
    """
    rows = []
    for mix, turns in list_mixes(labels).items():
        largest = 0.0
        for size in SIZES:
            rng = np.random.default_rng([seed, size])
            found = _draw(adapt, alone, classes, voices, turns, size, rng)
            mean_size = len(found.classes) / max(found.n_groups, 1)
            # The speakers have no clips for larger groups: the row would repeat the previous one.
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
    parts: list[tuple[IntArray, IntArray, DoubleArray]] = []
    for voice, own in enumerate(split_by(np.array(voices, str))):
        for number in range(N_DRAWS):
            group = own[draw_group(classes[own], turns[number % len(turns)], size, rng)]
            if not len(group):
                continue
            parts.append((np.full(len(group), voice), group, adapt(group)))
    if not parts:
        empty = np.empty((0, alone.shape[1]))
        return Drawn(np.empty(0, np.int64), classes[:0], empty, empty, 0)
    drawn_voices, drawn, adapted_rows = (np.concatenate(one) for one in zip(*parts, strict=True))
    return Drawn(drawn_voices, classes[drawn], alone[drawn], adapted_rows, len(parts))


def _describe(found: Drawn, mix: str, size: int, seed: int) -> dict[str, Any]:
    figure = "uar" if mix == EVEN else "accuracy"
    tables = {"alone": found.alone, "adapted": found.adapted}
    n_labels = found.alone.shape[1]
    # For each speaker, the numbers of clips and of correctly classified clips by label.
    sums = {name: np.stack(list(_count(found, rows, n_labels))) for name, rows in tables.items()}
    rng = np.random.default_rng([seed, 1])
    n_voices = len(sums["alone"])
    counts = rng.multinomial(n_voices, np.full(n_voices, 1 / n_voices), N_RESAMPLES)
    drawn = {name: _rate(np.tensordot(counts, one, 1), figure) for name, one in sums.items()}
    # A single speaker says nothing about the variation between speakers.
    differences = drawn["adapted"] - drawn["alone"]
    interval = np.percentile(differences, [2.5, 97.5]).tolist() if n_voices > 1 else None
    rates = {name: float(_rate(one.sum(axis=0)[None], figure)[0]) for name, one in sums.items()}
    return {
        "mix": mix,
        "size": size,
        "mean_size": round(len(found.classes) / found.n_groups, 1),
        "groups": found.n_groups,
        "figure": figure,
        **{
            name: {figure: rates[name], "ece": expected_calibration_error(found.classes, rows)}
            for name, rows in tables.items()
        },
        "difference": rates["adapted"] - rates["alone"],
        "interval": interval,
    }


def _count(found: Drawn, rows: DoubleArray, n_labels: int) -> Iterator[DoubleArray]:
    right = rows.argmax(axis=1) == found.classes
    for own in split_by(found.voices):
        yield np.stack(
            (
                np.bincount(found.classes[own], minlength=n_labels),
                np.bincount(found.classes[own], right[own], n_labels),
            )
        )


def _rate(sums: DoubleArray, figure: str) -> DoubleArray:
    """Return the UAR or accuracy of each row of counts, which have shape (n, 2, n_labels)."""
    return rate_counts(sums[:, 1], sums[:, 0], figure)
