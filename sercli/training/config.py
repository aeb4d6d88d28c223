"""Training settings as frozen dataclasses; all their defaults are defined here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sercli.config import (
    LONGEST_SEGMENT_S,
    SHORTEST_SEGMENT_S,
    check_count,
    check_range,
    check_seed_and_jobs,
    settle,
)
from sercli.errors import ConfigError


@dataclass(frozen=True)
class SvmConfig:
    """Training settings of an SVM.

    Parameters
    ----------
    regularisations, gamma_scales
        Values to search: of the SVM's C, and of the kernel's gamma in units of one over the total
        variance of the components.
    components
        Maximum number of principal components of the features.
    folds
        Number of folds of the cross-validation.
    group_by
        What a fold keeps together: all clips of a ``"speaker"``, or only the versions of a
        ``"clip"``, which is always used if train and test share speakers.
    seed
        Seed of all random draws.
    jobs
        Number of processes; -1 for one per core.

    Raises
    ------
    ConfigError
        If a value is out of range.
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
        settle(self, "regularisations", "gamma_scales")
        for name, values in (("C", self.regularisations), ("gamma", self.gamma_scales)):
            if not values:
                raise ConfigError(f"{name} has no values to search; expected one or more")
            for value in values:
                check_range(name, value, 1e-9, 1e9)
        check_count("components", self.components, 1, 100_000)
        check_common(self)


@dataclass(frozen=True)
class FusionConfig:
    """Settings of the fitting of a fusion.

    Parameters
    ----------
    equal_weights
        Whether all members get the same weight, and not the weights that are best on the clips:
        on other material than the clips, the worst of the members there may be the best.
    copy_members
        Whether the members are copied into the folder of the fusion, which then needs no others.
    folds
        Number of folds of the cross-validation that evaluates the fusion.
    group_by
        What a fold keeps together: all clips of a ``"speaker"``, or each ``"clip"`` by itself,
        which is always used if train and test share speakers.
    seed
        Seed of the resampling in the evaluation; nothing else is random.
    device
        Device of the networks among the members: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or
        ``"mps"``.
    jobs
        Number of processes that decode; -1 for one per core.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    equal_weights: bool = False
    copy_members: bool = False
    folds: int = 5
    group_by: Literal["speaker", "clip"] = "speaker"
    seed: int = 0
    device: str = "auto"
    jobs: int = -1

    def __post_init__(self) -> None:
        """Check every value against its range."""
        settle(self)
        check_common(self)


@dataclass(frozen=True)
class NeuralConfig:
    """Training settings of a neural network.

    Parameters
    ----------
    epochs
        Number of passes over the clips. A last batch that is not full is left out of each.
    batch_size
        Number of clips per step.
    learning_rate
        Maximum learning rate; it warms up linearly and then falls along a cosine to zero.
    warmup
        Share of all steps used for warmup, in ``[0, 1)``.
    optimiser
        ``"adamw"``, or ``"muon"`` for convolutions with AdamW for all other parameters; Muon needs
        fewer steps than AdamW.
    weight_decay
        Weight decay of weights with two or more dimensions.
    max_norm
        Maximum norm of the gradient, to which it is clipped.
    averaging
        Decay per step of the exponential moving average of the weights, which becomes the model.
    label_smoothing
        Share of a target that is spread over all labels, in ``[0, 1)``.
    perceived_weight
        Weight of the loss of the perceived emotions, added to that of the intended ones if there
        are votes; 0: the model does not predict perceived emotions.
    teacher_weight
        Share of the teacher's probabilities in a target if there is a teacher, in ``[0, 1]``.
    prosodies
        Number of versions of each unlabelled segment with other pitch, tempo and voice quality,
        which the teacher labels, too; see `sercli.training.variations`. They need the package
        pyworld; 0: there are none.
    unlabelled_ratio
        How often unlabelled clips are drawn, in units of the draws of one label; None: 2 with
        `prosodies`, whose targets vary, else 1.
    guide_weight
        Weight of the loss of the guides, see `sercli.training.networks.guides`; 0: no guides.
    guide_components
        Maximum number of guides.
    mixup
        Share of the batches in which pairs of clips are mixed, in ``[0, 1]``.
    clean_share
        Share of the drawn clips that are not augmented, in ``[0, 1]``.
    voice_share
        Share of the clips without augmentation whose voice is changed nevertheless, in ``[0, 1]``.
    max_crop
        Maximum duration of a training example, in seconds; longer clips are cropped at random.
    patience
        Number of epochs without a better development UAR, or the same with a lower loss, after
        which training stops; 0: all epochs are run.
    folds
        Number of folds for the calibration if there are no development clips.
    group_by
        What a fold keeps together: all clips of a ``"speaker"``, or each ``"clip"`` by itself,
        which is always used if train and test share speakers.
    seed
        Seed of all random draws.
    device
        Device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"`` or ``"mps"``.
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
    prosodies: int = 6
    unlabelled_ratio: float | None = None
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
        settle(self)
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
        check_range("perceived weight", self.perceived_weight, 0, 1000)
        check_range("teacher weight", self.teacher_weight, 0, 1)
        check_count("prosodies", self.prosodies, 0, 100)
        check_range("ratio of unlabelled clips", self.ratio_of_unlabelled, 0.01, 100)
        check_range("guide weight", self.guide_weight, 0, 1000)
        check_count("guide components", self.guide_components, 1, 10_000)
        check_range("mixup", self.mixup, 0, 1)
        check_range("clean share", self.clean_share, 0, 1)
        check_range("voice share", self.voice_share, 0, 1)
        check_range("crop", self.max_crop, 2 * SHORTEST_SEGMENT_S, LONGEST_SEGMENT_S)
        check_count("patience", self.patience, 0, 10_000)
        check_common(self)

    @property
    def ratio_of_unlabelled(self) -> float:
        """How often unlabelled clips are drawn, in units of the draws of one label."""
        if self.unlabelled_ratio is not None:
            return self.unlabelled_ratio
        return 2.0 if self.prosodies else 1.0


