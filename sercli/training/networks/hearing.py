"""An encoder that learns to hear through rooms, noise and lines, from itself and without labels.

A copy of it hears speech as another recording might have it, and learns to make of that what the
encoder makes of the speech as it is: frame by frame in all layers, and in their statistics over
time, which is what a head hears. So it learns nothing of emotions, and forgets nothing of what is
known of them (after Huang et al. 2022, "Improving distortion robustness of self-supervised speech
processing tasks with domain adaptation", and Guimarães et al. 2023, "RobustDistiller").
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from sercli.audio.augment import crop, draw_voice
from sercli.errors import ModelError, OutputError
from sercli.files import write_bytes
from sercli.neural.bases import Base
from sercli.neural.batching import pad
from sercli.neural.devices import choose_device, choose_precision
from sercli.neural.encoders import create_encoder
from sercli.neural.pooling import pool_states
from sercli.neural.speech_encoder import SpeechEncoder
from sercli.training.cache import CachedClips
from sercli.training.config import TransformerConfig
from sercli.training.networks.batches import TrainingBatches
from sercli.training.networks.checkpoints import CHECKPOINT_FILE
from sercli.training.networks.course import digest, digest_audio
from sercli.training.networks.loop import TrainingBatch, fit_network
from sercli.training.networks.watcher import Watcher

# Clips per step: more do not fit into everybody's memory.
BATCH_SIZE = 32
# Clips by which it is found how much the values of a channel differ.
N_MEASURED = 128
# Below it, a channel is as good as constant, and is not brought to the scale of the others.
TINY = 1e-3

# Settings that decide what is learned; with others of a head, it is not learned again.
DECIDING = (
    "epochs",
    "batch_size",
    "learning_rate",
    "warmup",
    "optimiser",
    "weight_decay",
    "max_norm",
    "averaging",
    "voice_share",
    "max_crop",
    "seed",
)

States = tuple[list[Tensor], list[slice]]
Listen = Callable[[Tensor, Tensor], States]


class PairedBatches(TrainingBatches):
    """Batches of clips as they are, and after these, the same as other recordings might have them.

    The parameters are those of `TrainingBatches`.
    """

    def _make(self, draws: Sequence[tuple[int, int]], epoch: int) -> TrainingBatch:
        plain, recorded = [], []
        for index, turn in draws:
            rng = np.random.default_rng([self._config.seed, epoch, index, turn])
            waveform = crop(self._cached.utterance(index).waveform, self._config.max_crop, rng)
            if rng.random() < self._config.voice_share:
                waveform = draw_voice(waveform, rng)
            plain.append(waveform)
            # A codec may end some samples early or late.
            heard = self.record(waveform, rng)[: len(waveform)]
            recorded.append(np.pad(heard, (0, len(waveform) - len(heard))))
        padded, lengths = pad([*plain, *recorded])
        return TrainingBatch(padded, lengths, torch.empty((len(lengths), 0)))


class Imitation(nn.Module):
    """An encoder, and how far it is from what another makes of the same speech as it is.

    Parameters
    ----------
    encoder
        That learns.
    listen
        What the other makes of waveforms; as a function, so that its weights are not among those
        that learn.
    scales
        How much the values of each channel differ: over time in each state, each of shape
        (n_channels,), and then over clips in their statistics, shape (n_features,).
    """

    def __init__(self, encoder: SpeechEncoder, listen: Listen, scales: Sequence[Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self._listen = listen
        self._scales = tuple(scales)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the mean distance of frames, and of statistics over time, added up.

        Parameters
        ----------
        waveforms
            Of clips as they are, and after these, of the same in other recordings, shape
            (2 * n_clips, n_samples).
        lengths
            Samples of each, shape (2 * n_clips,).
        """
        n_clips = len(lengths) // 2
        told, spans = self._listen(waveforms[:n_clips], lengths[:n_clips])
        heard, _ = self.encoder(waveforms[n_clips:], lengths[n_clips:])
        *scales, pooled = self._scales
        rows = _find_rows(spans, waveforms.device)
        distances = [
            functional.smooth_l1_loss(one[rows].float() / scale, other[rows].float() / scale)
            for one, other, scale in zip(heard, told, scales, strict=True)
        ]
        ours, theirs = pool_states(heard, spans) / pooled, pool_states(told, spans) / pooled
        return torch.stack(distances).mean() + functional.smooth_l1_loss(ours, theirs)


