"""Interface of the trainers: `sercli.training.run` prepares, fits and scores clips through it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.datasets.clip import Clip
from sercli.datasets.extraction import ClipFeatures, Progress
from sercli.evaluation.leaks import TrainingManifest
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.config import AdapterConfig, FusionConfig, NeuralConfig, SvmConfig

if TYPE_CHECKING:
    from sercli.training.unlabelled import Unlabelled

Say = Callable[[str], None]


# Clips that are ready for training, and the errors of those that are not.
Prepared = CachedClips | ClipFeatures


class Learned(NamedTuple):
    """A trained model, and held-out probabilities of its training clips.

    Parameters
    ----------
    classifier
        The model; its ``spec.training`` records settings and figures on held-out clips.
    held_out
        Calibrated probabilities of all training clips, each by a model that was not trained on the
        clip, of shape (n_clips, n_labels): of the unchanged version, and of any others that an
        adapter may learn from; empty if there are no such models.
    """

    classifier: Classifier
    held_out: tuple[DoubleArray, ...] = ()


P = TypeVar("P", bound=Prepared)


@dataclass(frozen=True, eq=False, kw_only=True)
class Trainer(ABC, Generic[P]):
    """Base class of the trainers, one for each family of models.

    Parameters
    ----------
    cache
        Folder of the decoded audio; created if missing.
    say
        Called with each message.
    progress
        Called with the number of newly decoded clips.
    adapter
        Whether an adapter is trained, too, if there are held-out probabilities; see
        `sercli.training.adapters`.

    Attributes
    ----------
    uses_dev
        Whether the trainer uses development clips, to choose and calibrate the model.
    config
        Training settings.
    """

    uses_dev: ClassVar[bool] = False

    config: SvmConfig | NeuralConfig | FusionConfig | AdapterConfig = field(init=False)
    cache: Path
    say: Say = lambda _: None
    progress: Progress | None = None
    adapter: bool = False

    @property
    def speech(self) -> "tuple[Unlabelled, ...]":
        """All sets of unlabelled speech used in training."""
        return ()

    def begin(self, folder: Path) -> None:
        """Check and prepare the model folder before the training.

        Parameters
        ----------
        folder
            Path of the model folder.
        """

    def check_held_out(self, clips: Sequence[Clip]) -> None:
        """Raise if the models would be trained on held-out clips or their speakers indirectly.

        That is, through a teacher, a base, members, or unlabelled speech.

        Parameters
        ----------
        clips
            Clips that are held out to evaluate, choose or calibrate the models.

        Raises
        ------
        ConfigError
            If a model or speech that the training uses knows the clips or their speakers.
        """

    def check_fit(
        self, clips: Sequence[Clip], labels: Sequence[str], dev: Sequence[Clip] = ()
    ) -> None:
        """Raise before any decoding if `fit` would raise with these clips.

        Parameters
        ----------
        clips
            Training clips.
        labels
            Labels of the clips.
        dev
            Development clips, if any.

        Raises
        ------
        DatasetError
            If the clips do not suffice, as far as that is known without decoding them.
        """

    def check_fit_fold(self, clips: Sequence[Clip], labels: Sequence[str]) -> None:
        """Raise before any decoding if `fit_fold` would raise with these clips.

        Parameters
        ----------
        clips, labels
            As for `check_fit`.

        Raises
        ------
        DatasetError
            As for `check_fit`.
        """

    @abstractmethod
    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[P]:
        """Prepare clips, part by part: no clip of one part is used in the augmentation of another.

        Parameters
        ----------
        parts
            Clips of each part.

        Returns
        -------
        list of Prepared
            The prepared clips of each part.

        Raises
        ------
        DatasetError
            If no clip of a part can be decoded.
        """

    @abstractmethod
    def fit(self, found: P, labels: Sequence[str], folder: Path, dev: P | None = None) -> Learned:
        """Train and calibrate a model.

        Parameters
        ----------
        found
            Training clips.
        labels
            Labels of the clips, in the order of the model's probabilities.
        folder
            Path of the model folder, which may hold temporary files of the training.
        dev
            Development clips, if there are any and the trainer uses them.

        Returns
        -------
        Learned

        Raises
        ------
        DatasetError
            If the clips do not suffice.
        """

    @abstractmethod
    def fit_fold(self, found: P, labels: Sequence[str], folder: Path, number: int) -> Classifier:
        """Train and calibrate a model that scores one fold of a cross-validation.

        Parameters
        ----------
        found
            Clips of all other folds.
        labels, folder
            As for `fit`.
        number
            Number of the fold, from 1.
        """

    @abstractmethod
    def classify(self, model: Classifier, found: P) -> DoubleArray:
        """Return a model's probabilities of unchanged clips, shape (n_clips, n_labels)."""

    def decode(self, parts: Sequence[Sequence[Clip]]) -> list[CachedClips]:
        """Decode clips into the cache, part by part; see `cache_clips`."""
        jobs, progress = self.config.jobs, self.progress
        return [cache_clips(clips, self.cache, jobs=jobs, progress=progress) for clips in parts]

    def make_manifest(self, found: P) -> TrainingManifest:
        """Return the manifest of a model trained on clips, including the unlabelled speech."""
        own = TrainingManifest.from_clips(found.clips, found.hashes)
        return own.join(one.manifest for one in self.speech)

    def record(self, details: dict[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
        """Return the record of a training for ``model.json``.

        Parameters
        ----------
        details
            Facts about the data and the command.
        training
            Settings and figures from `fit`.
        """
        return {**details, **training}

    def finish(self, folder: Path) -> None:
        """Clean up and complete the model folder after training and evaluation.

        Parameters
        ----------
        folder
            Path of the model folder.
        """


AnyTrainer = Trainer[Any]
