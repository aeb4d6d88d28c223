"""A whole training as one call: what is learned from, by what model, and how it is measured."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sercli.errors import ConfigError, OutputError, SerError
from sercli.files import AnyPath, check_target
from sercli.registry.description import MODEL_FILE
from sercli.training.config import NeuralConfig, TransformerConfig
from sercli.training.train_config import CNN, NETWORKS, SVM, Family, Settings, TrainConfig

if TYPE_CHECKING:
    from sercli.datasets import Clip, Corpus
    from sercli.datasets.extraction import Progress
    from sercli.training.networks.watcher import Watcher
    from sercli.training.run import Training
    from sercli.training.trainer import Say


@dataclass(frozen=True, eq=False)
class Plan:
    """A training that is ready to begin.

    Parameters
    ----------
    corpus
        Each clip has one of the labels that are learned, and a split unless there are folds.
    config
        What is trained, and how.
    redrawn
        Names of corpora whose own splits share speakers, so that others were drawn.
    """

    corpus: "Corpus"
    config: TrainConfig
    redrawn: frozenset[str] = frozenset()

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
        from sercli.datasets import Corpus, protocols, read_corpus
        from sercli.training.run import choose_training_labels

        whole = corpus if isinstance(corpus, Corpus) else read_corpus(corpus)
        whole = whole.keep(choose_training_labels(whole))
        redrawn: frozenset[str] = frozenset()
        if not config.folds:
            if config.split == "speaker":
                redrawn = protocols.find_sharing(whole)
                whole = protocols.split_by_speaker(whole, config.settings.seed)
            elif config.split == "own":
                whole = protocols.split_as_given(whole)
            elif config.split == "random":
                whole = protocols.split_at_random(whole, config.settings.seed)
            else:
                whole = protocols.split_by_file(whole, Path(config.split))
        return cls(whole, config, redrawn)

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
            if say is not None:
                for name in sorted(self.redrawn):
                    say(
                        f"warning: {name}: its own splits share speakers; others are drawn "
                        "(--split own takes its own)"
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
    from sercli.training.networks import trainer  # which imports PyTorch

    return trainer.has_checkpoints(folder)


def train(
    corpus: "Corpus | AnyPath",
    folder: AnyPath,
    config: TrainConfig | Family | Settings = SVM,
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
