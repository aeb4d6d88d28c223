"""Adaptation: corrects the scores of segments by the baseline of their group.

A group shares a voice, a room or a telephone line. A loud speaker is not necessarily angry, so the
offset that the segments of a group have in common, beyond what their emotions explain, is their
baseline, and it is subtracted from each of them. If it were simply their mean, a calm call would
turn into anger. So the part that emotions explain is estimated first, from the model's
probabilities for each segment by itself and from the mix of emotions that these make likely
(expectation-maximisation after Saerens et al. 2002, with a prior). How far each estimate is trusted
in a group of a given size and mix was learned from random groups of many speakers, see
`sercli.training.adapters.adaptation`.

The only inputs are the model's probabilities for each segment by itself: in trials, the logarithms
of six probabilities were as informative about a group as thousands of features. So an adapter works
with any model, and nothing else has to be kept of a segment.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from reprlib import repr as shorten
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, RealArray, Tensors, store_weights
from sercli.calibration import Calibration
from sercli.errors import ConfigError, ModelError

# Standardised inputs are clipped to this magnitude.
MAX_DEVIATION = 5.0
# Segments of a group that are in memory at once.
BLOCK_SEGMENTS = 4096
# Iterations of expectation-maximisation: the mix hardly changes after that.
N_ROUNDS = 5
# The prior of the mix: this many segments of each emotion are added to the counts.
CONCENTRATION = 1.0
# Added to a share before its logarithm is taken.
LEAST_SHARE = 0.02
# Added to a probability before its logarithm is taken. It is small because on speech unlike its
# training data a model may be sure of a wrong label, and the small probabilities of the others are
# the only evidence left.
LEAST_PROBABILITY = 1e-8
# How far each probability may be rounded in a table: to three decimals.
ROUNDING = 0.0005
# Mixes that may explain the mean of a group: mean probabilities, likely shares, an even mix.
N_EXPLANATIONS = 3
# A larger group is not trusted more, as the adapter was trained on none.
MAX_SIZE = 80
# A factor of seven: more, fitted on few groups, would turn likely labels into certain ones.
MAX_SHARPENING = 2.0
# Parts of an adapter that are two linear layers with a ReLU between them.
LAYERED = ("trust", "context")


@dataclass(frozen=True)
class AdapterSettings:
    """Settings of how far a baseline is trusted.

    Parameters
    ----------
    least
        Smallest group with a baseline; segments of smaller groups are scored by themselves.
    shrinkage
        Number of segments at which the weight of a baseline is one half.
    safe
        Whether it may be used without being asked for, as it hurt no mix of emotions by more than
        a little.
    sharpening
        Logarithm of the factor by which scores are multiplied in a group that is all of one
        label, compared with an even mix; see `Adapter.find_sharpness`.

    Raises
    ------
    ModelError
        If a value is out of range.
    """

    least: int = 6
    shrinkage: float = 5.0
    safe: bool = True
    sharpening: float = 0.0

    def __post_init__(self) -> None:
        """Check every value against its range, as a damaged description could break it."""
        if self.least < 1 or not 0 <= self.shrinkage < math.inf:
            raise ModelError(
                f"its adapter has least {self.least} and shrinkage {self.shrinkage}; expected 1 "
                "or more, and 0 or more"
            )
        if not abs(self.sharpening) <= MAX_SHARPENING:
            raise ModelError(
                f"its adapter has the sharpening {self.sharpening}; expected "
                f"{-MAX_SHARPENING:g} to {MAX_SHARPENING:g}"
            )


class Rows(Protocol):
    """Probabilities of the segments of a group, read and replaced slice by slice: such as an array.

    A group may be larger than memory, so it is worked through in blocks, several times.
    """

    def __len__(self) -> int:
        """Return the number of segments."""

    def __getitem__(self, part: slice, /) -> RealArray:
        """Return the probabilities of some segments, shape (n_segments, n_labels)."""

    def __setitem__(self, part: slice, rows: DoubleArray, /) -> None:
        """Replace the probabilities of some segments."""


class Adapter:
    """Network that scores the segments of a group with regard to their baseline.

    Parameters
    ----------
    settings
        Settings of how far a baseline is trusted.
    calibration
        Calibration of the scores.
    tensors
        ``mean`` and ``scale`` of the inputs, shape (n_labels,); ``first.weight`` (n_hidden,
        n_labels) and ``first.bias``; ``centres`` of each emotion's hidden rows (n_labels,
        n_hidden); ``last.weight`` (n_labels, n_hidden) and ``last.bias``; ``trust.*``, two layers
        from the mix of emotions to the weights of the mixes that may explain the mean;
        ``context.*``, two layers from the moments and the mix to a shift of all rows.

    Raises
    ------
    ModelError
        If tensors are missing or unknown, do not fit each other, or have values that are not
        finite.
    """

    def __init__(
        self, settings: AdapterSettings, calibration: Calibration, tensors: Tensors
    ) -> None:
        self.settings, self.calibration = settings, calibration
        self._stored = dict(tensors)
        n_labels = len(calibration.bias)
        n_hidden = _shape(tensors, "first.weight")[0]
        n_trust, n_context = (_shape(tensors, f"{name}.0.weight")[0] for name in LAYERED)
        n_mix = count_mix_inputs(n_labels)
        expected = {
            "mean": (n_labels,),
            "scale": (n_labels,),
            "first.weight": (n_hidden, n_labels),
            "first.bias": (n_hidden,),
            "centres": (n_labels, n_hidden),
            "last.weight": (n_labels, n_hidden),
            "last.bias": (n_labels,),
            "trust.0.weight": (n_trust, n_mix + n_labels),
            "trust.0.bias": (n_trust,),
            "trust.1.weight": (N_EXPLANATIONS, n_trust),
            "trust.1.bias": (N_EXPLANATIONS,),
            "context.0.weight": (n_context, n_mix + 2 * n_hidden),
            "context.0.bias": (n_context,),
            "context.1.weight": (n_hidden, n_context),
            "context.1.bias": (n_hidden,),
        }
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if shapes != expected:
            raise ModelError(f"its adapter has the shapes {shapes}; expected {expected}")
        broken = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
        if broken:
            raise ModelError(f"its adapter has values in {', '.join(broken)} that are not finite")
        self._parts: dict[str, DoubleArray] = {
            name: tensor.astype(np.float64) for name, tensor in tensors.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], tensors: Tensors) -> Self:
        """Rebuild an adapter from the results of `to_dict` and `tensors`.

        Raises
        ------
        ModelError
            If keys are missing or unknown, or values or tensors do not fit.
        """
        try:
            settings = AdapterSettings(**data["settings"])
            calibration = Calibration.from_dict(data["calibration"])
        except (KeyError, TypeError) as error:
            raise ModelError(
                f"its adapter is {shorten(data)}: {error}; expected settings and calibration"
            ) from error
        return cls(settings, calibration, tensors)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings and the calibration as they are stored in ``model.json``."""
        return {"settings": asdict(self.settings), "calibration": self.calibration.to_dict()}

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights in their stored form; see `sercli.arrays.store_weights`."""
        return {name: store_weights(tensor) for name, tensor in self._stored.items()}

    def adapt(self, probabilities: RealArray) -> DoubleArray:
        """Return the probabilities of the segments of a group, corrected by its baseline.

        Parameters
        ----------
        probabilities
            The model's probabilities for each segment by itself, shape (n_segments, n_labels).

        Returns
        -------
        ndarray, shape (n_segments, n_labels)
            Calibrated probabilities, rows summing to 1; unchanged if there are too few segments.
            They do not depend on the order of the segments.

        Raises
        ------
        ConfigError
            If `probabilities` have another shape, or are none: rows of numbers that sum to 1.
        """
        adapted = self._check(probabilities).copy()
        self.rescore(adapted)
        return adapted

    def rescore(self, group: Rows) -> None:
        """Replace the probabilities of a group by those that `adapt` returns, block by block.

        Parameters
        ----------
        group
            The model's probabilities for each segment by itself.
        """
        if len(group) < self.settings.least:
            return
        shift = self._find_shift(group)
        factor = self.find_sharpness(self._score(group, shift))
        for place, scores in zip(_list_blocks(group), self._score(group, shift), strict=True):
            group[place] = self.calibration.probabilities(factor * scores)

    def _check(self, probabilities: RealArray) -> DoubleArray:
        """Return a caller's probabilities as an array, or raise if they are none."""
        n_labels = len(self.calibration.bias)
        try:
            found = np.asarray(probabilities, np.float64)
            if found.ndim != 2 or found.shape[1] != n_labels:
                told = f"of the shape {found.shape}"
            else:
                # Rounded in tables, their sum is not exactly 1. False for NaN, too.
                close = abs(found.sum(axis=1, keepdims=True) - 1) <= ROUNDING * n_labels
                possible = ((found >= 0) & close).all(axis=1)
                if possible.all():
                    return found
                row = int(possible.argmin())
                told = f"{found[row].tolist()} in row {row}"
        except (TypeError, ValueError):  # rows of different lengths, or no numbers
            told = shorten(probabilities)
        raise ConfigError(
            f"probabilities are {told}; expected rows of {n_labels} numbers from 0 to 1, one for "
            "each label of the model, that sum to 1"
        )

    def find_sharpness(self, parts: Iterable[DoubleArray]) -> float:
        """Return the factor by which the scores of a group are multiplied before calibration.

        In a group that is mostly of one label, that label is right more often than the scores of
        its segments say. So the factor grows with the concentration of the group on a single label.

        Parameters
        ----------
        parts
            Scores of all its segments, as `score` returns them, in parts of the shape
            (n_segments, n_labels).
        """
        shares = _average(self.calibration.probabilities(scores) for scores in parts)
        return float(np.exp(self.settings.sharpening * find_concentration(shares)))

    def score(self, probabilities: RealArray) -> DoubleArray:
        """Return uncalibrated scores of a group of any size; `probabilities` as for `adapt`."""
        return np.concatenate([*self._score(probabilities, self._find_shift(probabilities))])

    def _score(self, group: Rows, shift: DoubleArray) -> Iterator[DoubleArray]:
        """Yield the scores of each block; `shift` as `_find_shift` returns it."""
        weight, bias = self._parts["last.weight"], self._parts["last.bias"]
        for rows in self._describe(group):
            yield np.maximum(rows + shift, 0) @ weight.T + bias

    def _describe(self, group: Rows) -> Iterator[DoubleArray]:
        """Yield the hidden rows of each block."""
        parts = self._parts
        for block in _read_blocks(group):
            deviations = (centre_log_probabilities(block) - parts["mean"]) / parts["scale"]
            deviations = deviations.clip(-MAX_DEVIATION, MAX_DEVIATION)
            yield deviations @ parts["first.weight"].T + parts["first.bias"]

    def _find_shift(self, group: Rows) -> DoubleArray:
        """Return the vector that is added to all hidden rows of a group, shape (n_hidden,)."""
        n_segments = len(group)
        mean, deviation = measure_moments(self._describe(group))
        likely = find_likely_shares(group)
        mix = describe_mix(group)
        logits = self._layers("trust", np.concatenate((mix, likely)))
        trusts = np.exp(logits - logits.max())
        shares = (trusts / trusts.sum()) @ explain(group, likely)
        trust = n_segments / (n_segments + self.settings.shrinkage)
        offset = trust * (mean - shares @ self._parts["centres"])
        described = np.concatenate((mean - offset, deviation, mix))
        return np.asarray(self._layers("context", described) - offset, np.float64)

    def _layers(self, name: str, inputs: RealArray) -> DoubleArray:
        parts = self._parts
        hidden = np.maximum(parts[f"{name}.0.weight"] @ inputs + parts[f"{name}.0.bias"], 0)
        outputs = parts[f"{name}.1.weight"] @ hidden + parts[f"{name}.1.bias"]
        return np.asarray(outputs, np.float64)


