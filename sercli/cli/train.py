"""``ser train``."""

import shlex
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sercli.cli.calm import calm_options, find_calm, spell_calm
from sercli.cli.console import Progress, TrainingView, reports_errors, say, show_progress
from sercli.cli.corpora import AUTO, corpus_options, read
from sercli.cli.members import (
    ADAPTER,
    FAMILIES,
    FUSION,
    check_members,
    members_option,
    split_members,
)
from sercli.cli.members import create_trainer as create_members_trainer
from sercli.cli.networks import (
    SVM,
    check_checkpoints,
    configure,
    create_course,
    find_cache,
    find_name,
    has_checkpoints,
    neural_options,
    refuse_idle,
    refuse_other_families,
    spell_network,
)
from sercli.cli.options import is_given, jobs_option
from sercli.datasets import CORPORA
from sercli.description import MODEL_FILE
from sercli.errors import ConfigError, SerError
from sercli.files import check_target
from sercli.report import ExitCode
from sercli.training.config import NEURAL_CONFIGS, NeuralConfig, SvmConfig, TransformerConfig

if TYPE_CHECKING:
    from sercli.datasets import Corpus
    from sercli.training.run import Training
    from sercli.training.trainer import AnyTrainer

MIN_FOLDS = 2
# Splits that are learned from by default; models that there are mostly learned from the first.
FIT_ON, FIT_MEMBERS_ON = "train", "dev"


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
    type=click.Choice([SVM, *NEURAL_CONFIGS, *FAMILIES]),
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
@members_option
@corpus_options
@click.option(
    "--split",
    "protocol",
    default="speaker",
    metavar="speaker|own|random|FILE.csv",
    help="Who is trained on and who is measured: different speakers; as the corpus has it, whoever "
    "is in its splits; clips drawn at random, so that speakers are shared; or as a table with the "
    "columns split and file or speaker says.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=MIN_FOLDS),
    metavar="K",
    help="Learn from all clips; measure by cross-validation over speakers.",
)
@click.option(
    "--fit-on",
    type=click.Choice(["train", "dev", "train+dev"]),
    help="Splits to learn from; with `train`, `dev` is there to choose by.  "
    f"[default: {FIT_ON}, {FIT_MEMBERS_ON} ({FUSION}, {ADAPTER})]",
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
@jobs_option(SvmConfig.jobs)
@click.option(
    "--no-adapter",
    is_flag=True,
    help="Do not learn to judge by baselines (--adapt of annotate and eval), too; that is learned "
    "where all speakers are judged by folds.",
)
@neural_options
@calm_options
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@reports_errors
def train(sources: tuple[str, ...], **options: Any) -> None:
    """Train and calibrate a model, measure it, and write its folder.

    An SVM's settings are searched and its calibration is fitted by cross-validation within the
    clips that are learned from. A network's epoch is chosen and its calibration fitted on the
    clips of `dev`, or, where they are learned from, the calibration by cross-validation. The
    weights of a fusion are fitted on what its members say of clips that they did not learn from,
    or that were held out of them; likewise an adapter, by which a model judges segments by the
    baseline of their group. The folder gets the model, its card, metrics.json,
    predictions.csv, plots and reports of the test clips.

    \b
    Examples:
      ser train --data CREMA-D/AudioWAV --fit-on train+dev -o my-svm
      ser train --data cremad:AudioWAV --data emodb:emodb --folds 5 -o both
      ser train --data CREMA-D/AudioWAV --model cnn -o my-cnn
      ser train --data CREMA-D/AudioWAV --model transformer --base openai/whisper-small -o mine
      ser train --data CREMA-D/AudioWAV --model fusion --members my-svm,my-cnn -o both
      ser train --data CREMA-D/AudioWAV --model adapter --members my-cnn -o my-cnn-too
    """
    from sercli.reporting.folder import prepare_report, write_evaluation

    folder, quiet = options["folder"], options["quiet"]
    if options["fit_on"] is None:
        options["fit_on"] = FIT_MEMBERS_ON if options["family"] in FAMILIES else FIT_ON
    _refuse_idle_options(options)
    overwrite = options["overwrite"] or options["resume"]
    is_new = not folder.exists()
    prepare_report(folder, overwrite=overwrite)
    check_target(folder / MODEL_FILE, overwrite=overwrite)
    if options["family"] in NEURAL_CONFIGS:
        check_checkpoints(options)
    try:
        corpus = _read(sources, options)
        if not quiet:
            say(corpus.describe())
        result = _train(corpus, sources, options)
    except SerError:
        if is_new:
            with suppress(OSError):  # unless there is something in it
                folder.rmdir()
        raise
    except KeyboardInterrupt:
        if options["family"] in NEURAL_CONFIGS and has_checkpoints(folder):
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
    refuse_other_families(options["family"])
    refuse_idle(options)
    if options["family"] in FAMILIES:
        check_members(options)
    if options["no_adapter"] and options["family"] in FAMILIES:
        raise click.UsageError(f"--no-adapter does not go with --model {options['family']}.")
    if options["no_adapter"] and options["protocol"] == "random":
        raise ConfigError(
            "--no-adapter would do nothing: where speakers are shared, baselines are not learned"
        )
    if options["folds"]:
        if options["protocol"] != "speaker":
            raise ConfigError(
                f"--folds keep speakers apart; --split {options['protocol']} would do nothing"
            )
        if is_given("fit_on") or not options["test"]:
            raise ConfigError(
                "--folds learn from all clips and measure all; --fit-on and --no-test would do "
                "nothing"
            )
    elif is_given("patience") and not _has_dev(options):
        raise ConfigError(
            "--patience would do nothing: no development clips are left out to measure on"
        )


def _has_dev(options: dict[str, Any]) -> bool:
    """Tell whether development clips may be left out of what is learned from."""
    return bool(options["fit_on"] == FIT_ON and options["protocol"] != "random")


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
    if protocol == "own":
        return protocols.split_as_given(corpus)
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
    cache = options["cache"] or find_cache()
    if options["family"] == SVM:
        from sercli.training.svm_trainer import SvmTrainer

        calm = find_calm(options, cache, options["jobs"], None)
        adapter = not options["no_adapter"] and not random
        return SvmTrainer(SvmConfig(**common), adapter=adapter, calm=calm, **told)

    if options["family"] in FAMILIES:
        return create_members_trainer(options, common, cache, told)

    from sercli.training.neural import NeuralTrainer

    config = configure(options, common)
    watcher = None
    if not options["quiet"]:
        watcher = TrainingView(progress, _count_networks(corpus, config, options))
    course = create_course(config, cache, options, watcher)
    # Of speakers that it knows, a model says of each clip alone what it will say of no stranger.
    adapter = not options["no_adapter"] and not random
    return NeuralTrainer(replace(course, adapter=adapter), cache, **told)


def _count_networks(corpus: "Corpus", config: NeuralConfig, options: dict[str, Any]) -> int:
    """Return how many networks are trained, if there are speakers enough for all folds."""
    # The head, and then the encoder.
    n_stages = 2 if isinstance(config, TransformerConfig) and config.layers else 1
    if options["folds"]:
        return n_stages * (int(options["folds"]) + config.folds + 1)
    has_dev = _has_dev(options) and any(clip.split == "dev" for clip in corpus.clips)
    return n_stages * (1 if has_dev else config.folds + 1)


def _spell_command(corpus: "Corpus", sources: tuple[str, ...], options: dict[str, Any]) -> str:
    """Return the command that makes this model, without the user's own paths."""
    parts = ["ser", "train"]
    for name, (_, kind) in zip(corpus.name.split("+"), map(_parse_source, sources), strict=False):
        reader = name if kind == AUTO and name in CORPORA else kind
        parts += ["--data", "PATH" if reader == AUTO else f"{reader}:PATH"]
    parts += ["--model", options["family"]]
    if members := split_members(options["members"]):
        parts += ["--members", ",".join(map(find_name, members))]
    for option, key in (("--map", "mapping"), ("--columns", "columns")):
        if options[key]:
            parts += [option, options[key]]
    if options["song"]:
        parts.append("--song")
    if options["folds"]:
        parts += ["--folds", str(options["folds"])]
    else:
        parts += ["--split", Path(options["protocol"]).name, "--fit-on", options["fit_on"]]
    if options["no_adapter"]:
        parts.append("--no-adapter")
    if options["family"] in NEURAL_CONFIGS:
        parts += spell_network(options)
    else:
        parts += spell_calm(options)
    return shlex.join([*parts, "--seed", str(options["seed"]), "-o", "NAME"])


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
