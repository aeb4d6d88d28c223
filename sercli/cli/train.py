"""``ser train``."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sercli.cli.console import Progress, TrainingView, reports_errors, say, show_progress
from sercli.cli.corpora import AUTO, corpus_options, read
from sercli.cli.options import device_option, is_given
from sercli.config import NEURAL_CONFIGS, NeuralConfig, SvmConfig
from sercli.datasets import CORPORA
from sercli.errors import ConfigError, OutputError
from sercli.report import ExitCode
from sercli.store import MODEL_FILE
from sercli.writers import check_target

if TYPE_CHECKING:
    from sercli.datasets import Corpus
    from sercli.training.course import Course, Watcher
    from sercli.training.run import Training
    from sercli.training.trainer import AnyTrainer

MIN_FOLDS = 2
DEFAULT_BASE = "openai/whisper-base"
SVM, CNN, TRANSFORMER = "svm", "cnn", "transformer"
# Options of networks, and of transformers alone: with another family, they would do nothing.
NEURAL = (
    "epochs",
    "batch_size",
    "learning_rate",
    "patience",
    "votes",
    "teacher",
    "cache",
    "resume",
    "device",
)
PRE_TRAINED = ("base", "revision", "layers")
# Those of all networks that decide what the model is.
DECIDING = ("epochs", "batch_size", "learning_rate", "patience", "device")


def _tell_defaults(name: str) -> str:
    """Return what is taken where an option is not given, of each family of networks."""
    values = {family: getattr(config, name) for family, config in NEURAL_CONFIGS.items()}
    if len(set(values.values())) == 1:
        return f"  [default: {values[CNN]:g}]"
    return f"  [default: {', '.join(f'{value:g} ({key})' for key, value in values.items())}]"


def neural_options(function: Any) -> Any:
    """Add the options of neural networks."""
    options = (
        click.option(
            "--base",
            metavar="NAME|DIR",
            default=DEFAULT_BASE,
            help="Pre-trained speech encoder: a name on the hub, or a folder (transformer).",
        ),
        click.option("--revision", help="Of the encoder on the hub (transformer)."),
        click.option(
            "--layers",
            type=int,
            default=NeuralConfig.layers,
            metavar="N",
            help="Upper layers of the encoder that learn, too, after the head (transformer).",
        ),
        click.option(
            "--epochs",
            type=int,
            help="Passes over the clips; with development clips, the best of them counts "
            f"(networks).{_tell_defaults('epochs')}",
        ),
        click.option(
            "--batch-size",
            type=int,
            help=f"Clips per step (networks).{_tell_defaults('batch_size')}",
        ),
        click.option(
            "--learning-rate",
            type=float,
            help=f"At its highest (networks).{_tell_defaults('learning_rate')}",
        ),
        click.option(
            "--patience",
            type=int,
            default=NeuralConfig.patience,
            metavar="EPOCHS",
            help="End after so many without a better development UAR; 0: never (networks).",
        ),
        click.option(
            "--votes",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Learn from listeners, too: a CSV file with the columns clip and one per label "
            "(networks).",
        ),
        click.option(
            "--teacher",
            metavar="NAME|DIR",
            help="Learn from a model's probabilities, too (networks).",
        ),
        click.option(
            "--cache",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Where decoded audio is kept for the next training (networks).  "
            "[default: ser/audio in your cache folder]",
        ),
        click.option(
            "--resume",
            is_flag=True,
            help="Go on with a training that was interrupted; give all else as then (networks).",
        ),
        device_option(),
    )
    for option in reversed(options):
        function = option(function)
    return function


@click.command(context_settings={"show_default": True})
@click.option(
    "--data",
    "sources",
    multiple=True,
    required=True,
    metavar="[KIND:]PATH",
    help="A corpus, as `ser eval --help` lists them; several times for several.",
)
@click.option(
    "-m",
    "--model",
    "family",
    type=click.Choice([SVM, CNN, TRANSFORMER]),
    default=SVM,
    help="Family.",
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The model folder; it is made.",
)
@click.option("--overwrite", is_flag=True, help="Replace the model if there is one.")
@corpus_options
@click.option(
    "--split",
    "protocol",
    default="speaker",
    metavar="speaker|random|FILE.csv",
    help="Who is trained on and who is measured: different speakers; clips drawn at random, so "
    "that speakers are shared; or as a table with the columns split and file or speaker says.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=MIN_FOLDS),
    metavar="K",
    help="Learn from all clips; measure by cross-validation over speakers.",
)
@click.option(
    "--fit-on",
    type=click.Choice(["train", "train+dev"]),
    default="train",
    help="Splits to learn from; with `train`, `dev` is there to choose by.",
)
@click.option(
    "--test/--no-test",
    default=True,
    help="Measure on the test clips; not while you still choose settings.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=SvmConfig.seed,
    help="Of everything that is random.",
)
@click.option("--jobs", type=int, default=SvmConfig.jobs, metavar="N", help="Processes; -1: all.")
@neural_options
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@reports_errors
def train(sources: tuple[str, ...], **options: Any) -> None:
    """Train and calibrate a model, measure it, and write its folder.

    An SVM's settings are searched and its calibration is fitted by cross-validation within the
    clips that are learned from. A network's epoch is chosen and its calibration fitted on the
    clips of `dev`, or, where they are learned from, the calibration by cross-validation. The
    folder gets the model, its card, metrics.json, predictions.csv, plots and reports of the test
    clips.

    \b
    Examples:
      ser train --data CREMA-D/AudioWAV --fit-on train+dev -o my-svm
      ser train --data cremad:AudioWAV --data emodb:emodb --folds 5 -o both
      ser train --data CREMA-D/AudioWAV --model cnn -o my-cnn
      ser train --data CREMA-D/AudioWAV --model transformer --base microsoft/wavlm-base -o mine
    """
    from sercli.reporting.folder import prepare_report, write_evaluation

    folder, quiet = options["folder"], options["quiet"]
    _refuse_idle_options(options)
    overwrite = options["overwrite"] or options["resume"]
    prepare_report(folder, overwrite=overwrite)
    check_target(folder / MODEL_FILE, overwrite=overwrite)
    if options["family"] in NEURAL_CONFIGS:
        _check_checkpoints(options)
    corpus = _read(sources, options)
    if not quiet:
        say(corpus.describe())
    try:
        result = _train(corpus, sources, options)
    except KeyboardInterrupt:
        if options["family"] in NEURAL_CONFIGS and _has_checkpoints(folder):
            say("interrupted; the same command with --resume goes on")
            sys.exit(ExitCode.INTERRUPTED)
        raise
    if result.evaluation is not None:
        write_evaluation(result.evaluation, folder)
    if not quiet:
        _tell(result, folder)
    for error in result.failed.values():
        say(f"failed: {error}")
    sys.exit(ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def _refuse_idle_options(options: dict[str, Any]) -> None:
    for names, families in ((NEURAL, (*NEURAL_CONFIGS,)), (PRE_TRAINED, (TRANSFORMER,))):
        for name in names:
            if is_given(name) and options["family"] not in families:
                raise click.UsageError(f"{_spell(name)} goes with --model {' or '.join(families)}.")
    if options["folds"]:
        if options["protocol"] != "speaker":
            raise ConfigError(
                f"--folds keep speakers apart; --split {options['protocol']} would do nothing"
            )
        if options["fit_on"] != "train" or not options["test"]:
            raise ConfigError(
                "--folds learn from all clips and measure all; --fit-on and --no-test would do "
                "nothing"
            )
    elif is_given("patience") and not _has_dev(options):
        raise ConfigError(
            "--patience would do nothing: no development clips are left out to measure on"
        )


def _spell(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _has_dev(options: dict[str, Any]) -> bool:
    """Tell whether development clips may be left out of what is learned from."""
    return bool(options["fit_on"] == "train" and options["protocol"] != "random")


def _check_checkpoints(options: dict[str, Any]) -> None:
    folder, found = options["folder"], _has_checkpoints(options["folder"])
    if options["resume"] and not found:
        raise ConfigError(
            f"{folder}: has no checkpoint to resume from; start without --resume, or name another "
            "folder"
        )
    if found and not (options["resume"] or options["overwrite"]):
        raise OutputError(
            f"{folder}: holds a training that was interrupted; go on with --resume, or give "
            "another name or --overwrite"
        )


def _has_checkpoints(folder: Path) -> bool:
    from sercli.training.neural import has_checkpoints

    return has_checkpoints(folder)


def _read(sources: tuple[str, ...], options: dict[str, Any]) -> "Corpus":
    from sercli import protocols
    from sercli.training.run import choose_training_labels

    corpus = read([_parse_source(source) for source in sources], options)
    corpus = corpus.keep(choose_training_labels(corpus))
    protocol, seed = options["protocol"], options["seed"]
    if options["folds"]:
        return corpus
    if protocol == "speaker":
        return protocols.split_by_speaker(corpus, seed)
    if protocol == "random":
        return protocols.split_at_random(corpus, seed)
    return protocols.split_by_file(corpus, Path(protocol))


def _parse_source(source: str) -> tuple[Path, str]:
    kind, colon, path = source.partition(":")
    if colon and kind in (AUTO, *CORPORA):
        return Path(path), kind
    return Path(source), AUTO


def _train(corpus: "Corpus", sources: tuple[str, ...], options: dict[str, Any]) -> "Training":
    from sercli.training.run import cross_validate, train

    folder, n_folds, quiet = options["folder"], options["folds"], options["quiet"]
    fit_on = options["fit_on"].split("+")
    heard = [*fit_on, "dev"] if options["family"] in NEURAL_CONFIGS else fit_on
    clips = corpus.clips if n_folds else [clip for clip in corpus.clips if clip.split in heard]
    with show_progress("clips", len(clips), quiet=quiet) as progress:
        trainer = _create_trainer(corpus, options, progress)
        details = {"command": _spell_command(corpus, sources, options)}
        if n_folds:
            return cross_validate(corpus, folder, trainer, n_folds, details=details)
        return train(corpus, folder, trainer, fit_on=fit_on, test=options["test"], details=details)


def _create_trainer(corpus: "Corpus", options: dict[str, Any], progress: Progress) -> "AnyTrainer":
    random = options["protocol"] == "random" and not options["folds"]
    common: dict[str, Any] = {
        "group_by": "clip" if random else "speaker",
        "seed": options["seed"],
        "jobs": options["jobs"],
    }
    told: dict[str, Any] = {"progress": progress.advance}
    if not options["quiet"]:
        told["say"] = progress.say
    if options["family"] == SVM:
        from sercli.training.svm import SvmTrainer

        return SvmTrainer(SvmConfig(**common), **told)

    from sercli.training.neural import NeuralTrainer

    given = {name: options[name] for name in (*DECIDING, "layers") if options[name] is not None}
    config = replace(NEURAL_CONFIGS[options["family"]], **common, **given)
    watcher = None
    if not options["quiet"]:
        watcher = TrainingView(progress, _count_networks(corpus, config, options))
    cache = options["cache"] or _find_cache()
    return NeuralTrainer(_create_course(config, cache, options, watcher), cache, **told)


def _create_course(
    config: NeuralConfig, cache: Path, options: dict[str, Any], watcher: "Watcher | None"
) -> "Course":
    from sercli.datasets.votes import read_votes
    from sercli.training.teachers import Teacher

    common: dict[str, Any] = {
        "votes": read_votes(options["votes"]) if options["votes"] else None,
        "teacher": Teacher.load(options["teacher"]) if options["teacher"] else None,
        "resume": options["resume"],
        **({"watcher": watcher} if watcher else {}),
    }
    if options["family"] == CNN:
        from sercli.training.cnn import CnnCourse

        return CnnCourse(config, **common)

    from sercli.neural.bases import load_base
    from sercli.training.transformer import TransformerCourse

    base = load_base(options["base"], options["revision"])
    return TransformerCourse(config, base=base, rows=cache / "rows", **common)


def _find_cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ser", appauthor=False) / "audio"


def _count_networks(corpus: "Corpus", config: NeuralConfig, options: dict[str, Any]) -> int:
    """Return how many networks are trained, if there are speakers enough for all folds."""
    if options["folds"]:
        return int(options["folds"]) + config.folds + 1
    has_dev = _has_dev(options) and any(clip.split == "dev" for clip in corpus.clips)
    return 1 if has_dev else config.folds + 1


def _spell_command(corpus: "Corpus", sources: tuple[str, ...], options: dict[str, Any]) -> str:
    """Return the command that makes this model, without the user's own paths."""
    parts = ["ser", "train"]
    for name, (_, kind) in zip(corpus.name.split("+"), map(_parse_source, sources), strict=False):
        reader = name if kind == AUTO and name in CORPORA else kind
        parts += ["--data", "PATH" if reader == AUTO else f"{reader}:PATH"]
    parts += ["--model", options["family"]]
    for option, key in (("--map", "mapping"), ("--columns", "columns")):
        if options[key]:
            parts += [option, options[key]]
    if options["song"]:
        parts.append("--song")
    if options["folds"]:
        parts += ["--folds", str(options["folds"])]
    else:
        parts += ["--split", Path(options["protocol"]).name, "--fit-on", options["fit_on"]]
    if options["votes"]:
        parts += ["--votes", "FILE"]
    if options["teacher"]:
        parts += ["--teacher", _find_base(options["teacher"])]
    if options["family"] in NEURAL_CONFIGS:
        if options["family"] == TRANSFORMER:
            parts += ["--base", _find_base(options["base"])]
            parts += ["--revision", options["revision"]] if options["revision"] else []
            parts += ["--layers", str(options["layers"])] if options["layers"] else []
        for name in DECIDING:
            default = getattr(NEURAL_CONFIGS[options["family"]], name)
            if options[name] not in (None, default):
                parts += [_spell(name), str(options[name])]
    return shlex.join([*parts, "--seed", str(options["seed"]), "-o", "NAME"])


def _find_base(base: str) -> str:
    """Return the name of an encoder, or of its folder."""
    return Path(base).resolve().name if Path(base).is_dir() else base


def _tell(result: "Training", folder: Path) -> None:
    training = result.classifier.spec.training
    judged = (
        f"on {training['calibration_on']}"
        if result.classifier.family in NEURAL_CONFIGS
        else "by cross-validation on what was learned from"
    )
    say(f"UAR {training['held_out']['whole']['uar']:.3f} {judged}")
    if result.evaluation is not None:
        from sercli.cli.tables import print_figures

        print_figures(result.evaluation.figures)
        for warning in result.evaluation.figures["warnings"]:
            say(f"warning: {warning}")
    say(f"model in {folder}")
