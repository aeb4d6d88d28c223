"""Settings of trainings as frozen dataclasses: the one place where a default of theirs lives."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sercli.config import (
    LONGEST_SEGMENT_S,
    SHORTEST_SEGMENT_S,
    check_count,
    check_range,
    check_seed_and_jobs,
)
from sercli.errors import ConfigError


@dataclass(frozen=True)
class SvmConfig:
    """How an SVM is trained.

    Parameters
    ----------
    regularisations, gamma_scales
        Values that are searched: of the SVM's C, and of its kernel's gamma in units of one over
        the total variance of the components.
    components
        Principal components that are kept of the features.
    folds
        Of the cross-validation.
    group_by
        What a fold keeps together: all clips of a ``"speaker"``, or only the versions of a
        ``"clip"``, as it always does where the split shares speakers.
    seed
        Of everything that is random.
    jobs
        Number of processes; -1 for one per core.
    """

    regularisations: tuple[float, ...] = (1.0, 3.0, 10.0)
    gamma_scales: tuple[float, ...] = (0.5, 0.8, 1.2)
    components: int = 400
    folds: int = 5
    group_by: Literal["speaker", "clip"] = "speaker"
    seed: int = 0
    jobs: int = -1

    def __post_init__(self) -> None:
        """Check every value against its range."""
        for name, values in (("C", self.regularisations), ("gamma", self.gamma_scales)):
            if not values:
                raise ConfigError(f"there are no values of {name} to search; expected some")
            for value in values:
                check_range(name, value, 1e-9, 1e9)
        check_count("components", self.components, 1, 100_000)
        check_common(self)


@dataclass(frozen=True)
class FusionConfig:
    """How a fusion of models is fitted.

    Parameters
    ----------
    folds
        Of the cross-validation that tells what it is worth.
    group_by
        What a fold keeps together: all clips of a ``"speaker"``, or just the ``"clip"``, as it
        always does where the split shares speakers.
    seed
        Of the resampling by which it is measured; nothing else is random.
    device
        Of the networks among its members: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or
        ``"mps"``.
    jobs
        Number of processes that decode; -1 for one per core.
    """

    folds: int = 5
    group_by: Literal["speaker", "clip"] = "speaker"
    seed: int = 0
    device: str = "auto"
    jobs: int = -1

    def __post_init__(self) -> None:
        """Check every value against its range."""
        check_common(self)


@dataclass(frozen=True)
class NeuralConfig:
    """How a neural network is trained.

    Parameters
    ----------
    epochs
        Passes over the clips.
    batch_size
        Clips per step.
    learning_rate
        Its highest value; it warms up linearly and falls along a cosine to zero.
    warmup
        Share of all steps in which it warms up, in ``[0, 1)``.
    optimiser
        ``"adamw"``, or ``"muon"`` for convolutions and AdamW for all else: it learns in fewer steps
        what AdamW learns in more.
    weight_decay
        For weights of two or more dimensions.
    max_norm
        To which the gradient's norm is clipped.
    averaging
        Decay per step of the exponential moving average of the weights, which is the model.
    label_smoothing
        Share of a target that is spread over all labels, in ``[0, 1)``.
    perceived_weight
        Of the loss of what listeners hear, beside that of what is intended, where there are votes;
        0: the model does not tell it.
    teacher_weight
        Share of a target that is a teacher's probabilities, where there is a teacher, in
        ``[0, 1]``.
    guide_weight
        Of the guides: what is learned of a clip besides its label, see
        `sercli.training.networks.guides`; 0: nothing.
    guide_components
        Number of guides, at most.
    mixup
        Share of the batches in which pairs of clips are mixed, in ``[0, 1]``.
    clean_share
        Share of the clips that are heard as they were recorded, the others being varied in all that
        a recording is, in ``[0, 1]``.
    voice_share
        Share of the clips heard as they were recorded of which the voice is changed, in ``[0, 1]``.
    max_crop
        Longest stretch of a clip that is heard at once in training, in seconds.
    patience
        Epochs without a better development UAR after which training ends; 0: never before the
        last epoch.
    folds
        Of the calibration, where no speakers are left out to calibrate on.
    group_by
        What a fold keeps together: all clips of a ``"speaker"``, or just the ``"clip"``, as it
        always does where the split shares speakers.
    seed
        Of everything that is random.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
    jobs
        Number of processes that decode; -1 for one per core.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    epochs: int = 32
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.1
    optimiser: Literal["adamw", "muon"] = "muon"
    weight_decay: float = 0.05
    max_norm: float = 5.0
    averaging: float = 0.998
    label_smoothing: float = 0.1
    perceived_weight: float = 0.5
    teacher_weight: float = 0.8
    guide_weight: float = 1.0
    guide_components: int = 128
    mixup: float = 0.0
    clean_share: float = 0.25
    voice_share: float = 0.6
    max_crop: float = 2.0
    patience: int = 0
    folds: int = 3
    group_by: Literal["speaker", "clip"] = "speaker"
    seed: int = 0
    device: str = "auto"
    jobs: int = -1

    def __post_init__(self) -> None:
        """Check every value against its range."""
        check_count("epochs", self.epochs, 1, 10_000)
        check_count("batch size", self.batch_size, 2, 4096)
        check_range("learning rate", self.learning_rate, 1e-8, 10)
        check_range("warmup", self.warmup, 0, 0.99)
        if self.optimiser not in ("muon", "adamw"):
            raise ConfigError(f"optimiser is {self.optimiser!r}; expected muon or adamw")
        check_range("weight decay", self.weight_decay, 0, 10)
        check_range("gradient norm", self.max_norm, 1e-6, 1e6)
        check_range("averaging", self.averaging, 0, 0.99999)
        check_range("label smoothing", self.label_smoothing, 0, 0.99)
        check_range("weight of what is perceived", self.perceived_weight, 0, 1000)
        check_range("teacher weight", self.teacher_weight, 0, 1)
        check_range("guide weight", self.guide_weight, 0, 1000)
        check_count("guide components", self.guide_components, 1, 10_000)
        check_range("mixup", self.mixup, 0, 1)
        check_range("clean share", self.clean_share, 0, 1)
        check_range("voice share", self.voice_share, 0, 1)
        check_range("crop", self.max_crop, 2 * SHORTEST_SEGMENT_S, LONGEST_SEGMENT_S)
        check_count("patience", self.patience, 0, 10_000)
        check_common(self)


