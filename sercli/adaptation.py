"""Judging segments by the baseline of their group: what a voice, a room and a line have in common.

A loud speaker is not angry, and a studio is no joy. What the segments of a group have in common
beyond what their emotions explain is their baseline, and it is taken from each of them. Were it
simply their mean, a calm call would turn into anger; so what their emotions explain is estimated
from what a model says of them one by one, and from the mix of emotions that this makes likely (the
expectation-maximisation of Saerens et al. 2002, with a prior). How far each of these is to be
trusted in a group of that size and mix was learned from random groups of many speakers, see
`sercli.training.adapters.adaptation`.

All of it works on what the model says of each segment by itself: in trials, the logarithms of six
probabilities told as much of a group as thousands of features. So it does not matter what model it
is, and nothing else has to be kept of a segment.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from reprlib import repr as shorten
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, RealArray
from sercli.calibration import Calibration
from sercli.errors import ConfigError, ModelError

# Of standardised inputs: outliers beyond this are cut.
MAX_DEVIATION = 5.0
# Segments whose hidden rows are in memory at once.
BLOCK_SEGMENTS = 4096
# Rounds of expectation and maximisation: the mix changes by little after that.
N_ROUNDS = 5
# Segments of each emotion that are assumed before any is counted.
CONCENTRATION = 1.0
# Added to a share before its logarithm is taken.
LEAST_SHARE = 0.02
# Added to a probability before its logarithm is taken. In another world, a model may be sure of the
# wrong label, and what it thinks of the others is all that is left to judge by.
LEAST_PROBABILITY = 1e-8
# What may explain the mean of a group: each segment by itself, its likely mix, an even mix.
N_EXPLANATIONS = 3
# A larger group is not trusted more: none was learned from.
MAX_SIZE = 80
# A factor of seven: where few groups tell, more would make certain what is merely likely.
MAX_SHARPENING = 2.0
# Parts of an adapter that are two layers with a rectifier between them.
LAYERED = ("trust", "context")

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class AdapterSettings:
    """How far a baseline is trusted.

    Parameters
    ----------
    least
        Segments that a group has at least: those of smaller ones are judged each by itself.
    shrinkage
        A baseline of as many segments is trusted by one half.
    safe
        Whether it is used where nobody asks for it: it hurt no mix of emotions by more than little.
    sharpening
        Logarithm of how much surer it is of a group that is all of one label than of an even mix,
        see `Adapter.calibrate`.

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
        """Check what a damaged description could break."""
        if self.least < 1 or self.shrinkage < 0:
            raise ModelError(
                f"its adapter has least {self.least} and shrinkage {self.shrinkage}; expected 1 "
                "or more, and 0 or more"
            )
        if not abs(self.sharpening) <= MAX_SHARPENING:
            raise ModelError(
                f"its adapter has the sharpening {self.sharpening}; expected "
                f"{-MAX_SHARPENING:g} to {MAX_SHARPENING:g}"
            )


class Moments(NamedTuple):
    """What is known of the hidden rows of a group.

    Parameters
    ----------
    mean, deviation
        Of each column, shape (n_hidden,).
    """

    mean: DoubleArray
    deviation: DoubleArray


