"""A whole training as one call: what is learned from, by what model, and how it is measured."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from sercli.config import Split
from sercli.description import MODEL_FILE
from sercli.errors import ConfigError, OutputError, SerError
from sercli.files import AnyPath, check_target
from sercli.training.config import (
    NEURAL_CONFIGS,
    AdapterConfig,
    FusionConfig,
    NeuralConfig,
    SvmConfig,
    TransformerConfig,
)

if TYPE_CHECKING:
    from sercli.datasets import Clip, Corpus
    from sercli.extraction import Progress
    from sercli.training.run import Training
    from sercli.training.trainer import Say
    from sercli.training.watcher import Watcher

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
# Families that some of the below are of use to.
FAMILIES_OF: Mapping[str, tuple[str, ...]] = {
    "votes": NETWORKS,
    "teacher": NETWORKS,
    "unlabelled": NETWORKS,
    "calm": (SVM, *NETWORKS),
    "calm_speakers": (SVM, *NETWORKS),
    "base": (TRANSFORMER,),
    "revision": (TRANSFORMER,),
    "members": OF_MEMBERS,
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
        file; see `sercli.protocols`.
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
            if getattr(self, name) and self.family not in families:
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


@dataclass(frozen=True, eq=False)
class Plan:
    """A training that is ready to begin.

    Parameters
    ----------
    corpus
        Each clip has one of the labels that are learned, and a split unless there are folds.
    config
        What is trained, and how.
    """

    corpus: "Corpus"
    config: TrainConfig

    @classmethod
    def make(cls, corpus: "Corpus | AnyPath", config: TrainConfig) -> "Plan":
        """Choose the labels that are learned, and who is learned from.

        Parameters
        ----------
        corpus
            A corpus, or its path; see `sercli.read_corpus`.
        config
            What is trained, and how.

        Raises
        ------
        DatasetError
            If the corpus cannot be read, has one label only, or cannot be split so.
        """
        from sercli import protocols
        from sercli.datasets import Corpus, read_corpus
        from sercli.training.run import choose_training_labels

        whole = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
        whole = whole.keep(choose_training_labels(whole))
        if not config.folds:
            if config.split == "speaker":
                whole = protocols.split_by_speaker(whole, config.settings.seed)
            elif config.split == "own":
                whole = protocols.split_as_given(whole)
            elif config.split == "random":
                whole = protocols.split_at_random(whole, config.settings.seed)
            else:
                whole = protocols.split_by_file(whole, Path(config.split))
        return cls(whole, config)

    def __post_init__(self) -> None:
        """Refuse what would do nothing with the clips that there are."""
        config = self.config
        if config.calm and config.family == CNN and self.n_networks == 1:
            raise ConfigError(
                "--calm would do nothing: of a cnn, only the teachers of folds learn from calm "
                "speech, and development clips are left out to measure on; leave it out, or learn "
                "from them, too (--fit-on train+dev)"
            )

    @property
    def heard(self) -> "tuple[Clip, ...]":
        """Clips that are learned from, or chosen by."""
        if self.config.folds:
            return self.corpus.clips
        of_dev = ("dev",) if self.config.family in NETWORKS else ()
        splits = {*self.config.splits, *of_dev}
        return tuple(clip for clip in self.corpus.clips if clip.split in splits)

    @property
    def n_networks(self) -> int:
        """How many networks are trained, if there are speakers enough for all folds."""
        config, settings = self.config, self.config.settings
        if not isinstance(settings, NeuralConfig):
            return 0
        # The head, and then the encoder.
        n_stages = 2 if isinstance(settings, TransformerConfig) and settings.layers else 1
        if config.folds:
            return n_stages * (config.folds + settings.folds + 1)
        has_dev = config.has_dev and any(clip.split == "dev" for clip in self.corpus.clips)
        return n_stages * (1 if has_dev else settings.folds + 1)

    def run(
        self,
        folder: Path,
        *,
        overwrite: bool = False,
        resume: bool = False,
        say: "Say | None" = None,
        progress: "Progress | None" = None,
        watcher: "Watcher | None" = None,
        details: Mapping[str, Any] = {},
    ) -> "Training":
        """Train, calibrate and measure the model, and write its folder.

        Parameters
        ----------
        folder, overwrite, resume, say
            As for `train`.
        progress
            Called with the number of clips that are newly ready to be learned from.
        watcher
            Told how far the networks are.
        details
            Added to ``training`` in ``model.json``.

        Raises
        ------
        SerError
            As for `train`.
        """
        from sercli.reporting.folder import prepare_report, write_evaluation
        from sercli.training.run import cross_validate, train_on_splits
        from sercli.training.trainers import create_trainer

        if overwrite and resume:
            raise ConfigError("--resume and --overwrite exclude each other")
        config, is_new = self.config, not folder.exists()
        prepare_report(folder, overwrite=overwrite or resume)
        try:
            check_target(folder / MODEL_FILE, overwrite=overwrite or resume)
            self._check_checkpoints(folder, overwrite=overwrite, resume=resume)
            trainer = create_trainer(
                config, resume=resume, say=say, progress=progress, watcher=watcher
            )
            if config.folds:
                result = cross_validate(self.corpus, folder, trainer, config.folds, details=details)
            else:
                result = train_on_splits(
                    self.corpus,
                    folder,
                    trainer,
                    fit_on=config.splits,
                    test=config.test,
                    details=details,
                )
        except SerError:
            if is_new:
                with suppress(OSError):  # unless there is something in it
                    folder.rmdir()
            raise
        if result.evaluation is not None:
            write_evaluation(result.evaluation, folder)
        return result

    def _check_checkpoints(self, folder: Path, *, overwrite: bool, resume: bool) -> None:
        """Refuse to resume what was never begun, and to begin anew what was interrupted."""
        found = self.config.family in NETWORKS and has_checkpoints(folder)
        if resume and not found:
            raise ConfigError(
                f"{folder}: has no checkpoint to resume from; start without --resume, or name "
                "another folder"
            )
        if found and not (resume or overwrite):
            raise OutputError(
                f"{folder}: holds a training that was interrupted; go on with --resume, or give "
                "another name or --overwrite"
            )


def has_checkpoints(folder: Path) -> bool:
    """Tell whether a training into a model folder was interrupted, and can go on."""
    from sercli.training import neural  # which imports PyTorch

    return neural.has_checkpoints(folder)


def train(
    corpus: "Corpus | AnyPath",
    folder: AnyPath,
    config: TrainConfig | Family | Settings = TrainConfig(),
    *,
    overwrite: bool = False,
    resume: bool = False,
    say: "Say | None" = None,
) -> "Training":
    """Train, calibrate and measure a model, and write its folder: all that `ser train` does.

    The folder gets the model, its card and manifest, and, if it is measured, ``metrics.json``,
    ``predictions.csv``, plots and reports.

    Parameters
    ----------
    corpus
        A corpus, or its path; see `sercli.read_corpus`.
    folder
        The model folder; it is made.
    config
        What is trained and how, or only the family or its settings.
    overwrite
        Replace the model if there is one.
    resume
        Go on with a training of a network that was interrupted; all else has to be as then.
    say
        Told what is done next and what was found, such as ``print``.

    Returns
    -------
    Training
        The model, what was measured of it, and what failed.

    Raises
    ------
    ConfigError
        If settings exclude each other, or a model that is to help knows who is judged.
    DatasetError
        If the corpus cannot be read or split so, or does not suffice.
    ModelError
        If a teacher, member or base cannot be loaded.
    OutputError
        If there is a model already, or the folder cannot be written.
    TrainingError
        If training cannot go on.
    """
    whole = config if isinstance(config, TrainConfig) else TrainConfig(config)
    plan = Plan.make(corpus, whole)
    return plan.run(Path(folder), overwrite=overwrite, resume=resume, say=say)


def _spell(name: str) -> str:
    return f"--{name.replace('_', '-')}"
