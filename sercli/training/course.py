"""What the networks of one training have in common, and how each of them learns."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sercli.audio import SAMPLE_RATE
from sercli.classifiers.neural import BATCH_S, NeuralClassifier
from sercli.config import NeuralConfig
from sercli.datasets.base import class_indices
from sercli.evaluation.metrics import segment_nll, unweighted_average_recall
from sercli.neural.batching import group_by_length, pad
from sercli.training.cache import CachedClips
from sercli.training.checkpoints import CHECKPOINT_FILE
from sercli.training.folds import check_labels
from sercli.training.loop import (
    Batches,
    Fitted,
    Loss,
    TrainingProgress,
    Validation,
    cross_entropy,
    fit_network,
)
from sercli.training.optimiser import Groups
from sercli.training.targets import Votes, find_vote_shares, make_targets
from sercli.training.teachers import Teacher
from sercli.training.trainer import Say

# Settings that may be others when a training goes on: where and on how many cores it runs.
FREE = ("device", "jobs")

FloatArray = NDArray[np.float32]
Rows = NDArray[np.floating[Any]]
Hear = Callable[[int], FloatArray]


class Watcher(Protocol):
    """Who is told how far a training is."""

    def hear(self, n_done: int, n_clips: int) -> None:
        """Be told how many of the clips an encoder has heard."""

    def begin(self, name: str) -> None:
        """Be told that a network begins, or goes on; there may be several."""

    def report(self, progress: TrainingProgress) -> None:
        """Be told of every step and the end of every epoch."""


class Nobody:
    """Watches nothing."""

    def hear(self, n_done: int, n_clips: int) -> None:
        """Do nothing."""

    def begin(self, name: str) -> None:
        """Do nothing."""

    def report(self, progress: TrainingProgress) -> None:
        """Do nothing."""


class Settings(Protocol):
    """The shape of a network."""

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""


@dataclass(frozen=True, eq=False)
class Material:
    """Clips, and what was computed of each for a family.

    Parameters
    ----------
    cached
        The clips.
    rows
        One or more for each clip, of shape (n_clips, ...), or None.
    """

    cached: CachedClips
    rows: Rows | None = None

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.cached)

    def take(self, indices: Sequence[int] | NDArray[np.integer[Any]]) -> Self:
        """Return those clips alone."""
        rows = None if self.rows is None else self.rows[np.asarray(indices)]
        return type(self)(self.cached.take(np.asarray(indices).tolist()), rows)


@dataclass(frozen=True, eq=False)
class Course(ABC):
    """What all networks of a training have in common.

    Parameters
    ----------
    config
        How to train.
    labels
        In the order of the scores.
    votes
        Of listeners, by name of the clip, or None.
    teacher
        Whose probabilities are learned, too, or None.
    resume
        Go on from checkpoints where there are any.
    watcher
        Told how far it is.

    Attributes
    ----------
    classifier
        What is made of a network.
    packages
        That decide what a network is.
    """

    classifier: ClassVar[type[NeuralClassifier]]
    packages: ClassVar[tuple[str, ...]]

    config: NeuralConfig
    labels: tuple[str, ...] = ()
    votes: Votes | None = None
    teacher: Teacher | None = None
    resume: bool = False
    watcher: Watcher = field(default_factory=Nobody)

    @property
    @abstractmethod
    def network_settings(self) -> Settings:
        """The shape of the networks."""

    @property
    @abstractmethod
    def band_limit(self) -> float:
        """Frequency in Hz above which nothing is heard."""

    @abstractmethod
    def prepare(self, cached: CachedClips, say: Say, *, judged: bool = False) -> Material:
        """Compute what the networks need of each clip.

        Parameters
        ----------
        cached
            The clips.
        say
            Told what is done.
        judged
            They are only judged, and not learned from.
        """

    @abstractmethod
    def teach(
        self, name: str, material: Material, folder: Path, dev: Material | None = None
    ) -> Fitted:
        """Train a network.

        Parameters
        ----------
        name
            By which the watcher knows it.
        material
            What is learned from.
        folder
            Of its checkpoint.
        dev
            By which the epoch is chosen, if there are any.
        """

    @abstractmethod
    def hear(self, network: nn.Module, material: Material) -> FloatArray:
        """Return scores of clips as they are and varied, shape (2, n_clips, n_scores).

        Parameters
        ----------
        network
            That did not learn from them.
        material
            The clips; others of them talk in the background when they are varied.
        """

    def assemble(self, network: nn.Module) -> nn.Module:
        """Return all of a network, of which a part was trained."""
        return network

    def describe(self) -> dict[str, Any]:
        """Return what else a model is to say of its training."""
        return {}

    def find_classes(self, cached: CachedClips) -> NDArray[np.intp]:
        """Return the indices of the clips' labels, shape (n_clips,)."""
        return np.array(class_indices(cached.clips, self.labels))

    @property
    def tells_perceived(self) -> bool:
        """Whether the networks also tell what listeners hear."""
        return self.votes is not None and self.config.perceived_weight > 0

    @property
    def n_scores(self) -> int:
        """Number of scores that the networks give a clip: of the labels, and as they are heard."""
        return len(self.labels) * (2 if self.tells_perceived else 1)

    def find_targets(self, cached: CachedClips) -> FloatArray:
        """Return what is to be said of each clip, shape (n_clips, n_scores)."""
        check_labels(self.find_classes(cached), self.labels)
        taught = self.teacher.judge(cached, self.labels) if self.teacher else None
        targets = make_targets(cached.clips, self.labels, self.config, self.votes, taught)
        return np.hstack((targets, self.find_perceived(cached)))

    def find_perceived(self, cached: CachedClips) -> FloatArray:
        """Return the listeners' shares, shape (n_clips, n_labels); (n_clips, 0) if not learned."""
        if self.votes is None or not self.tells_perceived:
            return np.empty((len(cached), 0), np.float32)
        return find_vote_shares(cached.clips, self.labels, self.votes)

    def find_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of what is intended, and of what is perceived where there are votes.

        Parameters
        ----------
        outputs, targets
            Shape (n_clips, n_scores).
        """
        n_labels = len(self.labels)
        loss = cross_entropy(outputs[:, :n_labels], targets[:, :n_labels])
        if self.tells_perceived:
            # A clip without votes has a row of zeros, which costs nothing.
            heard = cross_entropy(outputs[:, n_labels:], targets[:, n_labels:])
            loss = loss + self.config.perceived_weight * heard
        return loss

    def create(self, make: Callable[[], nn.Module]) -> nn.Module:
        """Return what `make` makes, its random weights by the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            return make()

    def draw_varied(self, cached: CachedClips, index: int) -> np.random.Generator:
        """Return the source of all draws by which a clip is varied to be judged."""
        name = crc32(cached.clips[index].name.encode(errors="surrogateescape"))
        return np.random.default_rng([self.config.seed, name])

    def fit(
        self,
        name: str,
        network: nn.Module,
        batches: Batches,
        n_batches: int,
        material: Material,
        folder: Path,
        dev: Material | None,
        *,
        loss: Loss,
        groups: Groups | None = None,
        config: NeuralConfig | None = None,
        score: Callable[[nn.Module, Material], FloatArray],
        facts: Mapping[str, Any],
    ) -> Fitted:
        """Train a network by the loop, or go on from its checkpoint.

        Parameters
        ----------
        name, material, folder, dev
            As for `teach`.
        network, batches, n_batches, loss, groups
            As for `sercli.training.loop.fit_network`.
        config
            Where this network is trained otherwise.
        score
            Gives the scores of the development clips.
        facts
            What else must be the same for a checkpoint to be of use.
        """
        config, cached = config or self.config, material.cached
        self.watcher.begin(name)
        return fit_network(
            network,
            batches,
            n_batches,
            config,
            folder,
            loss=loss,
            groups=groups,
            validate=self._validate_on(dev, score) if dev else None,
            fingerprint={
                # One by one, so that it can be told which is another.
                **{key: value for key, value in asdict(config).items() if key not in FREE},
                "settings": self.network_settings.to_dict(),
                "labels": self.labels,
                "clips": digest("".join(cached.hashes).encode()),
                "development clips": digest("".join(dev.cached.hashes).encode()) if dev else None,
                "targets": digest(self.find_targets(cached).tobytes()),  # with votes and teacher
                **facts,
            },
            resume=self.resume and (folder / CHECKPOINT_FILE).exists(),
            report=self.watcher.report,
        )

    def _validate_on(
        self, dev: Material, score: Callable[[nn.Module, Material], FloatArray]
    ) -> Callable[[nn.Module], Validation]:
        classes = self.find_classes(dev.cached)

        def validate(network: nn.Module) -> Validation:
            scores = torch.from_numpy(score(network, dev)[:, : len(self.labels)])
            probabilities = scores.double().softmax(dim=1).numpy()
            uar = unweighted_average_recall(classes, probabilities.argmax(axis=1))
            return Validation(float(segment_nll(classes, probabilities).mean()), uar)

        return validate


def score_clips(network: nn.Module, cached: CachedClips, hear: Hear | None = None) -> FloatArray:
    """Return scores of clips, shape (n_clips, n_scores); few waveforms are in memory at once.

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


def digest(content: bytes) -> str:
    """Return a short hash, by which contents are told apart."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()
