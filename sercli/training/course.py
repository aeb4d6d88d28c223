"""What the networks of one training have in common, and how each of them learns."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sercli.audio import SAMPLE_RATE
from sercli.classifiers.cnn import BATCH_S
from sercli.config import NeuralConfig
from sercli.datasets.base import class_indices
from sercli.evaluation.metrics import segment_nll, unweighted_average_recall
from sercli.neural.batching import group_by_length, pad
from sercli.neural.cnn import Cnn, CnnSettings
from sercli.training.batches import TrainingBatches
from sercli.training.cache import CachedClips
from sercli.training.checkpoints import CHECKPOINT_FILE
from sercli.training.folds import check_labels
from sercli.training.guides import (
    GuidedNetwork,
    extract_clean_features,
    guided_loss,
    make_guides,
)
from sercli.training.loop import Fitted, TrainingProgress, Validation, fit_network
from sercli.training.targets import Votes, make_targets

# Settings that may be others when a training goes on: where and on how many cores it runs.
FREE = ("device", "jobs")

FloatArray = NDArray[np.float32]
Hear = Callable[[int], FloatArray]


class Watcher(Protocol):
    """Who is told how far a training is."""

    def begin(self, name: str) -> None:
        """Be told that a network begins, or goes on; there may be several."""

    def report(self, progress: TrainingProgress) -> None:
        """Be told of every step and the end of every epoch."""


class Nobody:
    """Watches nothing."""

    def begin(self, name: str) -> None:
        """Do nothing."""

    def report(self, progress: TrainingProgress) -> None:
        """Do nothing."""


@dataclass(frozen=True, eq=False)
class Course:
    """What all networks of a training have in common.

    Parameters
    ----------
    labels
        In the order of the scores.
    config
        How to train.
    settings
        The shape of the networks.
    votes
        Of listeners, by name of the clip, or None.
    resume
        Go on from checkpoints where there are any.
    watcher
        Told how far it is.
    """

    labels: tuple[str, ...]
    config: NeuralConfig
    settings: CnnSettings = field(default_factory=CnnSettings)
    votes: Votes | None = None
    resume: bool = False
    watcher: Watcher = field(default_factory=Nobody)

    def find_classes(self, cached: CachedClips) -> NDArray[np.intp]:
        """Return the indices of the clips' labels, shape (n_clips,)."""
        return np.array(class_indices(cached.clips, self.labels))

    def extract_features(self, cached: CachedClips) -> FloatArray | None:
        """Return what guides are made of, shape (n_clips, n_features); None without guides."""
        if not self.config.guide_weight:
            return None
        limit = self.settings.log_mel.f_max
        return extract_clean_features(cached, limit, self.config.jobs)

    def teach(
        self,
        name: str,
        cached: CachedClips,
        features: FloatArray | None,
        folder: Path,
        dev: CachedClips | None = None,
    ) -> Fitted:
        """Train a network.

        Parameters
        ----------
        name
            By which the watcher knows it.
        cached
            What is learned from.
        features
            Of `extract_features`.
        folder
            Of its checkpoint.
        dev
            By which the epoch is chosen, if there are any.
        """
        config, n_labels = self.config, len(self.labels)
        classes = self.find_classes(cached)
        check_labels(classes, self.labels)
        targets = make_targets(cached.clips, self.labels, config, self.votes)
        guides = np.empty((len(cached), 0), np.float32)
        if features is not None:
            guides = make_guides(features, config.guide_components)
        batches = TrainingBatches(cached, np.hstack((targets, guides)), classes, config)
        self.watcher.begin(name)
        fitted = fit_network(
            self._create_network(guides.shape[1]),
            batches,
            len(batches),
            config,
            folder,
            loss=guided_loss(n_labels, config.guide_weight) if features is not None else None,
            validate=self._validate_on(dev) if dev else None,
            fingerprint={
                # One by one, so that it can be told which is another.
                **{key: value for key, value in asdict(config).items() if key not in FREE},
                "settings": self.settings.to_dict(),
                "labels": self.labels,
                "clips": _digest("".join(cached.hashes).encode()),
                "development clips": _digest("".join(dev.hashes).encode()) if dev else None,
                "targets": _digest(targets.tobytes()),  # with the votes
                "guides": guides.shape[1],
            },
            resume=self.resume and (folder / CHECKPOINT_FILE).exists(),
            report=self.watcher.report,
        )
        kept = fitted.network
        return replace(fitted, network=kept.network if isinstance(kept, GuidedNetwork) else kept)

    def hear(self, network: nn.Module, cached: CachedClips) -> FloatArray:
        """Return scores of clips as they are and varied, shape (2, n_clips, n_labels).

        Parameters
        ----------
        network
            That did not learn from them.
        cached
            The clips; others of them talk in the background when they are varied.
        """
        classes = self.find_classes(cached)
        drawing = TrainingBatches(
            cached, np.eye(len(self.labels), dtype=np.float32)[classes], classes, self.config
        )

        def vary(index: int) -> FloatArray:
            name = crc32(cached.clips[index].name.encode(errors="surrogateescape"))
            return drawing.hear(index, np.random.default_rng([self.config.seed, name]))

        return np.stack((score_clips(network, cached), score_clips(network, cached, vary)))

    def _create_network(self, n_guides: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            network = Cnn(self.settings, len(self.labels))
            return GuidedNetwork(network, n_guides) if n_guides else network

    def _validate_on(self, dev: CachedClips) -> Callable[[nn.Module], Validation]:
        classes = self.find_classes(dev)

        def validate(network: nn.Module) -> Validation:
            scores = torch.from_numpy(score_clips(network, dev))
            probabilities = scores.double().softmax(dim=1).numpy()
            uar = unweighted_average_recall(classes, probabilities.argmax(axis=1))
            return Validation(float(segment_nll(classes, probabilities).mean()), uar)

        return validate


def score_clips(network: nn.Module, cached: CachedClips, hear: Hear | None = None) -> FloatArray:
    """Return scores of clips, shape (n_clips, n_labels); few waveforms are in memory at once.

    Parameters
    ----------
    network
        In evaluation mode.
    cached
        The clips.
    hear
        From the index of a clip to its waveform; as it is by default.
    """
    device = next(network.parameters()).device
    parts, order = [], []
    with torch.inference_mode():
        for group in group_by_length(cached.lengths, int(BATCH_S * SAMPLE_RATE)):
            batch = pad([hear(i) if hear else cached.utterance(i).waveform for i in group])
            parts.append(network(*(part.to(device) for part in batch)).numpy(force=True))
            order += group
    scores: FloatArray = np.concatenate(parts)[np.argsort(order)]
    return scores


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
