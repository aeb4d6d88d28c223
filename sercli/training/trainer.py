"""What `sercli.training.run` asks of a family: to prepare, to learn from and to judge clips."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.datasets.base import Clip
from sercli.datasets.notes import Notes
from sercli.evaluation.leaks import TrainingManifest
from sercli.training.config import AdapterConfig, FusionConfig, NeuralConfig, SvmConfig

Say = Callable[[str], None]


class Prepared(Protocol):
    """Clips that are ready to be learned from; those that failed are named apart."""

    @property
    def clips(self) -> tuple[Clip, ...]:
        """Those that could be decoded."""

    @property
    def hashes(self) -> tuple[str, ...]:
        """Of the decoded audio of each clip."""

    @property
    def failed(self) -> Mapping[str, str]:
        """Error of each clip that could not be decoded, by its place."""

    @property
    def notes(self) -> Mapping[str, Notes]:
        """What was repaired of recordings, or is not heard, by their paths."""


class Learned(NamedTuple):
    """A model, and what others like it say of clips that they did not learn from.

    Parameters
    ----------
    classifier
        Its ``spec.training`` tells its settings and what it reached on clips held out.
    held_out
        Calibrated probabilities of all clips that it learned from, each by a model that did not,
        shape (n_clips, n_labels); None if there were no such models.
    """

    classifier: Classifier
    held_out: DoubleArray | None = None


P = TypeVar("P", bound=Prepared)


class Trainer(ABC, Generic[P]):
    """How the models of one family are trained.

    Attributes
    ----------
    uses_dev
        Whether development clips, which are not learned from, are of use to it.
    config
        How to train.
    say
        Told what is done next and what was found.
    """

    uses_dev: ClassVar[bool]
    config: SvmConfig | NeuralConfig | FusionConfig | AdapterConfig
    say: Say

    @property
    def device(self) -> str:
        """Where a model that it trained is to be measured."""
        return "auto"

    @property
    def failed(self) -> Mapping[str, str]:
        """Error of what was to be learned from besides the clips, and failed, by its place."""
        return {}

    @property
    def notes(self) -> Mapping[str, Notes]:
        """What was repaired of what is learned from besides the clips, or is not heard of it."""
        return {}

    def begin(self, folder: Path) -> None:
        """Make a model folder ready, before anything is learned."""

    def check_judged(self, clips: Sequence[Clip]) -> None:
        """Refuse to train what would know something of clips that are held out to judge it.

        Raises
        ------
        ConfigError
            With what it would know.
        """

    def check_fit(
        self, clips: Sequence[Clip], labels: Sequence[str], dev: Sequence[Clip] = ()
    ) -> None:
        """Refuse clips that `fit` would refuse, before any of them is heard.

        Raises
        ------
        DatasetError
            If they do not suffice, as far as that can be told without hearing them.
        """

    def check_fit_fold(self, clips: Sequence[Clip], labels: Sequence[str]) -> None:
        """Refuse clips that `fit_fold` would refuse, before any of them is heard.

        Raises
        ------
        DatasetError
            As of `check_fit`.
        """

    @abstractmethod
    def prepare(self, parts: Sequence[Sequence[Clip]]) -> list[P]:
        """Make clips ready, part by part: nothing of one part is heard in another.

        Raises
        ------
        DatasetError
            If not one clip of a part can be decoded.
        """

    @abstractmethod
    def join(self, parts: Sequence[P]) -> P:
        """Return the clips of several parts as one."""

    @abstractmethod
    def fit(self, found: P, labels: Sequence[str], folder: Path, dev: P | None = None) -> Learned:
        """Train and calibrate a model.

        Parameters
        ----------
        found
            What is learned from.
        labels
            Of the clips, in the order of the model's probabilities.
        folder
            The model folder; what of a training is not kept may lie in it.
        dev
            Development clips, if there are any and it uses them.

        Raises
        ------
        DatasetError
            If the clips do not suffice.
        """

    @abstractmethod
    def fit_fold(self, found: P, labels: Sequence[str], folder: Path, number: int) -> Classifier:
        """Train and calibrate a model that judges one fold of a cross-validation.

        Parameters
        ----------
        found
            The other folds.
        labels, folder
            As for `fit`.
        number
            Of the fold, from 1.
        """

    @abstractmethod
    def judge(self, model: Classifier, found: P) -> DoubleArray:
        """Return a model's probabilities for clips as they are, shape (n_clips, n_labels)."""

    def make_manifest(self, found: P) -> TrainingManifest:
        """Return the manifest of a model that learned from clips."""
        return TrainingManifest.from_clips(found.clips, found.hashes)

    def record(self, details: dict[str, Any], training: Mapping[str, Any]) -> dict[str, Any]:
        """Return what ``model.json`` tells of a training.

        Parameters
        ----------
        details
            What was learned from, and by what command.
        training
            Settings and figures, of `fit`.
        """
        return {**details, **training}

    def finish(self, folder: Path) -> None:
        """Put a model folder in order, after all is learned and measured."""


AnyTrainer = Trainer[Any]