@dataclass(frozen=True)
class CnnConfig(NeuralConfig):
    """How a convolutional network is trained; parameters and errors are those of `NeuralConfig`."""


@dataclass(frozen=True)
class TransformerConfig(NeuralConfig):
    """How a head on a pre-trained encoder is trained, and upper layers of the encoder.

    Parameters
    ----------
    versions
        How often each clip is heard in another recording by an encoder that does not learn.
    layers
        Upper layers of the encoder that learn, too, after the head has learned; 0: none.
    tuning_epochs, tuning_rate
        Passes over the clips and highest learning rate in which they learn.
    layer_decay
        By which the learning rate falls from each layer to the one below, in ``(0, 1]``.
    hearing_epochs, hearing_rate
        Passes over the calm speech of strangers, if there is any, and highest learning rate in
        which the encoder first learns to hear through rooms, noise and lines; 0: it does not. See
        `sercli.training.networks.hearing`.
    calm_share
        Share of what a head learns that is heard as strangers might say it, if there is calm speech
        of any; see `sercli.training.transposition`.
    lora
        Rank of the low-rank matrices by which they learn; 0: all their weights learn.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    epochs: int = 30
    batch_size: int = 64
    optimiser: Literal["adamw", "muon"] = "adamw"
    weight_decay: float = 0.01
    guide_weight: float = 0.0
    clean_share: float = 0.4
    voice_share: float = 0.7
    max_crop: float = 4.0
    versions: int = 6
    layers: int = 0
    tuning_epochs: int = 4
    tuning_rate: float = 2e-5
    layer_decay: float = 0.8
    hearing_epochs: int = 0
    hearing_rate: float = 1e-4
    calm_share: float = 0.5
    lora: int = 0

    def __post_init__(self) -> None:
        """Check every value against its range."""
        super().__post_init__()
        check_count("versions", self.versions, 0, 100)
        check_count("layers", self.layers, 0, 1000)
        check_count("epochs of tuning", self.tuning_epochs, 1, 10_000)
        check_range("learning rate of tuning", self.tuning_rate, 1e-9, 10)
        check_range("layer decay", self.layer_decay, 0.01, 1)
        check_count("epochs of hearing", self.hearing_epochs, 0, 10_000)
        check_range("learning rate of hearing", self.hearing_rate, 1e-9, 10)
        check_range("share of what strangers say", self.calm_share, 0, 1)
        check_count("rank of matrices", self.lora, 0, 1024)


@dataclass(frozen=True)
class AdapterConfig:
    """How what judges segments by the baseline of their group is trained.

    Parameters
    ----------
    n_hidden
        Of the rows in which baselines are found.
    n_trust, n_context
        Width of the layers that find out what to make of a group.
    epochs
        As many clips are drawn as this many times all of them would be.
    step_groups, step_clips
        Groups in a step, and the clips that count as one.
    single_shares
        Of the groups: how many are of a single label; the first of these shares with which no mix
        of speakers held out loses more than `max_loss` counts, else the last. With few of them, a
        mood is soon taken for a habit; with many, a habit for a mood.
    max_loss
        Of UAR or accuracy, in ``[0, 1]``.
    leaning_share, leaning, leaning_contrast
        Of the groups: how many are as of another world, in which the model leans to some labels;
        how far, and how much of their contrast segments keep at least, see
        `sercli.training.adapters.groups.lean`.
    leaning_single_share, leaning_calm_share
        Of those: how many are of a single label, and how many of these of the calm one. What sounds
        the same all the time to a model in another world is mostly calm speech.
    repeated_share
        Of the groups for whose mix a speaker has not clips enough: those that are as large all the
        same. Of a label there are a dozen clips, of a calm call hundreds of segments: without that,
        no large group would be of one label, and none be taken for one. For a model that did not
        learn as strangers it is 0: what it takes their calm speech for would be believed.
    learning_rate, warmup, weight_decay
        As of `NeuralConfig`.
    calibration_groups
        Drawn for each fold.
    folds
        By speakers, for the calibration and the figures.
    seed
        Of all draws.
    device, jobs
        As of `NeuralConfig`, where the model has yet to judge clips.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    n_hidden: int = 64
    n_trust: int = 32
    n_context: int = 64
    epochs: int = 400
    step_groups: int = 8
    step_clips: int = 128
    single_shares: tuple[float, ...] = (0.15, 0.2, 0.3, 0.4)
    max_loss: float = 0.01
    leaning_share: float = 0.3
    leaning: float = 4.0
    leaning_contrast: float = 0.4
    leaning_single_share: float = 0.3
    leaning_calm_share: float = 0.5
    repeated_share: float = 1 / 3
    learning_rate: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    calibration_groups: int = 2000
    folds: int = 3
    seed: int = 0
    device: str = "auto"
    jobs: int = -1

    def __post_init__(self) -> None:
        """Check every value against its range."""
        for name in ("n_hidden", "n_trust", "n_context", "epochs", "step_groups", "step_clips"):
            check_count(name, getattr(self, name), 1, 100_000)
        check_count("calibration_groups", self.calibration_groups, 1, 1_000_000)
        check_count("folds", self.folds, 2, 100)
        for share in self.single_shares:
            check_range("share of groups of a single label", share, 0, 1)
        if not self.single_shares:
            raise ConfigError("there are no shares of groups of a single label; expected some")
        check_range("largest loss", self.max_loss, 0, 1)
        check_range("share of leaning groups", self.leaning_share, 0, 1)
        check_range("share of those of a single label", self.leaning_single_share, 0, 1)
        check_range("share of calm ones among these", self.leaning_calm_share, 0, 1)
        check_range("leaning", self.leaning, 0, 100)
        check_range("share of repeated clips", self.repeated_share, 0, 1)
        check_range("contrast of leaning groups", self.leaning_contrast, 0.01, 1)
        check_range("learning rate", self.learning_rate, 1e-8, 10)
        check_range("warmup", self.warmup, 0, 0.99)
        check_range("weight decay", self.weight_decay, 0, 10)
        check_seed_and_jobs(self.seed, self.jobs)


def check_common(config: SvmConfig | FusionConfig | NeuralConfig) -> None:
    """Check what all of these have against its range.

    Parameters
    ----------
    config
        The settings.

    Raises
    ------
    ConfigError
        If a value is out of its range.
    """
    check_count("folds", config.folds, 2, 100)
    if config.group_by not in ("speaker", "clip"):
        raise ConfigError(f"group_by is {config.group_by!r}; expected speaker or clip")
    check_seed_and_jobs(config.seed, config.jobs)


# Of each family of networks.
NEURAL_CONFIGS: Mapping[str, NeuralConfig] = {
    "cnn": CnnConfig(),
    "transformer": TransformerConfig(),
}