def learn_to_hear(
    base: Base,
    limit: float,
    speech: CachedClips,
    config: TransformerConfig,
    folder: Path,
    watcher: Watcher,
) -> Base:
    """Return an encoder that makes the same of speech in other recordings, or nearly so.

    Several trainings can share the folder: who is done first keeps the weights, and all take these.

    Parameters
    ----------
    base
        The encoder.
    limit
        Frequency in Hz above which nothing is heard.
    speech
        Of anybody; emotions do not matter.
    config
        Passes, learning rate, and how clips are drawn.
    folder
        In which the weights are kept for the next training, and a checkpoint until they are there.
    watcher
        Told how far it is.

    Raises
    ------
    TrainingError, ModelError, OutputError
        As of `sercli.training.networks.loop.fit_network`.
    """
    config = replace(
        config,
        epochs=config.hearing_epochs,
        learning_rate=config.hearing_rate,
        batch_size=min(config.batch_size, BATCH_SIZE),
        mixup=0.0,  # of what is compared pair by pair
    )
    facts = {
        **{name: getattr(config, name) for name in DECIDING},
        "base": base.digest,
        "limit": limit,
        "precision": str(choose_precision(choose_device(config.device))),
        "speech": digest_audio(speech),
    }
    path = folder / f"{digest(repr(facts).encode())}.safetensors"
    if not path.is_file():
        checkpoints = path.with_suffix("")
        try:
            kept = _learn(base, limit, speech, config, checkpoints, watcher, facts)
            if not path.is_file():
                write_bytes(path, save(kept))
            rmtree(checkpoints, ignore_errors=True)
        except (OutputError, ModelError):
            if not path.is_file():  # else another training was first, and has removed them
                raise
    weights = {name: one.float() for name, one in load_file(path).items()}
    return Base(base.name, base.settings, weights)


def _learn(
    base: Base,
    limit: float,
    speech: CachedClips,
    config: TransformerConfig,
    checkpoints: Path,
    watcher: Watcher,
    facts: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return what is learned, or go on with it: the encoder's weights, in half precision."""
    teacher = create_encoder(base.settings, limit)
    teacher.model.load_state_dict(base.weights)
    teacher.eval().requires_grad_(False).to(choose_device(config.device))

    def listen(waveforms: Tensor, lengths: Tensor) -> States:
        with torch.no_grad():
            found: States = teacher(waveforms, lengths)
        return found

    batches = PairedBatches(
        speech, np.empty((len(speech), 0), np.float32), np.zeros(len(speech), np.intp), config
    )
    network = Imitation(
        copy.deepcopy(teacher).requires_grad_(True), listen, _measure(listen, speech, config)
    )
    watcher.begin("the encoder, hearing", apart=True)
    fitted = fit_network(
        network,
        batches,
        len(batches),
        config,
        checkpoints,
        loss=lambda distance, _: distance,
        fingerprint=facts,
        resume=(checkpoints / CHECKPOINT_FILE).exists(),
        report=watcher.report,
    )
    assert isinstance(fitted.network, Imitation)
    # As a model keeps them, so that a head learns from what it will hear.
    state = fitted.network.encoder.model.state_dict()
    return {name: one.cpu().half().contiguous() for name, one in state.items()}


def _measure(listen: Listen, speech: CachedClips, config: TransformerConfig) -> list[Tensor]:
    """Return how much values differ, see `Imitation`; by some of the speech, as it is."""
    device = choose_device(config.device)
    chosen = np.unique(np.linspace(0, len(speech) - 1, N_MEASURED).astype(int))
    totals: list[list[Tensor]] = []
    pooled = []
    for first in range(0, len(chosen), BATCH_SIZE):
        part = [speech.utterance(index).waveform for index in chosen[first : first + BATCH_SIZE]]
        rng = np.random.default_rng(config.seed)
        batch = pad([crop(waveform, config.max_crop, rng) for waveform in part])
        states, spans = listen(*(one.to(device) for one in batch))
        rows = _find_rows(spans, device)
        totals.append([state[rows].float() for state in states])
        pooled.append(pool_states(states, spans))
    every = [torch.cat(parts) for parts in zip(*totals, strict=True)]
    return [one.std(dim=0) + TINY for one in (*every, torch.cat(pooled))]


def _find_rows(spans: Sequence[slice], device: torch.device) -> Tensor:
    """Return the rows of all segments, without those between them."""
    return torch.cat([torch.arange(span.start, span.stop, device=device) for span in spans])
