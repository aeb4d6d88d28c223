"""Training of adapters, which classify segments relative to the baseline of their group.

An adapter is trained on groups of clips drawn at random in every step, each of one speaker and of
any size and mix of emotions, and so learns how far a baseline can be trusted. Its inputs are the
model's held-out probabilities of each clip, which are like those of strangers.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from torch import Tensor
from torch.nn import functional

from sercli.adaptation import (
    MAX_DEVIATION,
    MAX_SHARPENING,
    Adapter,
    AdapterSettings,
    centre_log_probabilities,
    find_concentration,
)
from sercli.arrays import DoubleArray, FloatArray, IntArray
from sercli.calibration import UNCALIBRATED, Calibration, fit_temperature
from sercli.classifiers.base import Classifier
from sercli.errors import DatasetError
from sercli.evaluation.mixes import EVEN, measure_mixes
from sercli.neural.devices import seeded
from sercli.training.adapters.groups import Examples, draw_groups, lean
from sercli.training.adapters.network import AdapterNetwork, describe_group
from sercli.training.config import AdapterConfig
from sercli.training.folds import split_groups
from sercli.training.trainer import Say

# Fewer speakers do not show what voices have in common.
MIN_SPEAKERS = 6
# Minimum number of steps, for few clips; it means more epochs than configured.
MIN_STEPS = 100
# Maximum number of steps, for many clips or several versions of each: more hardly help.
MAX_STEPS = 20_000
# Weight of a segment in the loss, as a power of the size of its group: a large group counts more
# than a small one, but less than in proportion to its size.
GROUP_WEIGHT = -0.25
# Bound on the change of the logarithm of the scale of the scores, from its fit without sharpening
# to its joint fit with it.
MAX_CHANGE = 0.5
# Default of `AdapterConfig.repeated_share` for models that were trained on transposed clips.
REPEATED_SHARE = 1 / 3
# Added to the standard deviations by which inputs are divided.
LEAST_SCALE = 1e-5
# The one-cycle schedule divides by the number of steps of its warm-up, less one.
LEAST_WARMUP = 2


class FittedAdapter(NamedTuple):
    """A trained adapter and its figures.

    Parameters
    ----------
    adapter
        The calibrated adapter.
    figures
        Figures on held-out speakers, from `sercli.evaluation.mixes.measure_mixes`.
    single_share
        The one of `AdapterConfig.single_shares` that was used.
    """

    adapter: Adapter
    figures: list[dict[str, Any]]
    single_share: float


def add_adapter(
    model: Classifier, examples: Examples, config: AdapterConfig, say: Say = lambda _: None
) -> bool:
    """Train an adapter and add it to a model, if the clips suffice.

    Parameters
    ----------
    model
        The model; settings and figures of the adapter are added to its ``spec.training``.
    examples, say
        As for `fit_adapter`.
    config
        Training settings. The default of `AdapterConfig.repeated_share` depends on the model: one
        that labels most clips of another corpus neutral, as a CNN of unlabelled speech alone does,
        would be confirmed in that by groups of calm speech alone.

    Returns
    -------
    bool
        Whether an adapter was added; if not, `say` is called with the reason.
    """
    if config.repeated_share is None:
        share = REPEATED_SHARE if model.spec.training.get("calm") else 0.0
        config = replace(config, repeated_share=share)
    try:
        fitted = fit_adapter(examples, model.spec.labels, config, say)
    except DatasetError as error:
        say(f"cannot train an adapter for baselines: {error}")
        return False
    model.adapter = fitted.adapter
    record = {
        "config": asdict(config),
        "single_share": fitted.single_share,
        "least": fitted.adapter.settings.least,
        "safe": fitted.adapter.settings.safe,
        "mixes": fitted.figures,
    }
    model.spec = replace(model.spec, training={**model.spec.training, "adapter": record})
    return True


def fit_adapter(
    examples: Examples,
    labels: Sequence[str],
    config: AdapterConfig,
    say: Say = lambda _: None,
) -> FittedAdapter:
    """Train an adapter, and calibrate and evaluate it by cross-validation over speakers.

    Parameters
    ----------
    examples
        Clips of all speakers, with the model's held-out probabilities.
    labels
        Labels, in the order of the probabilities.
    config
        Training settings.
    say
        Called with each message.

    Returns
    -------
    FittedAdapter
        The calibrated adapter, trained on all speakers, and its figures on held-out ones.

    Raises
    ------
    DatasetError
        If there are too few speakers, or too few clips of each, or all clips of a label are from
        speakers of the same fold.
    """
    folds = _split(examples, labels, config.folds)
    for share in config.single_shares:
        say(f"training the adapter for baselines, with {share:.0%} of the groups of one emotion")
        adapters = []
        for number, (inside, outside) in enumerate(folds, 1):
            adapters.append((outside, _train(examples.take(inside), config, labels, share)))
            say(f"trained without the speakers of fold {number} of {len(folds)}")
        calibration, sharpening = _calibrate(examples, adapters, config, labels, share)
        settings = AdapterSettings(sharpening=sharpening)
        adapters = [
            (outside, Adapter(settings, calibration, adapter.tensors()))
            for outside, adapter in adapters
        ]
        figures = _measure(examples, adapters, labels, config.seed)
        loss = max(-row["difference"] for row in figures)
        say(f"baselines lose at most {abs(max(loss, 0.0)):.3f}, in groups of held-out speakers")
        if loss <= config.max_loss:
            break
    tensors = _train(examples, config, labels, share).tensors()
    # Where no speaker has clips of several labels, nothing is known of mixed groups.
    is_mixed = any(row["mix"] == EVEN for row in figures)
    settings = replace(settings, safe=bool(is_mixed and loss <= config.max_loss))
    return FittedAdapter(Adapter(settings, calibration, tensors), figures, share)


def fit_sharpening(
    scores: DoubleArray, classes: IntArray, sizes: Sequence[int]
) -> tuple[Calibration, float]:
    """Fit the parameters of `Adapter.find_sharpness` by maximum likelihood.

    Parameters
    ----------
    scores
        Scores of the segments, one group after another, shape (n_segments, n_labels).
    classes
        Index of the true label of each segment, shape (n_segments,).
    sizes
        Number of segments in each group, all above 0.

    Returns
    -------
    calibration : Calibration
        Temperature scaling.
    sharpening : float
        See `sercli.adaptation.AdapterSettings`.
    """
    start = fit_temperature(scores, classes)
    starts = np.cumsum([0, *sizes[:-1]])
    rows = np.arange(len(classes))

    def loss(parameters: DoubleArray) -> float:
        log_factor, sharpening = parameters
        logits = np.exp(log_factor) * start.logits(scores)
        shares = np.add.reduceat(softmax(logits, axis=1), starts) / np.c_[sizes]
        factors = np.exp(sharpening * find_concentration(shares))
        logits = np.repeat(factors, sizes)[:, None] * logits
        return -float(log_softmax(logits, axis=1)[rows, classes].mean())

    # Bounded near the temperature without sharpening: if all predictions are right, as with little
    # data, the likelihood would grow with the factor without limit.
    bounds = ((-MAX_CHANGE, MAX_CHANGE), (-MAX_SHARPENING, MAX_SHARPENING))
    log_factor, sharpening = minimize(loss, (0.0, 0.0), method="Nelder-Mead", bounds=bounds).x
    return replace(start, weights=np.exp(log_factor) * start.weights), float(sharpening)


def _split(
    examples: Examples, labels: Sequence[str], n_folds: int
) -> list[tuple[IntArray, IntArray]]:
    """Return the training and the held-out clips of each fold; raise if they do not suffice."""
    n_speakers = len(np.unique(examples.voices))
    if n_speakers < MIN_SPEAKERS:
        raise DatasetError(
            f"expected clips of {MIN_SPEAKERS} speakers or more; found {n_speakers} known speakers"
        )
    largest, least = int(np.bincount(examples.sources).max()), AdapterSettings().least
    if largest < least:
        raise DatasetError(
            f"expected a speaker with {least} clips or more; found at most {largest} clips of any "
            "speaker"
        )
    folds = split_groups(examples.voices, min(n_folds, n_speakers))
    for inside, _ in folds:
        counts = np.bincount(examples.classes[inside], minlength=len(labels))
        if not counts.all():
            raise DatasetError(
                "expected clips of all labels in every fold; all clips of "
                f"{labels[int(counts.argmin())]} are by the speakers of one fold"
            )
    return folds


def _train(
    examples: Examples, config: AdapterConfig, labels: Sequence[str], single_share: float
) -> Adapter:
    """Return a trained adapter that is not calibrated yet."""
    inputs = centre_log_probabilities(examples.probabilities)
    scaling = _Scaling(inputs.mean(axis=0), inputs.std(axis=0) + LEAST_SCALE)
    plain = scaling.apply(examples.probabilities)
    centres = np.stack(
        [plain[examples.classes == label].mean(axis=0) for label in range(len(labels))]
    )
    batches = _draw_batches(examples, config, labels, single_share)
    n_steps = config.epochs * len(inputs) // config.step_clips
    n_steps = min(max(MIN_STEPS, n_steps), MAX_STEPS)
    settings = AdapterSettings()
    with seeded(config.seed):
        network = AdapterNetwork(torch.from_numpy(centres), config, settings.shrinkage)
        optimiser = torch.optim.AdamW(
            network.parameters(), config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            config.learning_rate,
            total_steps=n_steps,
            pct_start=max(config.warmup, LEAST_WARMUP / n_steps),
        )
        for batch in itertools.islice(batches, n_steps):
            optimiser.zero_grad()
            _find_loss(network, batch, scaling).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    tensors = {**scaling._asdict(), **network.tensors()}
    n_labels = len(labels)
    unscaled = Calibration(UNCALIBRATED, np.eye(n_labels), np.zeros(n_labels))
    # Rounded as stored, so that the calibration is fitted on the same weights.
    return Adapter(settings, unscaled, Adapter(settings, unscaled, tensors).tensors())


class _Scaling(NamedTuple):
    """Standardisation of an adapter's inputs.

    Parameters
    ----------
    mean, scale
        Mean and standard deviation of each input, shape (n_labels,).
    """

    mean: DoubleArray
    scale: DoubleArray

    def apply(self, probabilities: DoubleArray) -> FloatArray:
        """Return the standardised inputs of some segments, shape (n_segments, n_labels)."""
        deviations = (centre_log_probabilities(probabilities) - self.mean) / self.scale
        return np.asarray(deviations.clip(-MAX_DEVIATION, MAX_DEVIATION), np.float32)


class _Drawn(NamedTuple):
    """A group of clips: their probabilities, and the indices of their labels."""

    probabilities: DoubleArray
    classes: IntArray


def _draw_batches(
    examples: Examples, config: AdapterConfig, labels: Sequence[str], single_share: float
) -> Iterator[list[_Drawn]]:
    """Yield the groups of each step endlessly, some of them as if from another domain."""
    rng = np.random.default_rng(config.seed)
    classes, sources, repeated = examples.classes, examples.sources, config.repeated_share or 0.0
    draws = draw_groups(classes, sources, labels, single_share, rng, repeated_share=repeated)
    leaning_draws = draw_groups(
        classes,
        sources,
        labels,
        config.leaning_single_share,
        rng,
        config.leaning_calm_share,
        repeated,
    )
    while True:
        batch = []
        for leans in rng.random(config.step_groups) < config.leaning_share:
            chosen = next(leaning_draws if leans else draws)
            probabilities = examples.probabilities[chosen]
            if leans:
                probabilities = lean(probabilities, config.leaning, config.leaning_contrast, rng)
            batch.append(_Drawn(probabilities, classes[chosen]))
        yield batch


def _find_loss(network: AdapterNetwork, batch: Sequence[_Drawn], scaling: _Scaling) -> Tensor:
    """Return the mean loss of the segments of some groups, weighted by `GROUP_WEIGHT`."""
    groups = [describe_group(scaling.apply(one.probabilities), one.probabilities) for one in batch]
    sizes = [len(one.classes) for one in batch]
    weight = torch.cat([torch.full((size,), size**GROUP_WEIGHT) for size in sizes])
    classes = torch.from_numpy(np.concatenate([one.classes for one in batch]))
    losses = functional.cross_entropy(network(groups), classes, reduction="none")
    return (losses * weight).sum() / weight.sum()


def _calibrate(
    examples: Examples,
    adapters: Sequence[tuple[IntArray, Adapter]],
    config: AdapterConfig,
    labels: Sequence[str],
    single_share: float,
) -> tuple[Calibration, float]:
    """Fit temperature and sharpening on groups of held-out speakers, of any size and mix."""
    rng = np.random.default_rng([config.seed, 1])
    scores, classes = [], []
    for outside, adapter in adapters:
        held_out = examples.take(outside)
        draws = draw_groups(
            held_out.classes,
            held_out.sources,
            labels,
            single_share,
            rng,
            repeated_share=config.repeated_share or 0.0,
        )
        for group in itertools.islice(draws, config.calibration_groups):
            if len(group) >= adapter.settings.least:
                scores.append(adapter.score(held_out.probabilities[group]))
                classes.append(held_out.classes[group])
    if not scores:
        raise DatasetError(
            f"expected speakers with enough clips for groups of {AdapterSettings().least} or more; "
            f"none could be drawn in {config.calibration_groups} attempts"
        )
    sizes = [len(group) for group in scores]
    return fit_sharpening(np.concatenate(scores), np.concatenate(classes), sizes)


def _measure(
    examples: Examples,
    adapters: Sequence[tuple[IntArray, Adapter]],
    labels: Sequence[str],
    seed: int,
) -> list[dict[str, Any]]:
    """Evaluate adapters on groups of unchanged clips of held-out speakers."""
    by_clip = np.empty(len(examples.classes), object)
    for outside, adapter in adapters:
        by_clip[outside] = adapter
    as_they_are = np.flatnonzero(examples.versions == 0)
    by_clip, examples = by_clip[as_they_are], examples.take(as_they_are)

    def adapt(group: IntArray) -> DoubleArray:
        adapted: DoubleArray = by_clip[group[0]].adapt(examples.probabilities[group])
        return adapted

    return measure_mixes(
        adapt, examples.probabilities, examples.classes, examples.voices.tolist(), labels, seed
    )
