"""Training of transformers: a head on statistics of a pre-trained encoder, then upper layers.

The encoder computes rows of features of every clip once, unchanged and in several augmented
versions; the head is then trained on these rows within minutes. After that, upper layers of the
encoder can be fine-tuned together with the head, at a low learning rate, on clips augmented anew
in every epoch. They start after the head, since the gradients of an untrained head would destroy
their pre-trained weights.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.classifiers.transformer import TransformerClassifier
from sercli.errors import ConfigError
from sercli.neural.bases import Base
from sercli.neural.devices import choose_device, choose_precision, fitting, seeded
from sercli.neural.mel import NYQUIST
from sercli.neural.speech_encoder import WHISPER
from sercli.neural.transformer import Transformer, TransformerSettings, create_head
from sercli.training.cache import CachedClips
from sercli.training.config import TransformerConfig
from sercli.training.networks.batches import Augmenter, Load, TrainingBatches, missing_codecs
from sercli.training.networks.course import Course, score_clips
from sercli.training.networks.digests import digest, digest_audio
from sercli.training.networks.history import TUNING_FOLDER
from sercli.training.networks.loop import Fitted
from sercli.training.networks.lora import RATE_FACTOR, add_lora, merge_lora
from sercli.training.networks.material import Material
from sercli.training.networks.optimiser import ParameterGroups
from sercli.training.networks.robustness import train_robust_encoder
from sercli.training.networks.rows import RowBatches, RowNetwork, embed_versions
from sercli.training.trainer import Say
from sercli.training.transposition import (
    Transposition,
    average_calm,
    check_calm,
    find_strangers,
    split_strangers,
)
from sercli.training.unlabelled import Unlabelled

# Upper frequency limit for Whisper, in Hz: the telephone band with a margin.
WHISPER_LIMIT = 4000.0
# Maximum batch size of the encoder's fine-tuning, to fit into the memory of common machines.
TUNING_BATCH = 32
# Version of the rows; to be changed with the augmentation or the encoder's computation, so that
# outdated rows are not reused.
ROWS_FORMAT = 4
# Indices of a clip's versions: the unchanged one, and, for clips that are scored when held out, and
# only for these, the last one, which is augmented and used for scoring alone.
AS_IS, SCORED = 0, -1


@dataclass(frozen=True, eq=False)
class TransformerCourse(Course):
    """Course of heads on a pre-trained encoder, and of upper layers of the encoder.

    The other parameters are those of `Course`.

    Parameters
    ----------
    base
        The encoder.
    rows
        Folder in which the encoder's rows are kept for later trainings.
    limit
        Upper frequency limit of the audio, in Hz; by default `WHISPER_LIMIT` for Whisper, and the
        Nyquist frequency for others. An encoder from a model of this package has the limit of that
        model; see `sercli.training.origins`.
    calm
        Calm speech of strangers, to whom training clips are transposed, or None; see
        `sercli.training.transposition`. `TrainConfig` checks that it goes with ``config``.
    """

    classifier = TransformerClassifier
    packages = ("torch", "torchaudio", "transformers", "numpy", "soxr", "soundfile", "silero-vad")

    config: TransformerConfig
    base: Base = field(kw_only=True)
    rows: Path = field(kw_only=True)
    limit: float | None = field(default=None, kw_only=True)
    calm: Unlabelled | None = field(default=None, kw_only=True)

    @property
    def speech(self) -> tuple[Unlabelled, ...]:
        """All sets of unlabelled speech used in training."""
        return super().speech + (() if self.calm is None else (self.calm,))

    @property
    def band_limit(self) -> float:
        """Upper frequency limit of the audio, in Hz."""
        if self.limit is not None:
            return self.limit
        return WHISPER_LIMIT if self.base.settings["model_type"] == WHISPER else NYQUIST

    @property
    def network_settings(self) -> TransformerSettings:
        """Settings of the networks' architecture."""
        return TransformerSettings(self.base.settings, self.band_limit)

    @cached_property
    def _encoder(self) -> Base:
        """The encoder, made robust by `train_robust_encoder` if the settings ask for that."""
        if not self.config.hearing_epochs or self.calm is None:
            return self.base
        speech = self.calm.cached
        return train_robust_encoder(
            self.base, self.band_limit, speech, self.config, self.rows, self.watcher
        )

    @cached_property
    def _network(self) -> Transformer:
        """The frozen encoder with an untrained head."""
        network = cast(Transformer, self.create(self._create_network))
        device = choose_device(self.config.device)
        with fitting("the network", device):
            return network.eval().requires_grad_(False).to(device)

    def refuse_labels(self, labels: Sequence[str]) -> None:
        """Raise if no label is calm where clips are transposed; see `Course.refuse_labels`."""
        super().refuse_labels(labels)
        if self.calm is not None:
            check_calm(labels)

    def find_speech(self, say: Say) -> None:
        """Detect the speech, and raise if calm speech is of too few; see `Course.find_speech`."""
        super().find_speech(say)
        if self.calm is not None:
            split_strangers(self.calm.found.clips, self.config.folds)

    def prepare(
        self, cached: CachedClips, say: Say, *, learned: bool = True, scored: bool = True
    ) -> Material:
        """Compute the encoder's rows of all versions of the clips; see `Course.prepare`.

        Background talkers are drawn from all the clips, so that some in versions of a fold's clips
        are speakers of other folds. They are not what is labelled. With ``group_by="clip"``, clips
        may be joined to others of other folds, so that held-out figures are too good.

        Raises
        ------
        ConfigError
            If ``config.layers`` is larger than the number of layers.
        """
        n_layers = len(self._network.encoder.layers)
        if self.config.layers > n_layers:
            raise ConfigError(
                f"layers is {self.config.layers}; expected at most {n_layers}, the number of layers"
            )
        n_versions = self.config.versions if learned else 0
        augmenter = Augmenter(cached, self.config)

        def load_version(number: int) -> Load:
            seed = [self.config.seed, number]
            return lambda index: augmenter.draw(index, np.random.default_rng([*seed, index]))

        versions = [
            lambda index: cached.utterance(index).waveform,
            *map(load_version, range(1, n_versions + 1)),
        ]
        if scored:
            versions.append(self.vary(cached))
        say(f"{self.base.name} encodes {len(versions)} versions of {len(cached):,} clips")
        path = self.rows / f"{self._find_key(cached, n_versions, scored=scored)}.npy"
        rows = embed_versions(self._network, len(cached), versions, path, self.watcher.extract)
        say(f"{rows.nbytes / 1e6:,.0f} MB of its outputs in {self.rows}")
        return Material(cached, rows)

    def gather(self, cached: CachedClips, say: Say, *, scored: bool = True) -> Material:
        """Prepare the training clips and the calm speech of strangers; see `Course.gather`.

        Raises
        ------
        DatasetError
            If there are too few strangers.
        """
        material = super().gather(cached, say, scored=scored)
        if self.calm is None:
            return material
        calm = self.prepare(self.calm.cached, say, learned=False, scored=False)
        strangers = find_strangers(
            calm.cached.clips,
            _take_version(calm, AS_IS),
            self._network.deviations,
            self.config.folds,
        )
        return replace(material, strangers=strangers)

    def teach(
        self, name: str, material: Material, folder: Path, dev: Material | None = None
    ) -> Fitted:
        """Train a head, and then upper layers of the encoder if asked for; see `Course.teach`."""
        fitted = self._teach_head(name, material, folder, dev)
        if not self.config.layers:
            return fitted
        tuned = self._tune(name, material, folder / TUNING_FOLDER, dev, fitted.network)
        # A model reports the best epoch of the head, and the time of both trainings.
        return replace(fitted, network=tuned.network, records=fitted.records + tuned.records)

    def _teach_head(
        self, name: str, material: Material, folder: Path, dev: Material | None
    ) -> Fitted:
        """Train a head on the encoder's rows; the network is the encoder with that head."""
        assert material.rows is not None
        rows = [material.rows[:, : 1 + self.config.versions]]  # not the version for scoring
        if material.unlabelled is not None and material.unlabelled.rows is not None:
            rows.append(material.unlabelled.rows)
        targets, draws = self.find_targets(material), self.find_draws(material)
        moving, share = self._transpose(material, material), self.config.calm_share
        change = None if moving is None else partial(moving.draw, share=share)
        n_features = self._network.n_features
        head = self.create(lambda: create_head(self.network_settings, n_features, self.n_scores))
        strangers = material.strangers
        fitted = self.fit(
            name,
            RowNetwork(head),
            RowBatches(rows, targets, draws, self.config, change),
            material,
            folder,
            dev,
            loss=self.find_loss,
            score=lambda network, clips: _score(network, _take_version(clips, AS_IS)),
            facts={
                "base": self._encoder.digest,
                "calm speech": None if strangers is None else digest(strangers.tobytes()),
            },
        )
        # All networks share the encoder, of which there may not be memory for several.
        encoder, untrained = self._network.encoder, self._network.head
        parts = {id(encoder): encoder, id(untrained): fitted.network.head}
        return replace(fitted, network=copy.deepcopy(self._network, parts))

    def _tune(
        self, name: str, material: Material, folder: Path, dev: Material | None, start: nn.Module
    ) -> Fitted:
        """Train upper layers of the encoder of a network together with its trained head."""
        config = replace(
            self.config,
            epochs=self.config.tuning_epochs,
            learning_rate=self.config.tuning_rate,
            batch_size=min(self.config.batch_size, TUNING_BATCH),
        )
        targets, draws = self.find_targets(material), self.find_draws(material)
        network = copy.deepcopy(start)
        assert isinstance(network, Transformer)
        tuned = self.fit(
            f"{name}, {self.config.layers} layers of the encoder",
            network,
            TrainingBatches(material.all_clips, targets, draws, config, stage=1),
            material,
            folder,
            dev,
            loss=self.find_loss,
            groups=group_parameters(network, self.config),
            config=config,
            score=lambda network, clips: score_clips(network, clips.cached),
            facts={"base": self._encoder.digest},
        )
        if self.config.lora:
            merge_lora(tuned.network)
        assert isinstance(tuned.network, Transformer)
        tuned.network.round_encoder()
        return tuned

    def score(self, network: nn.Module, material: Material, learned: Material) -> FloatArray:
        """Return scores of clips, unchanged, augmented, and transposed if there are strangers.

        See `Course.score`.
        """
        if self.config.layers:  # of which the rows know nothing
            return self.score_varied(network, material.cached)
        versions = [_take_version(material, version) for version in (AS_IS, SCORED)]
        transposition = self._transpose(material, learned)
        if transposition is not None:
            versions.append(transposition.move(versions[0]))
        return np.stack([_score(network, rows) for rows in versions])

    def describe(self) -> dict[str, Any]:
        """Return further facts for the model's record of its training."""
        facts: dict[str, Any] = {"base": self.base.name}
        if self.calm is not None:
            facts["calm"] = self.calm.facts
        return facts

    def _transpose(self, material: Material, learned: Material) -> Transposition | None:
        """Return the transposition of the clips to the strangers, or None without strangers.

        Parameters
        ----------
        material
            The clips and the strangers.
        learned
            The training clips.
        """
        if material.strangers is None:
            return None
        assert learned.rows is not None
        deviations = self._network.deviations
        everybody = average_calm(
            learned.cached.clips, self.labels, learned.rows[:, AS_IS], deviations
        )
        return Transposition.of(
            material.cached.clips,
            self.labels,
            _take_version(material, AS_IS),
            material.strangers,
            deviations,
            everybody,
        )

    def _find_key(self, cached: CachedClips, n_versions: int, *, scored: bool) -> str:
        """Return a hash of everything that the rows of clips depend on."""
        config = self.config
        device = choose_device(config.device)
        facts: tuple[Any, ...] = (
            ROWS_FORMAT,
            self._encoder.digest,
            self.band_limit,
            str(choose_precision(device)),
            (config.seed, config.clean_share, config.voice_share, n_versions),
            # The name seeds the version for scoring; voice and emotion decide which clips are
            # joined.
            [(clip.name if scored else None, clip.voice, clip.emotion) for clip in cached.clips],
            digest_audio(cached),
        )
        # Only augmented versions go through codecs. Where all are available, the key is without
        # them, as in earlier releases, whose rows are still found.
        if (n_versions or scored) and (missing := missing_codecs()):
            facts += (missing,)
        # Clips are joined with those of the same corpus alone, which matters where speakers of
        # several have one name.
        pairs = {(clip.voice, clip.corpus) for clip in cached.clips}
        if len(pairs) > len({voice for voice, _ in pairs}):
            facts += ([clip.corpus for clip in cached.clips],)
        return digest(repr(facts).encode(errors="surrogateescape"))

    def _create_network(self) -> Transformer:
        network = Transformer(self.network_settings, self.n_scores)
        network.encoder.model.load_state_dict(self._encoder.weights)
        network.round_encoder()
        return network


