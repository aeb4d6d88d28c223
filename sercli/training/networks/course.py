"""What the networks of one training have in common, and how each of them learns."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sercli.arrays import FloatArray
from sercli.audio.reading import SAMPLE_RATE
from sercli.classifiers.base import BATCH_S
from sercli.classifiers.batches import group_by_length
from sercli.classifiers.neural import NeuralClassifier
from sercli.datasets.base import class_indices
from sercli.datasets.votes import Votes
from sercli.errors import ConfigError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.metrics import segment_nll, unweighted_average_recall
from sercli.neural.batching import pad
from sercli.neural.devices import computing, seeded
from sercli.training.cache import CachedClips
from sercli.training.config import NeuralConfig
from sercli.training.folds import check_labels
from sercli.training.networks.batches import NO_LABEL
from sercli.training.networks.checkpoints import CHECKPOINT_FILE
from sercli.training.networks.loop import (
    Batches,
    Fitted,
    Loss,
    Validation,
    cross_entropy,
    fit_network,
)
from sercli.training.networks.material import Material
from sercli.training.networks.optimiser import Groups
from sercli.training.networks.targets import find_vote_shares, make_targets
from sercli.training.networks.watcher import Watcher
from sercli.training.teachers import Teacher
from sercli.training.trainer import Say
from sercli.training.unlabelled import Unlabelled

# Settings that may be others when a training goes on: where and on how many cores it runs.
FREE = ("device", "jobs")

Hear = Callable[[int], FloatArray]


class Settings(Protocol):
    """The shape of a network."""

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""


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
    substitute
        How teachers like it are trained, for networks that are judged by a fold that it knows, or
        None; see `sercli.training.substitutes`.
    adapter
        Whether what judges by baselines is trained, too.
    unlabelled
        Speech on which they are all that is learned, or None.
    before
        Of what the networks learned from before this training.
    resume
        Go on from checkpoints where there are any.
    watcher
        Told how far it is.

    Raises
    ------
    ConfigError
        If there is unlabelled speech, and no teacher.

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
    substitute: "Course | None" = None
    adapter: bool = False
    unlabelled: Unlabelled | None = None
    before: TrainingManifest = field(default_factory=TrainingManifest)
    resume: bool = False
    watcher: Watcher = field(default_factory=Watcher)

    def __post_init__(self) -> None:
        """Refuse speech of which nobody says anything."""
        if self.unlabelled is not None and self.teacher is None:
            raise ConfigError(
                "speech that nobody labelled is learned from by what a teacher says of it; "
                "expected a teacher"
            )

    @property
    def speech(self) -> tuple[Unlabelled, ...]:
        """All speech without labels that the networks learn from."""
        return () if self.unlabelled is None else (self.unlabelled,)

    @property
    @abstractmethod
    def network_settings(self) -> Settings:
        """The shape of the networks."""

    @property
    @abstractmethod
    def band_limit(self) -> float:
        """Frequency in Hz above which nothing is heard."""

    @abstractmethod
    def prepare(
        self, cached: CachedClips, say: Say, *, learned: bool = True, judged: bool = True
    ) -> Material:
        """Compute what the networks need of each clip.

        Parameters
        ----------
        cached
            The clips.
        say
            Told what is done.
        learned
            They are learned from.
        judged
            They are judged, by networks that do not learn from them.
        """

    def gather(self, cached: CachedClips, say: Say) -> Material:
        """Prepare clips that are learned from, and with them the speech that nobody labelled.

        Parameters
        ----------
        cached, say
            As for `prepare`.
        """
        material = self.prepare(cached, say)
        if self.unlabelled is None or self.teacher is None:
            return material
        speech = self.unlabelled.cached
        say(f"{self.teacher.name} says what it hears in {len(speech):,} unlabelled segments")
        self.teacher.judge(speech, self.labels)
        return replace(material, unlabelled=self.prepare(speech, say, judged=False))

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
            What is learned from, of `gather`.
        folder
            Of its checkpoint.
        dev
            By which the epoch is chosen, if there are any.
        """

    @abstractmethod
    def hear(self, network: nn.Module, material: Material) -> FloatArray:
        """Return scores of versions of clips, shape (n_versions, n_clips, n_scores).

        They are those of `sercli.training.folds.VERSIONS`, or the first of them.

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

    def find_draws(self, material: Material) -> NDArray[np.intp]:
        """Return as what each clip that is learned from is drawn: its label's index, or none."""
        n_unlabelled = len(material.heard) - len(material)
        return np.append(self.find_classes(material.cached), np.full(n_unlabelled, NO_LABEL))

    @property
    def tells_perceived(self) -> bool:
        """Whether the networks also tell what listeners hear."""
        return self.votes is not None and self.config.perceived_weight > 0

    @property
    def n_scores(self) -> int:
        """Number of scores that the networks give a clip: of the labels, and as they are heard."""
        return len(self.labels) * (2 if self.tells_perceived else 1)

    def find_targets(self, material: Material) -> FloatArray:
        """Return what is to be said of each clip that is learned from, shape (n_clips, n_scores).

        Of what nobody labelled, it is what the teacher says; what listeners hear is not known.
        """
        cached = material.cached
        check_labels(self.find_classes(cached), self.labels)
        taught = self.teacher.judge(cached, self.labels) if self.teacher else None
        targets = make_targets(cached.clips, self.labels, self.config, taught)
        parts = [np.hstack((targets, self.find_perceived(cached)))]
        if material.unlabelled is not None and self.teacher is not None:
            said = self.teacher.judge(material.unlabelled.cached, self.labels)
            unknown = np.zeros((len(said), self.n_scores - len(self.labels)))
            parts.append(np.hstack((said, unknown)).astype(np.float32))
        return np.vstack(parts)

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
            # A clip without votes, or without a label, has a row of zeros, which costs nothing.
            heard = cross_entropy(outputs[:, n_labels:], targets[:, n_labels:])
            loss = loss + self.config.perceived_weight * heard
        return loss

    def create(self, make: Callable[[], nn.Module]) -> nn.Module:
        """Return what `make` makes, its random weights by the seed."""
        with seeded(self.config.seed):
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
            As for `sercli.training.networks.loop.fit_network`.
        config
            Where this network is trained otherwise.
        score
            Gives the scores of the development clips.
        facts
            What else must be the same for a checkpoint to be of use.
        """
        config, cached, unlabelled = config or self.config, material.cached, material.unlabelled
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
                "clips": digest_audio(cached),
                "names, speakers and labels": _digest_facts(cached),
                "unlabelled": digest_audio(unlabelled.cached) if unlabelled else None,
                "development clips": digest_audio(dev.cached) if dev else None,
                "development labels": _digest_facts(dev.cached) if dev else None,
                "targets": digest(self.find_targets(material).tobytes()),  # with votes and teacher
                # What a teacher of a fold says is computed anew, and rounded by their number.
                "threads": torch.get_num_threads() if self.substitute else None,
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
    with torch.inference_mode(), computing(device, torch.float32):
        for group in group_by_length(cached.lengths, int(BATCH_S * SAMPLE_RATE)):
            batch = pad([hear(i) if hear else cached.utterance(i).waveform for i in group])
            parts.append(network(*(part.to(device) for part in batch)).numpy(force=True))
            order += group
    scores: FloatArray = np.concatenate(parts)[np.argsort(order)]
    return scores


def digest_audio(cached: CachedClips) -> str:
    """Return a short hash of the audio of clips, at the rate at which it is heard.

    The hash of a clip does not know its rate, which a header may have had wrong.
    """
    return digest(repr((cached.hashes, cached.lengths)).encode())


def _digest_facts(cached: CachedClips) -> str:
    """Return a short hash of what decides the draws of clips, and what they are to be judged as."""
    facts = [(clip.name, clip.voice, clip.emotion) for clip in cached.clips]
    return digest(repr(facts).encode(errors="surrogateescape"))


def digest(content: bytes) -> str:
    """Return a short hash, by which contents are told apart."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()
