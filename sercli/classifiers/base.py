"""Base classes of all model families: specification, and prediction from waveforms."""

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
from sercli.arrays import DoubleArray, FloatArray, Tensors
from sercli.calibration import Calibration
from sercli.config import LONGEST_SEGMENT_S, Adaptation, Precision, Target
from sercli.errors import ConfigError, ModelError
from sercli.system.shared_limit import SharedLimit

# Seconds of audio in a batch; larger batches are hardly faster on a CPU and need more memory.
BATCH_S = 12.0


def _limit_blas(n_threads: int) -> Callable[[], None]:
    limiter = ThreadpoolController().select(user_api="blas").limit(limits=n_threads)
    undo: Callable[[], None] = limiter.restore_original_limits
    return undo


_BLAS_LIMIT = SharedLimit(_limit_blas)


@dataclass(frozen=True)
class ModelSpec:
    """Specification of a model, as in ``model.json``.

    Parameters
    ----------
    family
        Model family, such as ``"svm"``; it determines the class that reads the weights.
    labels
        Label names, in the order of the probabilities.
    sample_rate
        Sample rate of the model's input, in Hz.
    band_limit
        Frequency in Hz to which audio is limited before feature extraction, in training and in use.
    calibration
        Maps scores to probabilities of the intended emotion.
    settings
        Settings of the family, other than weights.
    training
        Record of the training: data, speakers, split, seed, figures.
    versions
        Versions of the packages that the model was trained with.
    perceived
        Maps scores to the shares of listeners who perceive each label; None if the model does not
        predict them.
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
        """Number of scores per segment."""
        return len(self.calibration.weights)

    def find_calibration(self, target: Target = "intended") -> Calibration:
        """Return the calibration of an output.

        Parameters
        ----------
        target
            Whether to predict what is intended or what is perceived.

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
                f"the {self.family} model predicts only the intended emotion; expected a model "
                "that was trained on listeners' votes to predict the perceived one (see: ser "
                "models)"
            )
        return self.perceived


def check_scores(spec: ModelSpec, n_outputs: int = 1) -> None:
    """Raise if the calibration does not take one score per label and output.

    Parameters
    ----------
    spec
        Specification of the model.
    n_outputs
        Number of outputs that the model has scores of.

    Raises
    ------
    ModelError
        If the numbers differ.
    """
    n_scores = n_outputs * len(spec.labels)
    if spec.n_scores != n_scores:
        each = "label" if n_outputs == 1 else "label and output"
        raise ModelError(
            f"calibration takes {spec.n_scores} scores, and a model of the family {spec.family} "
            f"gives {n_scores}, one for each {each}; expected as many"
        )


def _convert(read: Callable[[Any], Any], waveform: Any) -> Any:
    """Return what a function makes of a waveform, or of several."""
    try:
        return read(waveform)
    except (TypeError, ValueError, RuntimeError) as error:  # also of tensors
        raise ConfigError(
            f"a waveform cannot be read as an array: {error}; expected a list of arrays of shape "
            "(n_samples,)"
        ) from error


