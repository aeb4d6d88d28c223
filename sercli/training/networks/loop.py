"""The loop that trains networks of any architecture.

The learning rate warms up linearly and then falls along a cosine. After each epoch, an exponential
moving average of the weights is evaluated; that of the best epoch is kept. Each epoch has its own
seed, so that a training resumed from a checkpoint ends at the same weights.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sercli.errors import TrainingError
from sercli.files import make_folder
from sercli.neural.devices import (
    choose_device,
    choose_precision,
    computing,
    fitting,
    is_out_of_memory,
    repeatable,
    seeded,
)
from sercli.training.config import NeuralConfig
from sercli.training.networks.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from sercli.training.networks.history import (
    CHECKPOINT_FILE,
    EpochRecord,
    write_curves,
    write_history,
)
from sercli.training.networks.optimiser import Optimiser, ParameterGroups

# Mixup weights are drawn from Beta(MIXING, MIXING): mostly one clip, and a little of another.
MIXING = 0.4
# Minimum time between two plots of the curves: one takes as long as an epoch of a small head.
CURVES_S = 30.0
# Added to the level of a clip, to avoid division by zero; lower than the level of any recording.
SILENCE = 1e-6


class TrainingBatch(NamedTuple):
    """Clips of one training step.

    Parameters
    ----------
    waveforms
        Waveforms, zero after the end of each clip, float32, shape (n_clips, n_samples); or rows of
        features, shape (n_clips, n_features), see `sercli.training.networks.rows`.
    lengths
        Number of samples of each clip, 1 for rows of features, int64, shape (n_clips,).
    targets
        Targets of each clip, float32, shape (n_clips, n_scores + n_guides): probabilities,
        followed by the guides, if any; see `sercli.training.networks.guides`.
    """

    waveforms: Tensor
    lengths: Tensor
    targets: Tensor


class Validation(NamedTuple):
    """Mean loss in nats, and UAR, of a network on the development clips."""

    loss: float
    uar: float


@dataclass(frozen=True)
class TrainingProgress:
    """Progress of a training.

    Parameters
    ----------
    epoch, n_epochs
        Number of the current epoch, from 1, and number of epochs.
    step, n_steps
        Number of steps done in this epoch, and in the whole epoch.
    loss
        Mean loss over the steps of this epoch.
    dev_uar, best_uar
        Development UAR after the last finished epoch and after the best; None before the first or
        without development clips.
    ends_epoch
        Whether the epoch has just ended, so that `dev_uar` belongs to it.
    """

    epoch: int
    n_epochs: int
    step: int
    n_steps: int
    loss: float
    dev_uar: float | None
    best_uar: float | None
    ends_epoch: bool = False


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained network.

    Parameters
    ----------
    network
        Network with the averaged weights of the best epoch; without development clips, of the
        last.
    records
        Records of all epochs.
    best_epoch
        Number of the best epoch, from 1.
    """

    network: nn.Module
    records: tuple[EpochRecord, ...]
    best_epoch: int

    @property
    def seconds(self) -> float:
        """Duration of all epochs."""
        return sum(record.seconds for record in self.records)


