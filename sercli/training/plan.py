"""A complete training as one call: data, model, evaluation."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sercli.errors import ConfigError, OutputError, SerError
from sercli.files import AnyPath, check_target, make_folder, remove_orphans
from sercli.labels import EMOTIONS
from sercli.registry.description import MODEL_FILE, TOLD_FILES, WEIGHTS_FILES
from sercli.system.locking import keep_out
from sercli.text import format_count
from sercli.training.config import NeuralConfig, TransformerConfig
from sercli.training.networks.history import TRAINING_FOLDER, has_checkpoints
from sercli.training.train_config import CNN, NETWORKS, SVM, Family, Settings, TrainConfig

if TYPE_CHECKING:
    from sercli.datasets import Clip, Corpus
    from sercli.datasets.extraction import Progress
    from sercli.training.run import Training
    from sercli.training.trainer import AnyTrainer, Say
    from sercli.training.watcher import Watcher


@dataclass(frozen=True, eq=False)
class Plan:
    """A training that is ready to run.

    Parameters
    ----------
    corpus
        Corpus whose clips all have a label to be learned and, unless there are folds, a split.
    config
        All settings of the training.
    redrawn
        Names of corpora whose own splits share speakers, so that new ones were drawn.
    left_out
        Number of clips of each label that is not learned.

    Raises
    ------
    ConfigError
        If a setting would have no effect with these clips.
    """

    corpus: "Corpus"
    config: TrainConfig
    redrawn: frozenset[str] = frozenset()
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def make(cls, corpus: "Corpus | AnyPath", config: TrainConfig) -> "Plan":
        """Choose the labels to learn, and split the corpus.

        Parameters
        ----------
        corpus
            Corpus or its path; see `sercli.read_corpus`.
        config
            All settings of the training.

        Raises
        ------
        DatasetError
            If the corpus cannot be read, has only one label, or cannot be split in this way.
        ConfigError
            As for the class.
        """
        from sercli.datasets import Corpus, protocols, read_corpus
        from sercli.training.run import choose_training_labels

        whole = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
        wanted = config.emotions
        if config.partners and not wanted:
            known = {clip.emotion for clip in whole.clips}
            wanted = [label for label in _list_labels_of(config.partners) if label in known]
        labels = choose_training_labels(whole, wanted)
        counts = Counter(clip.emotion for clip in whole.clips)
        left_out = {label: n for label, n in sorted(counts.items()) if label not in labels}
        whole = whole.keep(labels)
        redrawn: frozenset[str] = frozenset()
        if not config.folds:
            if config.split == "speaker":
                redrawn = protocols.find_sharing(whole)
                whole = protocols.split_by_speaker(whole, config.settings.seed)
            elif config.split == "own":
                whole = protocols.split_as_given(whole)
            elif config.split == "random":
                whole = protocols.split_at_random(whole, config.settings.seed)
            elif Path(config.split).is_file():
                whole = protocols.split_by_file(whole, Path(config.split))
            else:
                raise ConfigError(
                    f"--split is {os.fspath(config.split)!r}; expected speaker, own, random, or a "
                    "table that exists"
                )
        return cls(whole, config, redrawn, left_out)

    def __post_init__(self) -> None:
        """Raise if a setting would have no effect with these clips."""
        config = self.config
        if not config.adapter and self._is_chosen_on_dev:
            raise ConfigError(
                "--no-adapter would do nothing: with development clips, a network has no adapter; "
                "leave it out, or train on these clips, too (--fit-on train+dev)"
            )
        if config.calm and config.family == CNN and self.n_networks == 1:
            raise ConfigError(
                "--calm would do nothing: with a cnn, only the teachers of folds are trained on "
                "calm speech, and with development clips there are no folds; leave it out, or "
                "train on these clips, too (--fit-on train+dev)"
            )

    @property
    def clips(self) -> "tuple[Clip, ...]":
        """Clips used for training, or for choosing and calibrating the model."""
        if self.config.folds:
            return self.corpus.clips
        of_dev = ("dev",) if self.config.family in NETWORKS else ()
        splits = {*self.config.splits, *of_dev}
        return tuple(clip for clip in self.corpus.clips if clip.split in splits)

    @property
    def n_networks(self) -> int:
        """Number of networks that are trained, if there are enough speakers for all folds."""
        config, settings = self.config, self.config.settings
        if not isinstance(settings, NeuralConfig):
            return 0
        # The head, and then the head with the encoder's upper layers.
        n_stages = 2 if isinstance(settings, TransformerConfig) and settings.layers else 1
        if config.folds:
            return n_stages * (config.folds + settings.folds + 1)
        return n_stages * (1 if self._is_chosen_on_dev else settings.folds + 1)

    @property
    def _is_chosen_on_dev(self) -> bool:
        """Whether a network is chosen and calibrated on development clips, without folds."""
        config = self.config
        may_be = config.family in NETWORKS and not config.folds and config.has_dev
        return may_be and any(clip.split == "dev" for clip in self.corpus.clips)

    @property
    def _first_network(self) -> str:
        """Where the checkpoints of the network are that is trained before all others."""
        if self.config.folds:
            return "outer1"
        return "" if self._is_chosen_on_dev else "fold1/**"  # or of the teacher of its fold

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
        """Train, calibrate and evaluate the model, and write its folder.

        Parameters
        ----------
        folder, overwrite, resume, say
            As for `train`.
        progress
            Called with the number of newly decoded clips.
        watcher
            Receiver of all other progress reports.
        details
            Facts to add to ``training`` in ``model.json``.

        Returns
        -------
        Training
            As for `train`.

        Raises
        ------
        SerError
            As for `train`.
        """
        from sercli.training.creation import create_trainer

        if overwrite and resume:
            raise ConfigError("--resume and --overwrite exclude each other")
        say = say or (lambda _: None)
        is_new = not folder.exists()
        make_folder(folder)
        with keep_out(folder):
            try:
                self._check_folder(folder, overwrite=overwrite, resume=resume)
                trainer = create_trainer(
                    self.config,
                    mapping=self.corpus.mapping,
                    resume=resume,
                    say=say,
                    progress=progress,
                    watcher=watcher,
                )
                self._tell_labels(say)
                return self._train(folder, trainer, details)
            except (SerError, KeyboardInterrupt):
                if is_new:
                    with suppress(OSError):  # raised if the folder is not empty
                        folder.rmdir()
                raise

    def _check_folder(self, folder: Path, *, overwrite: bool, resume: bool) -> None:
        """Raise if something is in the way in the model folder."""
        from sercli.reporting.folder import prepare_report

        if not os.access(folder, os.W_OK):  # else it would be found out after the training
            raise OutputError(
                f"{folder}: is read-only, but the model is written there; allow writing, or name "
                "another folder"
            )
        prepare_report(folder, overwrite=overwrite or resume)
        check_target(folder / MODEL_FILE, overwrite=overwrite or resume)
        for name in (MODEL_FILE, *TOLD_FILES, *WEIGHTS_FILES):
            if (folder / name).is_symlink():  # to a file of another model, perhaps
                raise OutputError(
                    f"{folder / name}: is a link, and what it leads to would be replaced; "
                    "remove it, or name another folder"
                )
        for name in _list_written():
            try:
                os.rename(folder / name, folder / name)  # Windows refuses if it is open elsewhere
            except FileNotFoundError:
                continue
            except OSError as error:
                raise OutputError(
                    f"{folder / name}: cannot be replaced: {error.strerror}; close the program "
                    "that has it open, or name another folder"
                ) from error
            # Without a description, what is there is not of a model, and perhaps the only copy.
            check_target(folder / name, overwrite=overwrite or resume)
        self._check_checkpoints(folder, overwrite=overwrite, resume=resume)

    def _train(self, folder: Path, trainer: "AnyTrainer", details: Mapping[str, Any]) -> "Training":
        """Train, and remove what killed trainings of the same folder left."""
        from sercli.training.run import cross_validate, train_on_splits

        config = self.config
        if self.left_out:
            details = {**details, "labels_left_out": self.left_out}
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
        for name in _list_written():
            remove_orphans(folder / name, 0.0)
        return result

    def _tell_labels(self, say: "Say") -> None:
        """Tell which labels are left out or learned, and of splits that are drawn anew."""
        if self.left_out:
            say(self._tell_left_out())
        for name in sorted(self.redrawn):
            say(
                f"warning: {name}: its own splits share speakers, so new ones are drawn "
                "(--split own keeps them)"
            )
        if told := self._tell_own_labels():
            say(told)

    def _tell_left_out(self) -> str:
        counts = ", ".join(
            f"{label} ({format_count(n, 'clip')})" for label, n in self.left_out.items()
        )
        if self.config.emotions:
            return f"labels left out, not named by --emotions: {counts}"
        if partners := self.config.partners:
            name = Path(partners[0]).name
            return f"warning: labels left out, not labels of {name}: {counts}"
        return (
            f"warning: labels left out, not among the six emotions: {counts}; name all labels to "
            "learn with --emotions, or rename these with --map"
        )

    def _tell_own_labels(self) -> str:
        """Return which labels are learned, if some are new that the user did not ask for."""
        if self.config.emotions or self.config.partners:
            return ""
        found = {clip.emotion for clip in self.corpus.clips}
        own = found.difference(EMOTIONS)
        if not own.difference(self.corpus.mapping.values()):
            return ""
        return (
            f"labels learned: {', '.join(sorted(found))}; not among the six emotions: "
            f"{', '.join(sorted(own))}; if one is another word for an emotion, rename it with "
            "--map THEIRS=OURS"
        )

    def _check_checkpoints(self, folder: Path, *, overwrite: bool, resume: bool) -> None:
        """Raise if there is nothing to resume, or an interrupted training would be overwritten."""
        found = has_checkpoints(folder)
        if resume and not found:
            raise ConfigError(
                f"{folder}: has no checkpoint to resume from; start without --resume, or name "
                "another folder"
            )
        if resume and not has_checkpoints(folder, self._first_network):
            raise ConfigError(
                f"{folder / TRAINING_FOLDER}: has checkpoints, but none of the network that this "
                "training begins with; expected those of a training with the same --folds and "
                "--fit-on that did not end; use the same ones, start with --overwrite instead of "
                "--resume, or, if the model is complete, delete the checkpoints"
            )
        if found and not (resume or overwrite):
            raise OutputError(
                f"{folder}: holds an interrupted training; continue it with --resume, or give "
                "another name or --overwrite"
            )


def train(
    corpus: "Corpus | AnyPath",
    folder: AnyPath,
    config: TrainConfig | Family | Settings = SVM,
    *,
    overwrite: bool = False,
    resume: bool = False,
    say: "Say | None" = None,
) -> "Training":
    """Train, calibrate and evaluate a model, and write its folder, like `ser train`.

    The folder gets the model, its card and manifest, and, if the model is evaluated,
    ``metrics.json``, ``predictions.csv``, plots and reports.

    Parameters
    ----------
    corpus
        Corpus or its path; see `sercli.read_corpus`.
    folder
        Path of the model folder; created if missing.
    config
        All settings of the training, or only the family or its settings.
    overwrite
        Whether to replace an existing model.
    resume
        Whether to resume an interrupted training of a network; all other arguments must be the
        same as before.
    say
        Called with each message, such as ``print``.

    Returns
    -------
    Training
        The model, its evaluation, and the errors of clips and recordings.

    Raises
    ------
    ConfigError
        If settings exclude each other, or a teacher, member or base was trained on speakers of
        held-out clips.
    DatasetError
        If the corpus cannot be read or split in this way, or has too few clips.
    ModelError
        If a teacher, member or base cannot be loaded.
    OutputError
        If there is a model already, or the folder cannot be written.
    TrainingError
        If training fails, such as with a loss that is not finite.
    """
    whole = config if isinstance(config, TrainConfig) else TrainConfig(config)
    plan = Plan.make(corpus, whole)
    return plan.run(Path(folder), overwrite=overwrite, resume=resume, say=say)


def _list_written() -> tuple[str, ...]:
    """Return the names of all files that a training may write into a model folder, or remove."""
    from sercli.reporting.folder import REPORT_FILES
    from sercli.training.networks.history import HISTORY_FILES

    return (MODEL_FILE, *TOLD_FILES, *WEIGHTS_FILES, *REPORT_FILES, *HISTORY_FILES.values())


def _list_labels_of(models: Sequence[AnyPath]) -> Sequence[str]:
    """Return the labels of the first model, which those of the others equal; none if unknown."""
    from sercli.registry.catalogue import find_model
    from sercli.registry.description import read_description
    from sercli.registry.store import is_checkpoint_of_others

    # What is wrong with a model is found when all are loaded.
    if is_checkpoint_of_others(models[0]):
        return ()
    labels: Sequence[str] = read_description(find_model(models[0]))["labels"]
    return labels