class Adapter:
    """Scores of segments in the light of their group.

    Parameters
    ----------
    settings
        How far a baseline is trusted.
    calibration
        From scores to probabilities.
    tensors
        ``mean`` and ``scale`` of the inputs, shape (n_labels,); ``first.weight`` (n_hidden,
        n_labels) and ``first.bias``; ``centres`` of each emotion's hidden rows (n_labels,
        n_hidden); ``last.weight`` (n_labels, n_hidden) and ``last.bias``; ``trust.*``, two layers
        from the mix of emotions to what explains the mean; ``context.*``, two layers from the
        moments and the mix to a shift of all rows.

    Raises
    ------
    ModelError
        If tensors are missing or unknown, do not fit each other, or hold what is not finite.
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
        """Rebuild from `to_dict` and `tensors`.

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
                f"its adapter is {dict(data)!r}: {error}; expected settings and calibration"
            ) from error
        return cls(settings, calibration, tensors)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``model.json`` holds of it."""
        return {"settings": asdict(self.settings), "calibration": self.calibration.to_dict()}

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return its weights as they are stored: what is multiplied with in half precision."""
        return {
            name: tensor.astype(np.float16 if tensor.ndim > 1 else np.float32)
            for name, tensor in self._stored.items()
        }

    def adapt(self, probabilities: RealArray) -> DoubleArray:
        """Judge the segments of a group by what they have in common.

        Parameters
        ----------
        probabilities
            What the model says of each segment by itself, shape (n_segments, n_labels).

        Returns
        -------
        ndarray, shape (n_segments, n_labels)
            Calibrated, rows summing to 1; as they were, if there are too few segments. They do not
            depend on the order of the segments.

        Raises
        ------
        ConfigError
            If they are of another shape.
        """
        alone = self._check(probabilities)
        if len(alone) < self.settings.least:
            return alone
        return self.calibrate(self.score(alone))

    def _check(self, probabilities: RealArray) -> DoubleArray:
        """Return what a caller gives as an array; it may be anything."""
        n_labels = len(self.calibration.bias)
        try:
            found = np.asarray(probabilities, np.float64)
            if found.ndim == 2 and found.shape[1] == n_labels:
                return found
            told = f"of the shape {found.shape}"
        except (TypeError, ValueError):  # rows of different lengths, or no numbers
            told = shorten(probabilities)
        raise ConfigError(
            f"probabilities are {told}; expected rows of {n_labels} numbers, one for "
            "each label of the model"
        )

    def calibrate(self, scores: RealArray) -> DoubleArray:
        """Return the probabilities of a group, shape (n_segments, n_labels), rows summing to 1.

        A group that is mostly of one label is easier than its segments look: a label that most of
        it has is the right one more often than their scores say. So the scores of a group are
        multiplied by the more, the more of one label it is found to be.

        Parameters
        ----------
        scores
            Of all its segments, as `score` returns them, shape (n_segments, n_labels).
        """
        evenly = self.calibration.probabilities(scores)
        factor = np.exp(self.settings.sharpening * find_concentration(evenly.mean(axis=0)))
        return self.calibration.probabilities(factor * np.asarray(scores, np.float64))

    def score(self, probabilities: RealArray) -> DoubleArray:
        """Return uncalibrated scores of a group of any size; the parameter is that of `adapt`."""
        parts = self._parts
        shift = self._find_shift(probabilities)
        scores = [
            np.maximum(rows + shift, 0) @ parts["last.weight"].T + parts["last.bias"]
            for rows in self._describe(probabilities)
        ]
        return np.concatenate(scores)

    def _describe(self, probabilities: RealArray) -> Iterator[DoubleArray]:
        """Give hidden rows, block by block: of a large group they are much larger than it is."""
        parts = self._parts
        for start in range(0, len(probabilities), BLOCK_SEGMENTS):
            inputs = find_inputs(probabilities[start : start + BLOCK_SEGMENTS])
            deviations = (inputs - parts["mean"]) / parts["scale"]
            deviations = deviations.clip(-MAX_DEVIATION, MAX_DEVIATION)
            yield deviations @ parts["first.weight"].T + parts["first.bias"]

    def _find_shift(self, probabilities: RealArray) -> DoubleArray:
        """Return what is added to the hidden rows of a group, shape (n_hidden,)."""
        n_segments = len(probabilities)
        mean, deviation = measure_moments(self._describe(probabilities))
        likely = find_likely_shares(probabilities)
        mix = describe_mix(probabilities)
        logits = self._layers("trust", np.concatenate((mix, likely)))
        trusts = np.exp(logits - logits.max())
        shares = (trusts / trusts.sum()) @ explain(probabilities, likely)
        trust = n_segments / (n_segments + self.settings.shrinkage)
        offset = trust * (mean - shares @ self._parts["centres"])
        described = np.concatenate((mean - offset, deviation, mix))
        return np.asarray(self._layers("context", described) - offset, np.float64)

    def _layers(self, name: str, inputs: RealArray) -> DoubleArray:
        parts = self._parts
        hidden = np.maximum(parts[f"{name}.0.weight"] @ inputs + parts[f"{name}.0.bias"], 0)
        outputs = parts[f"{name}.1.weight"] @ hidden + parts[f"{name}.1.bias"]
        return np.asarray(outputs, np.float64)


