"""Base class of the courses: how the networks of one training learn and are scored."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.classifiers.base import BATCH_S
from sercli.classifiers.batches import group_by_length
from sercli.classifiers.neural import TrainedNetworkClassifier
from sercli.datasets.corpus import class_indices
from sercli.datasets.decoding import cut_equally
from sercli.datasets.votes import Votes
from sercli.errors import ConfigError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.metrics import segment_nll, unweighted_average_recall
from sercli.neural.batching import pad
from sercli.neural.cnn import CnnSettings
from sercli.neural.devices import computing, fitting, seeded
from sercli.neural.transformer import TransformerSettings
from sercli.text import format_count
from sercli.training.cache import CachedClips
from sercli.training.config import NeuralConfig
from sercli.training.folds import check_labels
from sercli.training.networks.batches import NO_LABEL, Augmenter, Load
from sercli.training.networks.digests import digest, digest_audio, digest_facts
from sercli.training.networks.history import CHECKPOINT_FILE
from sercli.training.networks.loop import (
    Batches,
    Fitted,
    Loss,
    Validation,
    cross_entropy,
    fit_network,
)
from sercli.training.networks.material import Material
from sercli.training.networks.optimiser import ParameterGroups
from sercli.training.networks.targets import find_vote_shares, make_targets
from sercli.training.teachers import Teacher
from sercli.training.trainer import Say
from sercli.training.unlabelled import Unlabelled
from sercli.training.watcher import Watcher

# Settings that may change when a training is resumed: its device and number of processes.
FREE = ("device", "jobs")


@dataclass(frozen=True, eq=False)
class Course(ABC):
    """Settings and methods that all networks of a training share.

    Parameters
    ----------
    config
        Training settings.
    labels
        Labels, in the order of the scores.
    votes
        Listeners' votes, by clip name, or None.
    teacher
        Teacher whose probabilities are part of the targets, or None.
    substitute
        Course that trains substitutes for the teacher when networks are scored on folds whose
        speakers the teacher knows, or None; see `sercli.training.substitutes`.
    unlabelled
        Unlabelled speech, for which the teacher's probabilities are the only targets, or None.
    before
        Manifest of what the networks were trained on before this training.
    resume
        Whether to resume from existing checkpoints.
    watcher
        Receiver of progress reports.

    Raises
    ------
    ConfigError
        If there is unlabelled speech but no teacher.

    Attributes
    ----------
    classifier
        Class of the classifier that wraps a trained network.
    packages
        Names of the packages whose versions are recorded in the model.
    """

    classifier: ClassVar[type[TrainedNetworkClassifier]]
    packages: ClassVar[tuple[str, ...]]

    config: NeuralConfig
    labels: tuple[str, ...] = ()
    votes: Votes | None = None
    teacher: Teacher | None = None
    substitute: "Course | None" = None
    unlabelled: Unlabelled | None = None
    before: TrainingManifest = field(default_factory=TrainingManifest)
    resume: bool = False
    watcher: Watcher = field(default_factory=Watcher)

    def __post_init__(self) -> None:
        """Raise if there is unlabelled speech but no teacher."""
        if self.unlabelled is not None and self.teacher is None:
            raise ConfigError("unlabelled speech needs a teacher to label it; expected a teacher")

    @property
    def speech(self) -> tuple[Unlabelled, ...]:
        """All sets of unlabelled speech used in training."""
        return () if self.unlabelled is None else (self.unlabelled,)

    def refuse_labels(self, labels: Sequence[str]) -> None:
        """Raise before any decoding if the networks cannot learn some labels.

        Parameters
        ----------
        labels
            Labels of the training clips.

        Raises
        ------
        ConfigError
            If they are not those of the teacher, or lack one that is needed.
        """
        if self.teacher is not None:
            self.teacher.refuse_labels(labels)

    def find_speech(self, say: Say) -> None:
        """Detect and describe the speech in recordings without labels.

        Parameters
        ----------
        say
            Called with each message.

        Raises
        ------
        DatasetError
            If there is none, or not enough.
        """
        for speech in self.speech:
            say("detecting speech in unlabelled recordings")
            say(speech.describe())

    @property
    @abstractmethod
    def network_settings(self) -> CnnSettings | TransformerSettings:
        """Settings of the networks' architecture."""

    @property
    @abstractmethod
    def band_limit(self) -> float:
        """Upper frequency limit of the audio, in Hz."""

    @abstractmethod
    def prepare(
        self, cached: CachedClips, say: Say, *, learned: bool = True, scored: bool = True
    ) -> Material:
        """Compute the inputs that the networks need for each clip.

        Parameters
        ----------
        cached
            The clips.
        say
            Called with each message.
        learned
            Whether the clips are training clips.
        scored
            Whether the clips are scored by networks that were not trained on them.
        """

    def gather(self, cached: CachedClips, say: Say, *, scored: bool = True) -> Material:
        """Prepare the training clips and, if any, the unlabelled speech, scored by the teacher.

        Parameters
        ----------
        cached, say, scored
            As for `prepare`.
        """
        material = self.prepare(cached, say, scored=scored)
        if self.unlabelled is None or self.teacher is None:
            return material
        if self.unlabelled.prosodies:
            say(
                f"making {format_count(self.unlabelled.prosodies, 'version')} of "
                f"{len(self.unlabelled.segments):,} unlabelled segments with other pitch, tempo "
                "and voice quality"
            )
        speech = self.unlabelled.cached
        say(f"{self.teacher.name} classifies {len(speech):,} unlabelled segments")
        self.teacher.classify(speech, self.labels)
        return replace(material, unlabelled=self.prepare(speech, say, scored=False))

    @abstractmethod
    def teach(
        self, name: str, material: Material, folder: Path, dev: Material | None = None
    ) -> Fitted:
        """Train a network.

        Parameters
        ----------
        name
            Name of the network in progress reports.
        material
            Training clips, as returned by `gather`.
        folder
            Folder of the checkpoint.
        dev
            Development clips, on which the best epoch is chosen, or None.
        """

    @abstractmethod
    def score(self, network: nn.Module, material: Material, learned: Material) -> FloatArray:
        """Return scores of several versions of clips, shape (n_versions, n_clips, n_scores).

        The versions are all or the first of `sercli.training.folds.VERSIONS`.

        Parameters
        ----------
        network
            Network that was not trained on the clips.
        material
            The clips. They are also the source of background talkers in the augmentation, unless
            the inputs of all clips were computed before; see `TransformerCourse.prepare`.
        learned
            The clips that the network was trained on.
        """

    def describe(self) -> dict[str, Any]:
        """Return further facts for the model's record of its training."""
        return {}

    def find_classes(self, cached: CachedClips) -> NDArray[np.intp]:
        """Return the indices of the clips' labels, shape (n_clips,)."""
        return np.array(class_indices(cached.clips, self.labels))

    def find_draws(self, material: Material) -> NDArray[np.intp]:
        """Return the class as which each training clip is drawn: the index of its label.

        The unlabelled segments come after the labelled clips, with `NO_LABEL` less the index of the
        teacher's label.
        """
        classes = self.find_classes(material.cached)
        if material.unlabelled is None or self.teacher is None:
            return classes
        said = self.teacher.classify(material.unlabelled.cached, self.labels)
        return np.append(classes, NO_LABEL - said.argmax(axis=1))

    @property
    def tells_perceived(self) -> bool:
        """Whether the networks also predict the emotion that listeners perceive."""
        return self.votes is not None and self.config.perceived_weight > 0

    @property
    def n_scores(self) -> int:
        """Number of scores per clip: one per label, and again for the perceived emotions."""
        return len(self.labels) * (2 if self.tells_perceived else 1)

    def find_targets(self, material: Material) -> FloatArray:
        """Return the targets of all training clips, shape (n_clips, n_scores).

        Targets of unlabelled segments are the teacher's probabilities; their perceived part is
        zero.
        """
        cached = material.cached
        check_labels(self.find_classes(cached), self.labels)
        taught = self.teacher.classify(cached, self.labels) if self.teacher else None
        targets = make_targets(cached.clips, self.labels, self.config, taught)
        parts = [np.hstack((targets, self.find_perceived(cached)))]
        if material.unlabelled is not None and self.teacher is not None:
            said = self.teacher.classify(material.unlabelled.cached, self.labels)
            unknown = np.zeros((len(said), self.n_scores - len(self.labels)))
            parts.append(np.hstack((said, unknown)).astype(np.float32))
        return np.vstack(parts)

    def find_perceived(self, cached: CachedClips) -> FloatArray:
        """Return the listeners' shares, shape (n_clips, n_labels), or (n_clips, 0) if not used."""
        if self.votes is None or not self.tells_perceived:
            return np.empty((len(cached), 0), np.float32)
        return find_vote_shares(cached.clips, self.labels, self.votes)

    def find_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of the intended emotions, plus that of the perceived ones if learned.

        Parameters
        ----------
        outputs, targets
            Logits and targets, shape (n_clips, n_scores).
        """
        n_labels = len(self.labels)
        loss = cross_entropy(outputs[:, :n_labels], targets[:, :n_labels])
        if self.tells_perceived:
            # A clip without votes or without a label has a row of zeros, whose loss is 0.
            perceived = cross_entropy(outputs[:, n_labels:], targets[:, n_labels:])
            loss = loss + self.config.perceived_weight * perceived
        return loss

    def create(self, make: Callable[[], nn.Module]) -> nn.Module:
        """Return the network that `make` creates, with random weights drawn from the seed."""
        with seeded(self.config.seed):
            return make()

    def vary(self, cached: CachedClips) -> Load:
        """Return a function from the index of a held-out clip to its augmented waveform.

        The draws depend on the seed and the clip's name alone.
        """
        augmenter = Augmenter(cached, self.config)

        def load(index: int) -> FloatArray:
            name = crc32(cached.clips[index].name.encode(errors="surrogateescape"))
            return augmenter.augment(index, np.random.default_rng([self.config.seed, name]))

        return load

    def score_varied(self, network: nn.Module, cached: CachedClips) -> FloatArray:
        """Return scores of held-out clips, unchanged and augmented, shape (2, n_clips, n_scores).

        Parameters
        ----------
        network
            Network in evaluation mode.
        cached
            The clips.
        """
        plain = score_clips(network, cached)
        return np.stack((plain, score_clips(network, cached, self.vary(cached))))

    def fit(
        self,
        name: str,
        network: nn.Module,
        batches: Batches,
        material: Material,
        folder: Path,
        dev: Material | None,
        *,
        loss: Loss,
        groups: ParameterGroups | None = None,
        config: NeuralConfig | None = None,
        score: Callable[[nn.Module, Material], FloatArray],
        facts: Mapping[str, Any],
    ) -> Fitted:
        """Train a network, or resume from its checkpoint.

        Parameters
        ----------
        name, material, folder, dev
            As for `teach`.
        network, batches, loss, groups
            As for `sercli.training.networks.loop.fit_network`.
        config
            Training settings of this network; those of the course by default.
        score
            Function that returns a network's scores of the development clips.
        facts
            Further facts that must be the same for a checkpoint to be resumed.
        """
        config, cached, unlabelled = config or self.config, material.cached, material.unlabelled
        self.watcher.begin(name)
        return fit_network(
            network,
            batches,
            config,
            folder,
            loss=loss,
            groups=groups,
            validate=self._validate_on(dev, score) if dev else None,
            fingerprint={
                # One entry per setting, so that the error can name the one that differs.
                **{key: value for key, value in asdict(config).items() if key not in FREE},
                "settings": asdict(self.network_settings),
                "labels": self.labels,
                "clips": digest_audio(cached),
                "names, speakers and labels": digest_facts(cached),
                "unlabelled": digest_audio(unlabelled.cached) if unlabelled else None,
                "development clips": digest_audio(dev.cached) if dev else None,
                "development labels": digest_facts(dev.cached) if dev else None,
                "targets": digest(self.find_targets(material).tobytes()),  # with votes and teacher
                # A substitute's probabilities are recomputed after a restart, and their rounding
                # depends on the number of threads.
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


def score_clips(network: nn.Module, cached: CachedClips, load: Load | None = None) -> FloatArray:
    """Return scores of clips, shape (n_clips, n_scores), loading few waveforms at a time.

    The scores of a long clip are the mean of those of its pieces; see `cut_equally`.

    Parameters
    ----------
    network
        Network in evaluation mode.
    cached
        The clips.
    load
        Function from the index of a clip to its waveform; by default the unchanged waveform.
    """
    device = next(network.parameters()).device
    parts, order = [], []
    memory = fitting("a batch of clips", device)
    with memory, torch.inference_mode(), computing(device, torch.float32):
        for group in group_by_length(cached.lengths, int(BATCH_S * SAMPLE_RATE)):
            pieces = [cut_equally(load(i) if load else cached.utterance(i).waveform) for i in group]
            batch = pad([*chain.from_iterable(pieces)])
            scores = network(*(part.to(device) for part in batch))
            parts += [some.mean(dim=0) for some in scores.split([*map(len, pieces)])]
            order += group
    of_clips: FloatArray = torch.stack(parts).numpy(force=True)[np.argsort(order)]
    return of_clips