def measure_moments(parts: Iterable[RealArray]) -> tuple[DoubleArray, DoubleArray]:
    """Return the moments of the hidden rows of a group, which come in parts.

    Parameters
    ----------
    parts
        Arrays of hidden rows, each of shape (n_segments, n_hidden); at least one row in all.
    """
    count = 0
    origin = total = squares = np.zeros(0)
    for part in parts:
        if not count:
            # Relative to the first row: far from zero, squares would lose a small deviation.
            origin = part[0].astype(np.float64)
            total = squares = np.zeros_like(origin)
        deviations = part - origin
        count += len(part)
        total = total + deviations.sum(axis=0)
        squares = squares + np.square(deviations).sum(axis=0)
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0)
    return origin + mean, np.sqrt(variance)


def find_likely_shares(probabilities: Rows) -> DoubleArray:
    """Return the likely mix of emotions in a group, shape (n_labels,), summing to 1.

    Parameters
    ----------
    probabilities
        Probabilities of each segment by itself, with all labels equally frequent a priori, shape
        (n_segments, n_labels).
    """
    n_segments, shares = len(probabilities), _average(_read_blocks(probabilities))
    for _ in range(N_ROUNDS):
        counts = n_segments * shares + CONCENTRATION
        mix = counts / counts.sum()
        likely = (block * mix for block in _read_blocks(probabilities))
        shares = _average(odds / odds.sum(axis=1, keepdims=True) for odds in likely)
    return shares