def measure_moments(parts: Iterable[RealArray]) -> Moments:
    """Return the moments of the hidden rows of a group, which come in parts.

    Parameters
    ----------
    parts
        Each of shape (n_segments, n_hidden); at least one row in all.
    """
    count = 0
    origin = total = squares = np.zeros(0)
    for part in parts:
        if not count:
            # Around the first row: far from zero, squares would leave nothing of a deviation.
            origin = part[0].astype(np.float64)
            total = squares = np.zeros_like(origin)
        deviations = part - origin
        count += len(part)
        total = total + deviations.sum(axis=0)
        squares = squares + np.square(deviations).sum(axis=0)
    mean = total / count
    variance = np.maximum(squares / count - np.square(mean), 0)
    return Moments(origin + mean, np.sqrt(variance))


def find_likely_shares(probabilities: RealArray) -> DoubleArray:
    """Return what mix of emotions a group seems to have, shape (n_labels,), summing to 1.

    Parameters
    ----------
    probabilities
        Of each segment by itself, for a mix in which all labels are equally frequent, shape
        (n_segments, n_labels).
    """
    alone = np.asarray(probabilities, np.float64)
    shares: DoubleArray = alone.mean(axis=0)
    for _ in range(N_ROUNDS):
        counts = len(alone) * shares + CONCENTRATION
        likely = alone * (counts / counts.sum())
        shares = (likely / likely.sum(axis=1, keepdims=True)).mean(axis=0)
    return shares


def explain(probabilities: RealArray, likely: RealArray) -> DoubleArray:
    """Return mixes that may explain the mean of a group, shape (N_EXPLANATIONS, n_labels).

    Parameters
    ----------
    probabilities
        Of each segment by itself, shape (n_segments, n_labels).
    likely
        Of `find_likely_shares`.
    """
    alone = np.mean(probabilities, axis=0, dtype=np.float64)
    return np.stack((alone, likely, np.full(len(likely), 1 / len(likely))))


def describe_mix(probabilities: RealArray) -> DoubleArray:
    """Return a group's mix of emotions and size as inputs, shape (count_mix_inputs(n_labels),).

    Parameters
    ----------
    probabilities
        Of each segment by itself, shape (n_segments, n_labels).
    """
    shares: DoubleArray = np.mean(probabilities, axis=0, dtype=np.float64)
    # Logarithms around that of an even mix, and sizes from 1 to some hundreds, are around 0 to 1.
    logs = np.log(shares + LEAST_SHARE) - np.log(1 / len(shares) + LEAST_SHARE)
    return np.concatenate((shares, logs, [np.log(min(len(probabilities), MAX_SIZE)) / 4]))


def find_concentration(shares: DoubleArray) -> DoubleArray:
    """Return how far groups are of a single label: 0 for an even mix, 1 for one label alone.

    Parameters
    ----------
    shares
        Of the labels in each group, shape (..., n_labels), the last axis summing to 1.
    """
    entropy = -np.sum(shares * np.log(np.maximum(shares, LEAST_PROBABILITY)), axis=-1)
    return np.asarray(1 - entropy / np.log(shares.shape[-1]), np.float64)


def find_inputs(probabilities: RealArray) -> DoubleArray:
    """Return logarithms of probabilities, around their mean, shape (n_segments, n_labels).

    Parameters
    ----------
    probabilities
        Of each segment by itself, shape (n_segments, n_labels).
    """
    logs = np.log(np.asarray(probabilities, np.float64) + LEAST_PROBABILITY)
    return np.asarray(logs - logs.mean(axis=1, keepdims=True), np.float64)


def count_mix_inputs(n_labels: int) -> int:
    """Return the length of what `describe_mix` returns."""
    return 2 * n_labels + 1


def _shape(tensors: Tensors, name: str) -> tuple[int, int]:
    shape = tensors[name].shape if name in tensors else ()
    if len(shape) != 2:
        raise ModelError(f"its adapter has no matrix {name}; copy the model's folder anew")
    return int(shape[0]), int(shape[1])
