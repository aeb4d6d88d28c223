"""Self-distillation that makes an encoder robust to rooms, noise and channels, without labels.

A copy of the encoder takes augmented speech, and learns to reproduce the hidden states that the
encoder computes from the unchanged speech: frame by frame in all layers, and in their statistics
over time, which are the input of a head. So it neither learns nor forgets anything about emotions
(after Huang et al. 2022, "Improving distortion robustness of self-supervised speech processing
tasks with domain adaptation", and Guimarães et al. 2023, "RobustDistiller").
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from sercli.arrays import LARGEST_HALF
from sercli.audio.augment import crop, draw_voice
from sercli.errors import ModelError, OutputError
from sercli.files import write_bytes
from sercli.neural.bases import Base
from sercli.neural.batching import pad
from sercli.neural.devices import choose_device, choose_precision, fitting
from sercli.neural.encoders import create_encoder
from sercli.neural.pooling import pool_states
from sercli.neural.speech_encoder import SpeechEncoder
from sercli.training.cache import CachedClips
from sercli.training.config import TransformerConfig
from sercli.training.networks.batches import Augmenter, ClipBatches, Draw, missing_codecs
from sercli.training.networks.digests import digest, digest_audio
from sercli.training.networks.history import CHECKPOINT_FILE
from sercli.training.networks.loop import TrainingBatch, fit_network
from sercli.training.watcher import Watcher

# Maximum number of clips per step, to fit into the memory of common machines.
BATCH_SIZE = 32
# Number of clips on which the standard deviation of each channel is measured.
N_MEASURED = 128
# Added to standard deviations, so that nearly constant channels are not amplified.
TINY = 1e-3

# Settings that the result depends on; changing others, those of the head, needs no new training.
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
Encode = Callable[[Tensor, Tensor], States]


class PairedBatches(ClipBatches):
    """Batches of clips before augmentation, followed by the same clips after it.

    Of a share `voice_share` of the clips, the voice is changed in both.

    Parameters
    ----------
    speech
        The clips; they are also the source of background talkers in the augmentation.
    config
        Training settings, of which seed, batch size and the settings of augmentation are used.
    """

    def __init__(self, speech: CachedClips, config: TransformerConfig) -> None:
        super().__init__(np.zeros(len(speech), np.intp), config)  # as if all had the same label
        self._speech, self._config = speech, config
        self._augmenter = Augmenter(speech, config)

    def make(self, draws: Sequence[Draw]) -> TrainingBatch:
        """Return the batch of some draws."""
        plain, recorded = [], []
        for index, rng in draws:
            waveform = crop(self._speech.utterance(index).waveform, self._config.max_crop, rng)
            if rng.random() < self._config.voice_share:
                waveform = draw_voice(waveform, rng)
            plain.append(waveform)
            # A codec may make the waveform some samples shorter or longer.
            version = self._augmenter.record(waveform, rng)[: len(waveform)]
            recorded.append(np.pad(version, (0, len(waveform) - len(version))))
        padded, lengths = pad([*plain, *recorded])
        return TrainingBatch(padded, lengths, torch.empty((len(lengths), 0)))


class Imitation(nn.Module):
    """An encoder whose output is its distance from another encoder's states of unchanged speech.

    Parameters
    ----------
    encoder
        Encoder to train.
    encode
        Function from waveforms to the states of the other encoder; a function, so that the weights
        of that encoder are not parameters of this module.
    scales
        Standard deviations by which values are divided: for each state, over its frames, shape
        (n_channels,); and last, of the statistics, over clips, shape (n_features,).
    """

    def __init__(self, encoder: SpeechEncoder, encode: Encode, scales: Sequence[Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self._encode = encode
        self._scales = tuple(scales)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the sum of the mean distances of the frames and of the statistics over time.

        Parameters
        ----------
        waveforms
            Waveforms of the clips before augmentation, followed by those after it, shape
            (2 * n_clips, n_samples).
        lengths
            Number of samples of each, shape (2 * n_clips,).
        """
        n_clips = len(lengths) // 2
        targets, spans = self._encode(waveforms[:n_clips], lengths[:n_clips])
        states, _ = self.encoder(waveforms[n_clips:], lengths[n_clips:])
        *scales, pooled = self._scales
        rows = _find_rows(spans, waveforms.device)
        distances = [
            functional.smooth_l1_loss(one[rows].float() / scale, other[rows].float() / scale)
            for one, other, scale in zip(states, targets, scales, strict=True)
        ]
        ours, theirs = pool_states(states, spans) / pooled, pool_states(targets, spans) / pooled
        return torch.stack(distances).mean() + functional.smooth_l1_loss(ours, theirs)


