"""All settings of a training in one value: model, data and evaluation."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sercli.config import Split, check_whole, settle
from sercli.errors import ConfigError
from sercli.files import AnyPath
from sercli.training.config import (
    NEURAL_CONFIGS,
    AdapterConfig,
    FusionConfig,
    NeuralConfig,
    SvmConfig,
    TransformerConfig,
)

Settings = SvmConfig | NeuralConfig | FusionConfig | AdapterConfig
Family = Literal["svm", "cnn", "transformer", "fusion", "adapter"]

SVM: Final = "svm"
CNN: Final = "cnn"
TRANSFORMER: Final = "transformer"
FUSION: Final = "fusion"
ADAPTER: Final = "adapter"
NETWORKS: Final = (*NEURAL_CONFIGS,)
# Families that are built from existing models.
OF_MEMBERS: Final = (FUSION, ADAPTER)
DEFAULTS: Mapping[str, Settings] = {
    SVM: SvmConfig(),
    **NEURAL_CONFIGS,
    FUSION: FusionConfig(),
    ADAPTER: AdapterConfig(),
}
DEFAULT_BASE = "openai/whisper-base"
MIN_FOLDS: Final = 2
# Default splits to train on; existing models were mostly trained on the first, so that families
# built from them are fitted on the other.
FIT_ON: Final = "train"
FIT_MEMBERS_ON: Final = "dev"
FITTED_ON: Final = ((FIT_ON,), (FIT_MEMBERS_ON,), (FIT_MEMBERS_ON, FIT_ON))
# Families that use certain options; for options not listed here, see `find_families`.
FAMILIES_OF: Mapping[str, tuple[str, ...]] = {
    "votes": NETWORKS,
    "teacher": NETWORKS,
    "unlabelled": NETWORKS,
    "calm": (SVM, *NETWORKS),
    "calm_speakers": (SVM, *NETWORKS),
    "base": (TRANSFORMER,),
    "revision": (TRANSFORMER,),
    "members": OF_MEMBERS,
    # Only an interrupted training of a network can be resumed.
    "resume": NETWORKS,
    # An adapter has settings of these names, too, to which these options do not apply.
    "epochs": NETWORKS,
    "learning_rate": NETWORKS,
}


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a training: model, data and evaluation.

    Parameters
    ----------
    model
        Family, with its default settings, or its settings: one of `SvmConfig`, `CnnConfig`,
        `TransformerConfig`, `FusionConfig` and `AdapterConfig` of `sercli.training.config`.
    split
        Division of the corpus into train, dev and test: ``"speaker"``, ``"own"``, ``"random"``, or
        the path of a CSV file; see `sercli.datasets.protocols`.
    folds
        Number of folds of speakers for a cross-validation, with a final model trained on all
        clips; None: no cross-validation.
    fit_on
        Splits to train on, ``train``, ``dev`` or both; None: ``train``, or ``dev`` for families
        built from members, most of which were trained on ``train``.
    emotions
        Labels to learn; clips of others are left out. By default, the canonical emotions of
        published corpora and all labels of the user's own (of a fusion or an adapter, those of its
        members; with a teacher, those of the teacher).
    test
        Whether to evaluate the model on the ``test`` clips.
    adapter
        Whether to train an adapter, too, if all speakers are scored by cross-validation. None is
        trained if train and test share speakers: scores of known speakers are not like those of
        strangers.
    members
        Models whose weighted mean is fitted, two or more (fusion); or the model to which an
        adapter is added (adapter). A single path need not be in a list; this holds for
        `unlabelled` and `calm`, too.
    votes
        Path of a table of listeners' votes, used as additional targets (networks).
    teacher
        Model whose probabilities are used as additional targets (networks).
    unlabelled
        Files and directories of unlabelled speech, for which the teacher's probabilities are the
        only targets (with `teacher`).
    calm
        Files and directories of calm speech of strangers, to whom training clips are transposed
        (svm, transformer; a cnn only with a teacher that was trained in this way).
    calm_speakers
        Speakers of the calm speech, in the form of the speakers of `sercli.annotate`; None: each
        recording has another speaker.
    base
        Pre-trained encoder: a name on the hub, a folder, or the folder of a transformer trained by
        `ser train` (transformer); None: `DEFAULT_BASE`.
    revision
        Revision of an encoder on the hub.
    cache
        Folder of decoded audio; None: a folder in the user's cache.

    Raises
    ------
    ConfigError
        If a value is out of range, or does not go with the model family or without another one.
    """

    model: Family | Settings = SVM
    split: AnyPath = "speaker"
    folds: int | None = None
    fit_on: tuple[Split, ...] | None = None
    emotions: Sequence[str] = ()
    test: bool = True
    adapter: bool = True
    members: Sequence[AnyPath] = ()
    votes: AnyPath | None = None
    teacher: AnyPath | None = None
    unlabelled: Sequence[AnyPath] = ()
    calm: Sequence[AnyPath] = ()
    calm_speakers: str | None = None
    base: str | None = None
    revision: str | None = None
    cache: AnyPath | None = None

    def __post_init__(self) -> None:
        """Check every value, and its combination with the others."""
        settle(self, "members", "unlabelled", "calm", "fit_on", "emotions")
        known = (*DEFAULTS, *map(type, DEFAULTS.values()))
        if (self.model if isinstance(self.model, str) else type(self.model)) not in known:
            raise ConfigError(
                f"family is {self.model!r}; expected one of {', '.join(DEFAULTS)}, or its settings"
            )
        for name, families in FAMILIES_OF.items():
            if getattr(self, name, None) and self.family not in families:
                raise ConfigError(f"{spell_option(name)} goes with --model {' or '.join(families)}")
        self._check_members()
        self._check_protocol()
        if self.unlabelled and not self.teacher:
            raise ConfigError("--unlabelled goes with --teacher MODEL")
        if self.revision and self.base and os.path.isdir(self.base):
            raise ConfigError("--revision goes with a --base on the hub")
        if self.calm_speakers and not self.calm:
            raise ConfigError("--calm-speakers goes with --calm PATH")
        settings = self.settings
        if isinstance(settings, TransformerConfig):
            if settings.hearing_epochs and not self.calm:
                raise ConfigError("--hearing-epochs goes with --calm PATH")
            if self.calm and settings.layers:
                raise ConfigError("--calm and --layers do not go together")
        if self.calm and self.family == CNN and not self.teacher:
            raise ConfigError(
                f"--calm goes with --model {SVM} or {TRANSFORMER}, or with --teacher MODEL that "
                "was trained with --calm"
            )

    @property
    def family(self) -> str:
        """Name of the family of models."""
        if isinstance(self.model, str):
            return self.model
        return next(name for name, one in DEFAULTS.items() if type(one) is type(self.model))

    @property
    def settings(self) -> Settings:
        """Settings of the family."""
        return DEFAULTS[self.model] if isinstance(self.model, str) else self.model

    @property
    def partners(self) -> Sequence[AnyPath]:
        """Models whose labels the new model has to have: its members or its teacher, if any."""
        return self.members or (() if self.teacher is None else (self.teacher,))

    @property
    def splits(self) -> tuple[Split, ...]:
        """Splits to train on."""
        if self.fit_on is not None:
            return self.fit_on
        return (FIT_MEMBERS_ON if self.family in OF_MEMBERS else FIT_ON,)

    @property
    def is_shared(self) -> bool:
        """Whether train and test share speakers by design."""
        return self.split == "random"

    @property
    def has_dev(self) -> bool:
        """Whether there may be development clips that are not trained on."""
        return "dev" not in self.splits and self.split != "random"

    def _check_members(self) -> None:
        n_members = len(self.members)
        if self.family == FUSION and not n_members:
            raise ConfigError(
                f"--model {FUSION} combines models, but none are named; expected two or more, "
                "such as --members cnn,svm"
            )
        if self.family == ADAPTER and n_members != 1:
            raise ConfigError(
                f"--model {ADAPTER} trains an adapter for one model, but {n_members} are named; "
                "expected one, such as --members my-cnn"
            )
        if self.family in OF_MEMBERS and not self.adapter:
            raise ConfigError(f"--no-adapter does not go with --model {self.family}")

    def _check_protocol(self) -> None:
        if tuple(sorted(self.splits)) not in FITTED_ON:
            raise ConfigError(
                f"fit_on is {self.fit_on}; expected {FIT_ON}, {FIT_MEMBERS_ON}, or both"
            )
        if self.folds is not None:
            check_whole("folds", self.folds)
            if self.folds < MIN_FOLDS:
                raise ConfigError(f"folds is {self.folds}; expected {MIN_FOLDS} or more")
        if self.folds and self.split != "speaker":
            raise ConfigError(
                f"--folds keeps speakers apart, so --split {self.split} would do nothing"
            )
        if self.folds and (self.fit_on is not None or not self.test):
            raise ConfigError(
                "--folds trains on all clips and measures all, so --fit-on and --no-test would do "
                "nothing"
            )
        if self.is_shared and not self.adapter:
            raise ConfigError(
                "--no-adapter would do nothing: no adapter is trained where speakers are shared"
            )


def find_families(name: str) -> tuple[str, ...]:
    """Return the families of models that use an option.

    Parameters
    ----------
    name
        Name of a field of `TrainConfig` or of a family's settings. Options not in `FAMILIES_OF`
        are used by all families whose settings have the field, else by all families.
    """
    with_it = tuple(family for family, one in DEFAULTS.items() if hasattr(one, name))
    return FAMILIES_OF.get(name) or with_it or (*DEFAULTS,)


def spell_option(name: str) -> str:
    """Return the option of `ser train` that sets a field."""
    return f"--{name.replace('_', '-')}"
