"""What is trained, what from, and how it is measured: all settings of a training as one value."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from sercli.config import Split
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
# Those that are made of models that there are.
OF_MEMBERS: Final = (FUSION, ADAPTER)
DEFAULTS: Mapping[str, Settings] = {
    SVM: SvmConfig(),
    **NEURAL_CONFIGS,
    FUSION: FusionConfig(),
    ADAPTER: AdapterConfig(),
}
DEFAULT_BASE = "openai/whisper-base"
MIN_FOLDS: Final = 2
# Splits that are learned from by default; models that there are mostly learned from the first.
FIT_ON: Final = "train"
FIT_MEMBERS_ON: Final = "dev"
FITTED_ON: Final = ((FIT_ON,), (FIT_MEMBERS_ON,), (FIT_MEMBERS_ON, FIT_ON))
# Families that some of the below are of use to; what is not here, see `find_families`.
FAMILIES_OF: Mapping[str, tuple[str, ...]] = {
    "votes": NETWORKS,
    "teacher": NETWORKS,
    "unlabelled": NETWORKS,
    "calm": (SVM, *NETWORKS),
    "calm_speakers": (SVM, *NETWORKS),
    "base": (TRANSFORMER,),
    "revision": (TRANSFORMER,),
    "members": OF_MEMBERS,
    "cache": (*NETWORKS, *OF_MEMBERS, SVM),
    # Of a training that was interrupted.
    "resume": NETWORKS,
    # What an adapter has by these names is no matter of how long clips are learned.
    "epochs": NETWORKS,
    "learning_rate": NETWORKS,
}


@dataclass(frozen=True)
class TrainConfig:
    """What is trained, what from, and how it is measured.

    Parameters
    ----------
    model
        Family, with its default settings, or its settings: one of `SvmConfig`, `CnnConfig`,
        `TransformerConfig`, `FusionConfig` and `AdapterConfig` of `sercli.training.config`.
    split
        Who is learned from and who is measured: ``"speaker"``, ``"own"``, ``"random"``, or a CSV
        file; see `sercli.datasets.protocols`.
    folds
        Learn from all clips, and measure by cross-validation over so many folds of speakers.
    fit_on
        Splits to learn from, ``train``, ``dev`` or both; None: ``train``, or ``dev`` for what is
        made of members, most of which learned from ``train``.
    test
        Measure the model on the clips of ``test``.
    adapter
        Learn to judge by baselines, too, where all speakers are judged by folds. Not where they
        are shared: of speakers that it knows, a model says of each clip alone what it will say of
        no stranger.
    members
        Models of which the weighted mean is fitted, two or more (fusion); the one that is to judge
        by baselines (adapter). One by itself need not be in a list, here and below.
    votes
        A table of listeners' votes to learn from, too (networks).
    teacher
        Model whose probabilities are learned, too (networks).
    unlabelled
        Files and directories of speech of which only they are learned (with `teacher`).
    calm
        Files and directories of calm speech of strangers, as whom clips are learned, too (svm,
        transformer; a cnn that has a teacher which learned so).
    calm_speakers
        Who speaks in it, as the speakers of `sercli.annotate`; None: each recording is of another.
    base
        Pre-trained encoder: a name on the hub, a folder, or that of a transformer of ours
        (transformer); None: `DEFAULT_BASE`.
    revision
        Of an encoder on the hub.
    cache
        Folder of decoded audio; None: in the user's own cache.

    Raises
    ------
    ConfigError
        If a value is out of range, or would do nothing beside the others.
    """

    model: Family | Settings = SVM
    split: AnyPath = "speaker"
    folds: int | None = None
    fit_on: tuple[Split, ...] | None = None
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
        """Check every value, and what it does beside the others."""
        for name in ("members", "unlabelled", "calm", "fit_on"):
            if isinstance(value := getattr(self, name), str | os.PathLike):
                object.__setattr__(self, name, (value,))
        known = (*DEFAULTS, *map(type, DEFAULTS.values()))
        if (self.model if isinstance(self.model, str) else type(self.model)) not in known:
            raise ConfigError(
                f"family is {self.model!r}; expected one of {', '.join(DEFAULTS)}, or its settings"
            )
        for name, families in FAMILIES_OF.items():
            if getattr(self, name, None) and self.family not in families:
                raise ConfigError(f"{_spell(name)} goes with --model {' or '.join(families)}")
        self._check_members()
        self._check_protocol()
        if self.unlabelled and not self.teacher:
            raise ConfigError("--unlabelled goes with --teacher MODEL")
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
                "learned from it"
            )

    @property
    def family(self) -> str:
        """Name of the family of models."""
        if isinstance(self.model, str):
            return self.model
        return next(name for name, one in DEFAULTS.items() if type(one) is type(self.model))

    @property
    def settings(self) -> Settings:
        """Of the family."""
        return DEFAULTS[self.model] if isinstance(self.model, str) else self.model

    @property
    def splits(self) -> tuple[Split, ...]:
        """That are learned from."""
        if self.fit_on is not None:
            return self.fit_on
        return (FIT_MEMBERS_ON if self.family in OF_MEMBERS else FIT_ON,)

    @property
    def is_shared(self) -> bool:
        """Whether speakers are learned from and measured by design."""
        return self.split == "random"

    @property
    def has_dev(self) -> bool:
        """Whether development clips may be left out of what is learned from."""
        return "dev" not in self.splits and self.split != "random"

    def _check_members(self) -> None:
        n_members = len(self.members)
        if self.family == FUSION and not n_members:
            raise ConfigError(
                f"--model {FUSION} puts models together, and none are named; expected two or more, "
                "such as --members cnn,svm"
            )
        if self.family == ADAPTER and n_members != 1:
            raise ConfigError(
                f"--model {ADAPTER} teaches one model to judge by baselines, and {n_members} are "
                "named; expected one, such as --members my-cnn"
            )
        if self.family in OF_MEMBERS and not self.adapter:
            raise ConfigError(f"--no-adapter does not go with --model {self.family}")

    def _check_protocol(self) -> None:
        if tuple(sorted(self.splits)) not in FITTED_ON:
            raise ConfigError(
                f"fit_on is {self.fit_on}; expected {FIT_ON}, {FIT_MEMBERS_ON}, or both"
            )
        if self.folds is not None and self.folds < MIN_FOLDS:
            raise ConfigError(f"folds is {self.folds}; expected {MIN_FOLDS} or more")
        if self.folds and self.split != "speaker":
            raise ConfigError(f"--folds keep speakers apart; --split {self.split} would do nothing")
        if self.folds and (self.fit_on is not None or not self.test):
            raise ConfigError(
                "--folds learn from all clips and measure all; --fit-on and --no-test would do "
                "nothing"
            )
        if self.is_shared and not self.adapter:
            raise ConfigError(
                "--no-adapter would do nothing: where speakers are shared, baselines are not "
                "learned"
            )


def find_families(name: str) -> tuple[str, ...]:
    """Return the families of models that something is of use to.

    Parameters
    ----------
    name
        Of a field of `TrainConfig`, or of a family's settings: of use to all that have it.
    """
    with_it = tuple(family for family, one in DEFAULTS.items() if hasattr(one, name))
    return FAMILIES_OF.get(name) or with_it or (*DEFAULTS,)


def _spell(name: str) -> str:
    return f"--{name.replace('_', '-')}"