def explain(probabilities: Rows, likely: RealArray) -> DoubleArray:
    """Return mixes that may explain the mean of a group, shape (N_EXPLANATIONS, n_labels).

    They are the mean probabilities, the likely shares, and an even mix.

    Parameters
    ----------
    probabilities
        Probabilities of each segment by itself, shape (n_segments, n_labels).
    likely
        Likely shares of the labels, from `find_likely_shares`.
    """
    alone = _average(_read_blocks(probabilities))
    return np.stack((alone, likely, np.full(len(likely), 1 / len(likely))))


def describe_mix(probabilities: Rows) -> DoubleArray:
    """Return a group's mix of emotions and size as inputs, shape (count_mix_inputs(n_labels),).

    Parameters
    ----------
    probabilities
        Probabilities of each segment by itself, shape (n_segments, n_labels).
    """
    shares = _average(_read_blocks(probabilities))
    # Logarithms relative to an even mix, and log sizes over 4, are of the order of 1.
    logs = np.log(shares + LEAST_SHARE) - np.log(1 / len(shares) + LEAST_SHARE)
    return np.concatenate((shares, logs, [np.log(min(len(probabilities), MAX_SIZE)) / 4]))


def find_concentration(shares: DoubleArray) -> DoubleArray:
    """Return how far groups consist of a single label: 0 for an even mix, 1 for one label alone.

    It is 1 minus the normalised entropy of the shares.

    Parameters
    ----------
    shares
        Shares of the labels in each group, shape (..., n_labels), the last axis summing to 1.
    """
    entropy = -np.sum(shares * np.log(np.maximum(shares, LEAST_PROBABILITY)), axis=-1)
    return np.asarray(1 - entropy / np.log(shares.shape[-1]), np.float64)