def train_robust_encoder(
    base: Base,
    limit: float,
    speech: CachedClips,
    config: TransformerConfig,
    folder: Path,
    watcher: Watcher,
) -> Base:
    """Return an encoder trained to compute nearly the same states of augmented speech.

    Several trainings can share the folder: the first that finishes writes the weights, and all use
    those.

    Parameters
    ----------
    base
        The encoder.
    limit
        Upper frequency limit of the audio, in Hz.
    speech
        Speech of any speakers; their emotions do not matter.
    config
        Training settings; `hearing_epochs` and `hearing_rate` are the number of epochs and the
        learning rate.
    folder
        Folder in which the weights are kept for later trainings, and a checkpoint before that.
    watcher
        Receiver of progress reports.

    Returns
    -------
    Base
        The trained encoder.

    Raises
    ------
    TrainingError, ModelError, OutputError
        As for `sercli.training.networks.loop.fit_network`.
    """
    config = replace(
        config,
        epochs=config.hearing_epochs,
        learning_rate=config.hearing_rate,
        batch_size=min(config.batch_size, BATCH_SIZE),
        mixup=0.0,  # clips are compared in pairs
    )
    facts = {
        **{name: getattr(config, name) for name in DECIDING},
        "base": base.digest,
        "limit": limit,
        "precision": str(choose_precision(choose_device(config.device))),
        "speech": digest_audio(speech),
    }
    if missing := missing_codecs():  # else as in earlier releases, whose weights are still found
        facts["missing codecs"] = missing
    path = folder / f"{digest(repr(facts).encode())}.safetensors"
    if path.is_file() and not _is_whole(path):  # damaged: learn it once more
        path.unlink(missing_ok=True)
    if not path.is_file():
        checkpoints = path.with_suffix("")
        try:
            kept = _learn(base, limit, speech, config, checkpoints, watcher, facts)
            if not path.is_file():
                write_bytes(path, save(kept))
            rmtree(checkpoints, ignore_errors=True)
        except (OutputError, ModelError):
            if not path.is_file():  # else another training was first, and removed the checkpoints
                raise
    weights = {name: one.float() for name, one in load_file(path).items()}
    return Base(base.name, base.settings, weights)


def _is_whole(path: Path) -> bool:
    """Return whether the header and the length of a file of weights are right."""
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _learn(
    base: Base,
    limit: float,
    speech: CachedClips,
    config: TransformerConfig,
    checkpoints: Path,
    watcher: Watcher,
    facts: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Return the trained encoder's weights in half precision; resume if there is a checkpoint."""
    teacher = create_encoder(base.settings, limit)
    teacher.model.load_state_dict(base.weights)
    device = choose_device(config.device)

    def encode(waveforms: Tensor, lengths: Tensor) -> States:
        with torch.no_grad():
            found: States = teacher(waveforms, lengths)
        return found

    batches = PairedBatches(speech, config)
    with fitting("the encoder", device):
        teacher.eval().requires_grad_(False).to(device)
        scales = _measure(encode, speech, config)
        network = Imitation(copy.deepcopy(teacher).requires_grad_(True), encode, scales)
    watcher.begin("the encoder, for robustness", apart=True)
    fitted = fit_network(
        network,
        batches,
        config,
        checkpoints,
        loss=lambda distance, _: distance,
        fingerprint=facts,
        resume=(checkpoints / CHECKPOINT_FILE).exists(),
        report=watcher.report,
    )
    assert isinstance(fitted.network, Imitation)
    # In half precision, as a model stores them, so that the head is trained on the same features.
    state = fitted.network.encoder.model.state_dict()
    return {
        name: (one.half() if one.abs().max() <= LARGEST_HALF else one).cpu().contiguous()
        for name, one in state.items()
    }


def _measure(encode: Encode, speech: CachedClips, config: TransformerConfig) -> list[Tensor]:
    """Return the scales of `Imitation`, measured on some of the speech without augmentation."""
    device = choose_device(config.device)
    chosen = np.unique(np.linspace(0, len(speech) - 1, N_MEASURED).astype(int))
    spreads: list[_Spread] = []
    pooled = []
    for first in range(0, len(chosen), BATCH_SIZE):
        part = [speech.utterance(index).waveform for index in chosen[first : first + BATCH_SIZE]]
        rng = np.random.default_rng(config.seed)
        batch = pad([crop(waveform, config.max_crop, rng) for waveform in part])
        states, spans = encode(*(one.to(device) for one in batch))
        rows = _find_rows(spans, device)
        spreads = spreads or [_Spread() for _ in states]
        for spread, state in zip(spreads, states, strict=True):
            spread.add(state[rows])
        pooled.append(pool_states(states, spans))
    found = [spread.deviation().to(device) for spread in spreads]
    return [one + TINY for one in (*found, torch.cat(pooled).std(dim=0))]


class _Spread:
    """Standard deviation of each channel over rows that are added in parts (Chan et al. 1983).

    In double precision, so that the parts make no difference after rounding to single precision,
    and on the CPU, since some GPUs have no double precision.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add rows, shape (n_rows, n_channels)."""
        part = rows.cpu().double()
        count, mean = self._count + len(part), part.mean(dim=0)
        step = mean - self._mean
        between = step.square() * (self._count * len(part) / count)
        self._squares = self._squares + (part - mean).square().sum(dim=0) + between
        self._mean = self._mean + step * (len(part) / count)
        self._count = count

    def deviation(self) -> Tensor:
        """Return the standard deviation of each channel, shape (n_channels,)."""
        return (self._squares / (self._count - 1)).sqrt().float()


def _find_rows(spans: Sequence[slice], device: torch.device) -> Tensor:
    """Return the indices of the rows that belong to a segment."""
    return torch.cat([torch.arange(span.start, span.stop, device=device) for span in spans])