@dataclass(frozen=True)
class CnnConfig(NeuralConfig):
    """Training settings of a convolutional network.

    The other parameters are those of `NeuralConfig`.

    Parameters
    ----------
    dynamic_range
        Dynamic range of the mel spectrograms in dB: lower levels are raised to this much below a
        segment's highest.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    dynamic_range: float = 80.0

    def __post_init__(self) -> None:
        """Check every value against its range."""
        super().__post_init__()
        check_range("dynamic_range", self.dynamic_range, 1, 200)


@dataclass(frozen=True)
class TransformerConfig(NeuralConfig):
    """Training settings of a head on a pre-trained encoder, and of upper layers of the encoder.

    The other parameters are those of `NeuralConfig`.

    Parameters
    ----------
    versions
        Number of training versions of each clip, drawn like those of `clean_share`, for which the
        frozen encoder computes features, in addition to the unchanged clip.
    layers
        Number of upper layers of the encoder that are fine-tuned after the head is trained.
    tuning_epochs, tuning_rate
        Number of epochs and maximum learning rate of the fine-tuning.
    layer_decay
        Factor of the learning rate from each layer to the one below, in ``(0, 1]``.
    hearing_epochs, hearing_rate
        Number of epochs, on the calm speech of strangers, and maximum learning rate of the
        self-distillation that makes the encoder robust first; 0 epochs: it is left out. See
        `sercli.training.networks.robustness`.
    calm_share
        Share of the head's training rows that are transposed to strangers if there is calm speech
        of strangers; see `sercli.training.transposition`.
    lora
        Rank of the low-rank matrices that are trained instead of the layers' weights; 0: all
        weights of the layers are trained.

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
        check_count("fine-tuning epochs", self.tuning_epochs, 1, 10_000)
        check_range("fine-tuning learning rate", self.tuning_rate, 1e-9, 10)
        check_range("layer decay", self.layer_decay, 0.01, 1)
        check_count("hearing epochs", self.hearing_epochs, 0, 10_000)
        check_range("hearing learning rate", self.hearing_rate, 1e-9, 10)
        check_range("share of transposed examples", self.calm_share, 0, 1)
        check_count("rank of the low-rank matrices", self.lora, 0, 1024)