def centre_log_probabilities(probabilities: RealArray) -> DoubleArray:
    """Return log probabilities minus the mean of each row, shape (n_segments, n_labels).

    Parameters
    ----------
    probabilities
        Probabilities of each segment by itself, shape (n_segments, n_labels).
    """
    logs = np.log(np.asarray(probabilities, np.float64) + LEAST_PROBABILITY)
    return np.asarray(logs - logs.mean(axis=1, keepdims=True), np.float64)


def count_mix_inputs(n_labels: int) -> int:
    """Return the length of the vector that `describe_mix` returns."""
    return 2 * n_labels + 1


def _list_blocks(group: Rows) -> Iterator[slice]:
    """Yield the places of the blocks of a group."""
    for start in range(0, len(group), BLOCK_SEGMENTS):
        yield slice(start, start + BLOCK_SEGMENTS)


def _read_blocks(group: Rows) -> Iterator[DoubleArray]:
    for place in _list_blocks(group):
        yield np.asarray(group[place], np.float64)


def _average(parts: Iterable[DoubleArray]) -> DoubleArray:
    """Return the mean of the rows of all parts, of which there must be one row or more."""
    count, total = 0, np.zeros(())
    for part in parts:
        count += len(part)
        total = total + part.sum(axis=0)
    return total / count


def _shape(tensors: Tensors, name: str) -> tuple[int, int]:
    shape = tensors[name].shape if name in tensors else ()
    if len(shape) != 2:
        raise ModelError(f"its adapter has no matrix {name}; copy the model's folder again")
    return int(shape[0]), int(shape[1])