class Batches(Protocol):
    """Batches of every epoch; deterministic."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""

    def __call__(self, epoch: int, /) -> Iterable[TrainingBatch]:
        """Return the batches of an epoch, counted from 0."""


Validate = Callable[[nn.Module], Validation]
Loss = Callable[[Tensor, Tensor], Tensor]
Report = Callable[[TrainingProgress], None]


def fit_network(
    network: nn.Module,
    batches: Batches,
    config: NeuralConfig,
    folder: Path,
    *,
    loss: Loss | None = None,
    validate: Validate | None = None,
    groups: ParameterGroups | None = None,
    fingerprint: Mapping[str, Any] = {},
    resume: bool = False,
    report: Report = lambda _: None,
) -> Fitted:
    """Train a network.

    Parameters
    ----------
    network
        Network from waveforms and lengths to outputs of shape (n_clips, n_outputs).
    batches
        Batches of the epochs.
    config
        Training settings.
    folder
        Folder of the checkpoint and ``history.csv``, both written after every epoch, and of
        ``curves.png``, drawn at most every `CURVES_S` seconds and at the end; created if missing.
    loss
        Loss of outputs and targets; by default `cross_entropy`.
    validate
        Function that evaluates the averaged network, in evaluation mode, after every epoch; None
        without development clips: all epochs are run, and the last one is kept.
    groups
        Parameters with the factor of their learning rate; by default all with 1.
    fingerprint
        Settings and data that must be the same for a checkpoint to be resumed.
    resume
        Whether to resume from the checkpoint in `folder`; if all its epochs are done, nothing more
        is trained.
    report
        Called with the progress after every step and every epoch.

    Returns
    -------
    Fitted
        The trained network and the records of its epochs.

    Raises
    ------
    TrainingError
        If the loss is not finite, or memory does not suffice.
    OutputError
        If the folder or a file in it cannot be written.
    ModelError, ConfigError
        If the checkpoint is damaged, missing or of another training.
    """
    make_folder(folder)
    path = folder / CHECKPOINT_FILE
    device = choose_device(config.device)
    with fitting("the network", device):
        run = _Run(network.to(device), config, len(batches), groups)
    if resume:
        run.restore(load_checkpoint(path, fingerprint))
    drawn = monotonic()
    while not run.is_over:
        with repeatable(device):
            with seeded(_find_seed(config.seed, run.epoch), device):
                started = monotonic()
                mean = _run_epoch(run, batches, loss or cross_entropy, device, report)
            found = validate(run.average.eval()) if validate else None
        run.close_epoch(mean, found, monotonic() - started)
        save_checkpoint(run.checkpoint(), path, fingerprint)
        write_history(run.records, folder)
        if monotonic() - drawn >= CURVES_S:
            write_curves(run.records, run.best_epoch, folder)
            drawn = monotonic()
        report(replace(run.progress(run.n_batches, mean, run.epoch), ends_epoch=True))
    # Written again for a training that was killed between its last checkpoint and this point.
    write_history(run.records, folder)
    write_curves(run.records, run.best_epoch, folder)
    run.average.load_state_dict(run.best)
    return Fitted(run.average.eval(), tuple(run.records), run.best_epoch)


def schedule(step: int, n_steps: int, warmup: float) -> float:
    """Return the learning rate factor of a step: linear warmup, then cosine decay.

    Parameters
    ----------
    step
        Number of the step, from 0.
    n_steps
        Number of steps of the whole training.
    warmup
        Share of the steps used for warmup.
    """
    rising = round(warmup * n_steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, n_steps - rising)))


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of soft targets.

    Parameters
    ----------
    logits, targets
        Logits and target probabilities, shape (n_clips, n_labels). Rows of targets sum to 1, or are
        zero and add nothing to the sum.
    """
    # The mean of the clips: torch's own reduction divides the sum of all products, which rounds
    # differently.
    return functional.cross_entropy(logits.float(), targets, reduction="none").mean()


def mix(batch: TrainingBatch, order: Tensor, share: float) -> TrainingBatch:
    """Return clips mixed with other clips of the batch (mixup, Zhang et al. 2018).

    Parameters
    ----------
    batch
        The clips; waveforms are brought to the same level first.
    order
        Index of the clip that each is mixed with, shape (n_clips,).
    share
        Weight of the first clip in the mixture, in ``[0, 1]``, for waveforms and targets alike.
    """
    power = batch.waveforms.square().sum(dim=1) / batch.lengths
    # Rows of features, whose length is 1, are not scaled: a head depends on their scale.
    level = torch.where(batch.lengths > 1, power.sqrt() + SILENCE, 1.0)
    levelled = batch.waveforms / level[:, None]
    return TrainingBatch(
        share * levelled + (1 - share) * levelled[order],
        torch.maximum(batch.lengths, batch.lengths[order]),
        share * batch.targets + (1 - share) * batch.targets[order],
    )