class Classifier(ABC):
    """A model that is ready to classify segments.

    Features and scores are separate steps, so that whole groups of segments can be processed in
    between.

    Parameters
    ----------
    spec
        Specification of the model.

    Attributes
    ----------
    family
        Name of the family, as in `ModelSpec.family`.
    in_workers
        Whether features of many clips are extracted in the worker processes that decode them, and
        not in this process on the model's device.
    folder
        Model folder that it was loaded from, or None.
    sha256
        SHA-256 of the stored model, or None if it is not stored: of ``model.json``, which in turn
        holds the hashes of the weights, or of the hashes of all files of a checkpoint of
        Hugging Face.
    revision
        Commit of a checkpoint on the hub, else None.
    adapter
        Adapts probabilities to the baseline of a group of segments, or None.
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
        """Name of its folder, or of its family if it has no folder."""
        return self.folder.name if self.folder else self.family

    @property
    def limits(self) -> tuple[str, ...]:
        """Limitations that a user of its labels must know, one sentence each."""
        return ()

    @property
    def front_end(self) -> Hashable:
        """Key of the feature extraction: models with equal keys can share features."""
        return id(self)

    @property
    def batch_seconds(self) -> float:
        """Best batch size of one worker, in seconds of audio, padding included."""
        return BATCH_S

    @property
    def precision(self) -> Precision:
        """Number type of its matrix products."""
        return "fp32"

    def use_precision(self, precision: Precision) -> None:
        """Change the number type of the matrix products.

        Parameters
        ----------
        precision
            Number type; see `sercli.neural.devices.find_precision`.

        Raises
        ------
        ConfigError
            If the model or its device does not support it.
        """
        if precision not in ("auto", "fp32"):
            raise ConfigError(
                f"precision is {precision!r}; a model of the family {self.family} multiplies fp32"
            )

    @contextmanager
    def using_threads(self, n_threads: int) -> Iterator[None]:
        """Limit the threads of each worker that computes within the block.

        Parameters
        ----------
        n_threads
            Number of threads for matrix products; for small ones, further threads would only wait
            for each other.
        """
        with _BLAS_LIMIT.hold(n_threads):
            yield

    @contextmanager
    def replicas(
        self, n_workers: int, n_threads: int, batch_seconds: float
    ) -> Iterator[Sequence[Self]]:
        """Yield models with the same results that may be used at the same time, one per thread.

        Parameters
        ----------
        n_workers
            Number of worker threads.
        n_threads
            Number of threads with which each worker computes; see `using_threads`.
        batch_seconds
            Batch size of each worker, in seconds of audio.
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
            Features, shape (n_segments, n_features).
        """

    def predict_proba(
        self, waveforms: Sequence[FloatArray], target: Target = "intended"
    ) -> DoubleArray:
        """Return calibrated probabilities, shape (n_segments, n_labels), rows summing to 1.

        Parameters
        ----------
        waveforms
            Segments at the model's sample rate, each of shape (n_samples,), of at most 30 s.
        target
            Whether to predict what is intended or what is perceived.

        Raises
        ------
        ConfigError
            If the model does not have this output, or a waveform is invalid or too long.
        ModelError
            If a probability is not finite, see `check_finite`.
        """
        calibration = self.spec.find_calibration(target)
        waveforms = [_convert(np.asarray, waveform) for waveform in _convert(iter, waveforms)]
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
            if len(waveform) > (most := int(LONGEST_SEGMENT_S * self.spec.sample_rate)):
                raise ConfigError(
                    f"a segment has {len(waveform):,} samples; expected at most {most:,}, "
                    f"{LONGEST_SEGMENT_S:g} s"
                )
        if not waveforms:
            return np.empty((0, len(self.spec.labels)))
        scores = self.score(self.extract_features(waveforms))
        return self.check_finite(calibration.probabilities(scores))

    def check_finite(self, probabilities: DoubleArray) -> DoubleArray:
        """Return probabilities of the model, unless some are not finite.

        Parameters
        ----------
        probabilities
            Probabilities, of any shape.

        Raises
        ------
        ModelError
            If one is NaN or infinite: the weights are damaged, or a number was too large for the
            precision.
        """
        if not np.isfinite(probabilities).all():
            advice = "Copy its folder again"
            if self.precision == "fp16":  # its largest number is 65,504
                advice = "Try --precision fp32, which cannot overflow so easily"
            raise ModelError(
                f"model {self.name}: gives probabilities that are not finite with precision "
                f"{self.precision}; expected weights and settings as they were saved. {advice}"
            )
        return probabilities

    def resolve_adaptation(
        self, adapt: Adaptation, target: Target, usual: Adaptation
    ) -> Adaptation:
        """Return the kind of group that shares a baseline, with ``"auto"`` resolved.

        By default, the model does not adapt if that makes some mixes of emotions worse.

        Parameters
        ----------
        adapt
            Kind of group, or ``"auto"``.
        target
            Whether to predict what is intended or what is perceived.
        usual
            Kind of group that ``"auto"`` stands for if the model adapts by default.
        """
        if adapt != "auto":
            return adapt
        is_safe = self.adapter is not None and self.adapter.settings.safe
        return usual if is_safe and target == "intended" else "none"

    def find_adapter(self, target: Target = "intended") -> Adapter:
        """Return the adapter to the baseline of a group.

        Parameters
        ----------
        target
            Whether to predict what is intended or what is perceived.

        Raises
        ------
        ConfigError
            If the model has no adapter, or the target is not ``"intended"``.
        """
        if self.adapter is None:
            raise ConfigError(
                f"the model {self.name} has no adapter, so it cannot use a baseline; expected a "
                "model with an adapter (see: ser models), or no adaptation"
            )
        if target != "intended":
            raise ConfigError(
                f"with a baseline, only the intended emotion is predicted, and not the {target} "
                "one; expected no adaptation"
            )
        return self.adapter


class TensorClassifier(Classifier):
    """A model with weights of its own, which are stored as tensors.

    Attributes
    ----------
    weight_files
        Additional weight files: name of the file, to the prefix of the names of its tensors. All
        other tensors are in the common weight file.
    """

    weight_files: ClassVar[Mapping[str, str]] = {}

    @classmethod
    @abstractmethod
    def from_tensors(cls, spec: ModelSpec, tensors: Tensors, device: str = "auto") -> Self:
        """Build the model from its stored weights.

        Parameters
        ----------
        spec, tensors
            Specification and tensors from the model folder.
        device
            Device to run on; see `sercli.registry.store.load_model`.

        Raises
        ------
        ModelError
            If tensors are missing or unexpected, or their shapes do not fit.
        ConfigError
            If the model does not run on the device.
        """

    @abstractmethod
    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return the weights in their stored form."""