def group_parameters(network: Transformer, config: TransformerConfig) -> ParameterGroups:
    """Return the trainable parameters with their learning rate factors, and freeze all others.

    Parameters
    ----------
    network
        Network of which the head and upper layers are trained. With LoRA, low-rank matrices are
        added to these layers and trained instead.
    config
        Training settings, of which the number of layers, the rank of LoRA, and the decay of the
        factor from layer to layer are used; and the seed of the matrices.
    """
    learning = network.encoder.layers[len(network.encoder.layers) - config.layers :]
    network.requires_grad_(False)
    if config.lora:
        with seeded(config.seed, next(network.parameters()).device):
            add_lora(network.encoder.model, list(learning), config.lora, lambda: _run(network))
    else:
        learning.requires_grad_(True)
    network.head.requires_grad_(True)
    factor = RATE_FACTOR if config.lora else 1.0
    parts: list[tuple[nn.Module, float]] = [(network.head, 1.0)]
    parts += [(one, factor * config.layer_decay**i) for i, one in enumerate(reversed(learning))]
    return [([p for p in part.parameters() if p.requires_grad], rate) for part, rate in parts]


def _run(network: Transformer) -> None:
    """Run a network on a second of silence."""
    device = next(network.parameters()).device
    silence = torch.zeros((1, SAMPLE_RATE), device=device)
    with torch.no_grad():
        network(silence, torch.tensor([SAMPLE_RATE], device=device))


def _take_version(material: Material, version: int) -> FloatArray:
    """Return the rows of one version of the clips, shape (n_clips, n_features)."""
    assert material.rows is not None
    rows: FloatArray = material.rows[:, version].astype(np.float32)
    return rows


def _score(network: Any, rows: FloatArray) -> FloatArray:
    """Return the scores that the head of a network gives rows, shape (n_clips, n_scores)."""
    device = next(network.head.parameters()).device
    with torch.inference_mode():
        scores: FloatArray = network.head(torch.from_numpy(rows).to(device)).numpy(force=True)
    return scores