@dataclass(frozen=True)
class AdapterConfig:
    """Training settings of an adapter, which classifies segments relative to a group's baseline.

    Parameters
    ----------
    n_hidden
        Number of hidden features in which baselines are computed.
    n_trust, n_context
        Hidden width of the layers that weigh the explanations of a group's mean, and of those that
        shift its rows.
    epochs
        Length of the training: ``epochs * n_clips / step_clips`` steps, within limits.
    step_groups, step_clips
        Number of groups per step, and number of clips that a step counts as.
    single_shares
        Shares of the training groups that have a single label, to be tried in turn. The first is
        used with which no mix of held-out speakers loses more than `max_loss`, else the last. With
        few such groups, a lasting emotion is easily taken for a speaker's baseline; with many, a
        baseline for an emotion.
    max_loss
        Maximum loss of UAR or accuracy, in ``[0, 1]``.
    leaning_share, leaning, leaning_contrast
        Share of the groups that simulate another domain, in which the model leans to some labels;
        the maximum strength of the bias; and the minimum share of contrast between segments that
        is kept. See `sercli.training.adapters.groups.lean`.
    leaning_single_share, leaning_calm_share
        Share of those groups that have a single label, and share of these that have the calm one.
        In another domain, speech that sounds constant to a model is mostly calm.
    repeated_share
        Share of the groups with too few clips for their mix that are filled up with repeated clips.
        A speaker has a dozen clips of a label, but a calm call has hundreds of segments: without
        repetition no large group would have a single label, and the adapter would take none for
        one. By default, 1/3 for a model that was trained on transposed clips, and 0 for all others,
        whose errors on calm speech of strangers would be trusted.
    learning_rate, warmup
        Peak of the learning rate, and share of the steps in which it rises to that, each along a
        cosine (the one-cycle policy of Smith and Topin 2019).
    weight_decay
        Decay of all weights.
    calibration_groups
        Number of groups drawn for each fold, to calibrate on.
    folds
        Number of folds of speakers, for the calibration and the figures.
    seed
        Seed of all random draws.
    device, jobs
        As for `NeuralConfig`, for the model's own scores if they are still to be computed.

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
    repeated_share: float | None = None
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
        settle(self, "single_shares")
        for name in ("n_hidden", "n_trust", "n_context", "epochs", "step_groups", "step_clips"):
            check_count(name, getattr(self, name), 1, 100_000)
        check_count("calibration_groups", self.calibration_groups, 1, 1_000_000)
        check_count("folds", self.folds, 2, 100)
        for share in self.single_shares:
            check_range("share of single-label groups", share, 0, 1)
        if not self.single_shares:
            raise ConfigError("there are no shares of single-label groups; expected one or more")
        check_range("largest loss", self.max_loss, 0, 1)
        check_range("share of biased groups", self.leaning_share, 0, 1)
        check_range("share of single-label groups among these", self.leaning_single_share, 0, 1)
        check_range("share of calm groups among these", self.leaning_calm_share, 0, 1)
        check_range("leaning", self.leaning, 0, 100)
        check_range("share of repeated clips", self.repeated_share or 0.0, 0, 1)
        check_range("contrast of biased groups", self.leaning_contrast, 0.01, 1)
        check_range("learning rate", self.learning_rate, 1e-8, 10)
        check_range("warmup", self.warmup, 0, 0.99)
        check_range("weight decay", self.weight_decay, 0, 10)
        check_seed_and_jobs(self.seed, self.jobs)


def check_common(config: SvmConfig | FusionConfig | NeuralConfig) -> None:
    """Check the settings that several families share.

    Parameters
    ----------
    config
        The settings.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """
    check_count("folds", config.folds, 2, 100)
    if config.group_by not in ("speaker", "clip"):
        raise ConfigError(f"group_by is {config.group_by!r}; expected speaker or clip")
    check_seed_and_jobs(config.seed, config.jobs)


# Default settings of each family of networks.
NEURAL_CONFIGS: Mapping[str, NeuralConfig] = {
    "cnn": CnnConfig(),
    "transformer": TransformerConfig(),
}