def update_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Update the moving average of the weights and the normalisation statistics in place.

    Parameters
    ----------
    average
        Network that holds the average; it is changed.
    network
        Network of the same architecture with the current weights.
    decay
        Weight of the old average, in ``[0, 1]``.
    """
    present = network.state_dict()
    with torch.no_grad():
        for name, tensor in average.state_dict().items():
            if tensor.dtype.is_floating_point:
                tensor.lerp_(present[name], 1 - decay)
            else:
                tensor.copy_(present[name])


class _Run:
    """State of a running training."""

    def __init__(
        self,
        network: nn.Module,
        config: NeuralConfig,
        n_batches: int,
        groups: ParameterGroups | None,
    ) -> None:
        self.network = network
        self.average = copy.deepcopy(network)
        self.best = _copy_state(network)
        self.config = config
        self.n_batches = n_batches
        self.step = 0
        self.best_epoch = 0
        self.records: list[EpochRecord] = []
        every = [(list(network.parameters()), 1.0)] if groups is None else groups
        self.optimiser = Optimiser(every, config)

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return len(self.records)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or the patience for a better one has run out."""
        patience = self.config.patience
        waited = self.epoch - self.best_epoch
        stuck = bool(patience and self.records and self.records[-1].dev_uar is not None)
        return self.epoch >= self.config.epochs or (stuck and waited >= patience)

    def find_rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        n_steps = self.config.epochs * self.n_batches
        return self.config.learning_rate * schedule(step, n_steps, self.config.warmup)

    def close_epoch(self, loss: float, found: Validation | None, seconds: float) -> None:
        """Record an epoch, and keep its averaged weights if they are the best."""
        rate = self.find_rate(self.step - 1)
        dev_loss, dev_uar = found or (None, None)
        self.records.append(EpochRecord(self.epoch + 1, rate, loss, dev_loss, dev_uar, seconds))
        if found is None or self._is_better(found):
            self.best_epoch = self.epoch
            self.best = _copy_state(self.average)

    def _is_better(self, found: Validation) -> bool:
        if not self.best_epoch:
            return True
        best = self.records[self.best_epoch - 1]
        assert best.dev_uar is not None
        assert best.dev_loss is not None
        return (found.uar, -found.loss) > (best.dev_uar, -best.dev_loss)

    def progress(self, step: int, loss: float, epoch: int) -> TrainingProgress:
        last = self.records[-1].dev_uar if self.records else None
        best = self.records[self.best_epoch - 1].dev_uar if self.best_epoch else None
        return TrainingProgress(epoch, self.config.epochs, step, self.n_batches, loss, last, best)

    def checkpoint(self) -> Checkpoint:
        return Checkpoint(
            self.network.state_dict(),
            self.average.state_dict(),
            self.best,
            self.optimiser.state(),
            self.step,
            self.best_epoch,
            tuple(self.records),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        self.network.load_state_dict(checkpoint.network)
        self.average.load_state_dict(checkpoint.average)
        device = next(self.network.parameters()).device
        self.best = {name: tensor.to(device) for name, tensor in checkpoint.best.items()}
        self.optimiser.restore(checkpoint.optimiser)
        self.step, self.best_epoch = checkpoint.step, checkpoint.best_epoch
        self.records = list(checkpoint.records)


def _run_epoch(
    run: _Run,
    batches: Batches,
    find_loss: Loss,
    device: torch.device,
    report: Report,
) -> float:
    """Run all steps of an epoch, and return the mean loss."""
    epoch = run.epoch + 1
    run.network.train()
    rng = np.random.default_rng([run.config.seed, run.epoch])
    total = 0.0
    for number, drawn in enumerate(batches(run.epoch), 1):
        try:
            loss = _take_step(run, drawn, find_loss, device, rng)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"epoch {epoch}, step {number}: {len(drawn.lengths)} clips of up to "
                f"{drawn.waveforms.shape[1]} samples do not fit in the memory of {device}; lower "
                "--batch-size"
            ) from error
        if not math.isfinite(loss):
            raise TrainingError(
                f"epoch {epoch}, step {number}: the loss is {loss}; expected a finite number. "
                f"Lower --learning-rate, which is {run.config.learning_rate:g}; the checkpoint has "
                "the weights of the previous epoch"
            )
        total += loss
        report(run.progress(number, total / number, epoch))
    return total / run.n_batches


def _take_step(
    run: _Run, drawn: TrainingBatch, find_loss: Loss, device: torch.device, rng: np.random.Generator
) -> float:
    """Update the weights by a batch, if its loss is finite, and return the loss."""
    config, network = run.config, run.network
    # Blocking copies: nothing else keeps the drawn batch alive until a GPU has read it.
    batch = TrainingBatch(*(part.to(device) for part in drawn))
    if rng.random() < config.mixup:
        share = rng.beta(MIXING, MIXING)
        order = torch.from_numpy(rng.permutation(len(batch.lengths))).to(device)
        batch = mix(batch, order, float(max(share, 1 - share)))
    run.optimiser.set_rate(run.find_rate(run.step))
    with computing(device, choose_precision(device)):
        outputs = network(batch.waveforms, batch.lengths)
    loss = find_loss(outputs, batch.targets)
    network.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    value = float(loss.item())
    if not math.isfinite(value):
        return value
    nn.utils.clip_grad_norm_(network.parameters(), config.max_norm)
    run.optimiser.step()
    run.step += 1
    # With the full decay, the average would be mostly the random weights in the first steps.
    decay = min(config.averaging, (1 + run.step) / (10 + run.step))
    update_average(run.average, network, decay)
    return value


def _copy_state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def _find_seed(seed: int, epoch: int) -> int:
    """Return the seed of the random draws inside an epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
