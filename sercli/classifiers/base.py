"""What all model families share: a specification, and the way from waveforms to probabilities."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from sercli.adaptation import Adapter
from sercli.arrays import DoubleArray, FloatArray
from sercli.calibration import Calibration
from sercli.config import Precision, Target
from sercli.errors import ConfigError, ModelError
from sercli.system.shared_limit import SharedLimit

Tensors = Mapping[str, NDArray[Any]]

# Larger batches are hardly faster on a CPU, and need more memory.
BATCH_S = 12.0


def _limit_blas(n_threads: int) -> Callable[[], None]:
    limiter = ThreadpoolController().select(user_api="blas").limit(limits=n_threads)
    undo: Callable[[], None] = limiter.restore_original_limits
    return undo


_BLAS_LIMIT = SharedLimit(_limit_blas)


@dataclass(frozen=True)
class ModelSpec:
    """What a model folder says of its model; the content of ``model.json``.

    Parameters
    ----------
    family
        Which classifier reads the weights, such as ``"svm"``.
    labels
        In the order of the probabilities.
    sample_rate
        Of the waveforms that the model takes, in Hz.
    band_limit
        Frequency in Hz to which audio is limited before features, in training and in use alike.
    calibration
        From scores to probabilities of what is intended.
    settings
        What the family needs besides its weights.
    training
        How the model came about: data, speakers, split, seed, figures.
    versions
        Packages that it was trained with.
    perceived
        From scores to the shares of listeners who hear each label; None: it does not tell them.
    """

    family: str
    labels: tuple[str, ...]
    sample_rate: int
    band_limit: float
    calibration: Calibration
    settings: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    perceived: Calibration | None = None

    @property
    def n_scores(self) -> int:
        """Number of scores that the model gives a segment."""
        return len(self.calibration.weights)

    def find_calibration(self, target: Target = "intended") -> Calibration:
        """Return the calibration of an output.

        Parameters
        ----------
        target
            What the probabilities are to tell.

        Raises
        ------
        ConfigError
            If there is no such target, or the model has no such output.
        """
        if target not in get_args(Target):
            raise ConfigError(f"target is {target!r}; expected {' or '.join(get_args(Target))}")
        if target == "intended":
            return self.calibration
        if self.perceived is None:
            raise ConfigError(
                f"the {self.family} model tells only what is intended; expected a model that "
                "learned from listeners' votes what is perceived (see: ser models)"
            )
        return self.perceived


def check_scores(spec: ModelSpec) -> None:
    """Refuse a model whose scores are one for each label, and its calibration takes others.

    Raises
    ------
    ModelError
        With both numbers.
    """
    if spec.n_scores != len(spec.labels):
        raise ModelError(
            f"calibration takes {spec.n_scores} scores, and a model of the family {spec.family} "
            f"gives {len(spec.labels)}, one for each label; expected as many"
        )


class Classifier(ABC):
    """A model that is ready to judge segments.

    Features and scores are apart so that work on whole groups of segments can come between.

    Parameters
    ----------
    spec
        What its folder says of it.

    Attributes
    ----------
    family
        Name of the family, as `ModelSpec.family` spells it.
    in_workers
        Whether, for many clips, its features are computed beside the decoding, in worker
        processes; else in this process, on the model's device.
    folder
        The model folder that it was loaded from, or None.
    sha256
        Of what is stored of it, or None: of ``model.json``, which in turn holds those of the
        weights, or of the weights of a checkpoint of Hugging Face.
    revision
        The commit of a checkpoint of the hub, else None.
    adapter
        That judges segments by the baseline of their group, or None: it has none.
    """

    family: ClassVar[str]
    in_workers: ClassVar[bool] = True

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.folder: Path | None = None
        self.sha256: str | None = None
        self.revision: str | None = None
        self.adapter: Adapter | None = None

    @property
    def name(self) -> str:
        """Name of its folder, or of its family if it comes from none."""
        return self.folder.name if self.folder else self.family

    @property
    def limits(self) -> tuple[str, ...]:
        """What a reader of its labels must know; a sentence each."""
        return ()

    @property
    def front_end(self) -> Hashable:
        """What decides the features: models of which it is equal can share them."""
        return id(self)

    @property
    def batch_seconds(self) -> float:
        """Audio that is best judged at once by one worker, in seconds, padding included."""
        return BATCH_S

    @property
    def precision(self) -> Precision:
        """Number type that it multiplies."""
        return "fp32"

    def use_precision(self, precision: Precision) -> None:
        """Multiply another number type from now on.

        Parameters
        ----------
        precision
            See `sercli.neural.devices.find_precision`.

        Raises
        ------
        ConfigError
            If it cannot.
        """
        if precision not in ("auto", "fp32"):
            raise ConfigError(
                f"precision is {precision!r}; a model of the family {self.family} multiplies fp32"
            )

    @contextmanager
    def using_threads(self, n_threads: int) -> Iterator[None]:
        """Limit the threads of each worker that computes in the block.

        Parameters
        ----------
        n_threads
            For matrix products; where these are small, threads would only wait for each other.
        """
        with _BLAS_LIMIT.hold(n_threads):
            yield

    @contextmanager
    def replicas(
        self, n_workers: int, n_threads: int, batch_seconds: float
    ) -> Iterator[Sequence[Self]]:
        """Give models that judge alike and may do so at the same time, in several threads.

        Parameters
        ----------
        n_workers
            Threads that judge.
        n_threads
            With which each of them computes; see `using_threads`.
        batch_seconds
            Audio that each of them judges at once.
        """
        with self.using_threads(n_threads):
            yield [self] * n_workers

    @abstractmethod
    def extract_features(self, waveforms: Sequence[FloatArray]) -> FloatArray:
        """Return one row of features per segment, shape (n_segments, n_features).

        Parameters
        ----------
        waveforms
            Segments at the model's sample rate, each of shape (n_samples,).
        """

    @abstractmethod
    def score(self, features: FloatArray) -> FloatArray:
        """Return uncalibrated scores, shape (n_segments, n_scores).

        Parameters
        ----------
        features
            Shape (n_segments, n_features).
        """

    def predict_proba(
        self, waveforms: Sequence[FloatArray], target: Target = "intended"
    ) -> DoubleArray:
        """Return calibrated probabilities, shape (n_segments, n_labels), rows summing to 1.

        Parameters
        ----------
        waveforms
            Segments at the model's sample rate, each of shape (n_samples,).
        target
            Whether they tell what is intended, or what is perceived.

        Raises
        ------
        ConfigError
            If the model does not tell that, or a waveform is none.
        """
        calibration = self.spec.find_calibration(target)
        waveforms = [np.asarray(waveform) for waveform in waveforms]
        for waveform in waveforms:
            is_real = np.issubdtype(waveform.dtype, np.floating)
            with np.errstate(over="ignore"):
                finite = is_real and bool(np.isfinite(waveform.astype(np.float32)).all())
            if not finite or waveform.ndim != 1 or not len(waveform):
                raise ConfigError(
                    f"a waveform has the shape {waveform.shape} and the type {waveform.dtype}"
                    f"{', and values that are not finite' if is_real and not finite else ''}; "
                    "expected a list of arrays of shape (n_samples,), of finite floating-point "
                    "numbers"
                )
        if not waveforms:
            return np.empty((0, len(self.spec.labels)))
        return calibration.probabilities(self.score(self.extract_features(waveforms)))

    def adapts_unasked(self, target: Target) -> bool:
        """Tell whether segments are judged by baselines where that is left to the model (`auto`).

        Not if some mixes of emotions lose by it.

        Parameters
        ----------
        target
            What is to be told.
        """
        return target == "intended" and self.adapter is not None and self.adapter.settings.safe

    def find_adapter(self, target: Target = "intended") -> Adapter:
        """Return what judges segments by the baseline of their group.

        Parameters
        ----------
        target
            What is to be told.

        Raises
        ------
        ConfigError
            If the model has nothing that does, or it tells something else.
        """
        if self.adapter is None:
            raise ConfigError(
                f"the model {self.name} judges each segment by itself; expected one that knows "
                "what to make of a baseline (see: ser models), or no adaptation"
            )
        if target != "intended":
            raise ConfigError(
                f"by a baseline, what is intended is told, and not what is {target}; expected no "
                "adaptation"
            )
        return self.adapter


class TensorClassifier(Classifier):
    """A model with weights of its own, which are stored as tensors.

    Attributes
    ----------
    weight_files
        Files for weights that are not in the one for all others: name of the file, to that with
        which the names of its tensors begin.
    """

    weight_files: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abstractmethod
    def from_tensors(cls, spec: ModelSpec, tensors: Tensors, device: str = "auto") -> Self:
        """Build the model from its stored weights.

        Parameters
        ----------
        spec, tensors
            What its folder holds.
        device
            Where it is to run; see `sercli.registry.store.load_model`.

        Raises
        ------
        ModelError
            If tensors are missing or unexpected, or their shapes do not fit.
        ConfigError
            If it does not run on the device.
        """

    @abstractmethod
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights as they are stored."""
