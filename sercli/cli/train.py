"""``ser train``."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sercli.cli.commands import Command
from sercli.cli.console import Progress, give, reports_errors, say, tell_failed, tell_notes
from sercli.cli.corpora import AUTO, corpus_options, read
from sercli.cli.networks import (
    calm_options,
    configure,
    encoder_options,
    find_name,
    neural_options,
    refuse_idle,
    refuse_other_families,
    spell_calm,
    spell_network,
)
from sercli.cli.options import is_given, jobs_option, join_options, spell
from sercli.cli.view import TrainingView
from sercli.config import MAX_SEED
from sercli.datasets import CORPORA
from sercli.errors import ConfigError
from sercli.output.report import ExitCode
from sercli.training.config import SvmConfig
from sercli.training.networks.history import has_checkpoints
from sercli.training.plan import Plan
from sercli.training.train_config import (
    ADAPTER,
    DEFAULTS,
    FIT_MEMBERS_ON,
    FIT_ON,
    FUSION,
    MIN_FOLDS,
    NETWORKS,
    SVM,
    TrainConfig,
)

if TYPE_CHECKING:
    from sercli.training.run import Training


data_options = join_options(
    click.option(
        "--data",
        "sources",
        multiple=True,
        required=True,
        metavar="[KIND:]PATH",
        help="Corpus to train on, of any kind that `ser eval --help` lists. Repeatable.",
    ),
    corpus_options,
    click.option(
        "--split",
        "protocol",
        default="speaker",
        metavar="speaker|own|random|FILE.csv",
        help="How clips are split. speaker: no speaker is in two splits; own: as the corpus splits "
        "them, even if speakers are shared; random: clips at random, so that speakers are "
        "shared; FILE.csv: a table with the columns split, and file or speaker.",
    ),
    click.option(
        "--folds",
        type=click.IntRange(min=MIN_FOLDS),
        metavar="K",
        help="Train on all clips, and measure by cross-validation over speakers.",
    ),
    click.option(
        "--fit-on",
        type=click.Choice(["train", "dev", "train+dev"]),
        help="Splits to train on; with `train`, settings are chosen on `dev`.  [default: "
        f"{FIT_ON}, {FIT_MEMBERS_ON} ({FUSION}, {ADAPTER})]",
    ),
    click.option(
        "--emotions",
        metavar="LABEL,...",
        help="Labels to learn; clips of others are left out.  [default: the six of published "
        "corpora, all labels of your own]",
    ),
    click.option(
        "--test/--no-test",
        default=True,
        help="Measure on the test clips; not while you still choose settings.",
    ),
    heading="Data",
)

family_options = join_options(
    click.option(
        "-m",
        "--model",
        "family",
        type=click.Choice(list(DEFAULTS)),
        default=SVM,
        help="Model family.",
    ),
    click.option(
        "-o",
        "--output",
        "folder",
        type=click.Path(path_type=Path),
        required=True,
        metavar="DIR",
        help="Folder for the model.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the model if there is one."),
    click.option(
        "--members",
        metavar="NAME|DIR,...",
        help="Models to combine, two or more (fusion), or the model that gets an adapter "
        "(adapter).",
    ),
    click.option(
        "--equal-weights",
        is_flag=True,
        help="Give all members the same weight, not those that are best on the clips (fusion).",
    ),
    click.option(
        "--copy-members",
        is_flag=True,
        help="Copy the members into the folder of the fusion, which then needs no others.",
    ),
    click.option(
        "--repeated-share",
        type=click.FloatRange(0, 1),
        metavar="SHARE",
        help="Share of the random groups with too few clips for their mix that are filled up with "
        "repeated clips, so that large groups may be of one emotion (adapter).  [default: a third "
        "for SVMs and transformers trained with --calm and fusions of them, 0 for others]",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, MAX_SEED),
        default=SvmConfig.seed,
        help="Seed of all random numbers.",
    ),
    click.option(
        "--cache",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder that keeps decoded audio for the next training.  [default: ser/audio in your "
        "cache folder]",
    ),
    jobs_option(SvmConfig.jobs),
    click.option(
        "--no-adapter",
        is_flag=True,
        help="Do not train an adapter, which --adapt of `ser annotate` and `ser eval` needs. One "
        "is trained where all speakers are in folds.",
    ),
    heading="Model",
)


@click.command(cls=Command, context_settings={"show_default": True})
@data_options
@family_options
@neural_options
@encoder_options
@calm_options
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@reports_errors
def train(sources: tuple[str, ...], **options: Any) -> None:
    """Train and calibrate a model, measure it, and write its folder.

    An SVM's settings are chosen and its calibration is fitted by cross-validation on the training
    clips. A network's epoch is chosen and its calibration fitted on the clips of `dev`; with
    --fit-on train+dev, its calibration is fitted by cross-validation. Fusions and adapters are
    fitted on predictions for clips that their members did not learn from, or that were held out.
    The folder gets the model, its card, and metrics.json, predictions.csv, plots and reports of
    the test clips.

    \b
    Examples:
      ser train --data CREMA-D/AudioWAV --fit-on train+dev -o my-svm
      ser train --data cremad:AudioWAV --data emodb:emodb --folds 5 -o both
      ser train --data CREMA-D/AudioWAV --model cnn -o my-cnn
      ser train --data CREMA-D/AudioWAV --model transformer --base openai/whisper-small -o mine
      ser train --data CREMA-D/AudioWAV --model fusion --members my-svm,my-cnn -o both
      ser train --data CREMA-D/AudioWAV --model adapter --members my-cnn -o my-cnn-too
    """
    folder, quiet = options["folder"], options["quiet"]
    config = _plan(options)
    corpus = read([_parse_source(source) for source in sources], options)
    plan = Plan.make(corpus, config)
    if not quiet:
        say(plan.corpus.describe())
    try:
        result = _run(plan, sources, options)
    except KeyboardInterrupt:
        if config.family in NETWORKS and has_checkpoints(folder):
            instead = " instead of --overwrite" if options["overwrite"] else ""
            say(f"interrupted; continue with the same command and --resume{instead}")
            sys.exit(ExitCode.INTERRUPTED)
        raise
    if not quiet:
        _tell(result, folder)
        tell_notes(result.notes)
    tell_failed(result.failed)
    sys.exit(ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def _plan(options: dict[str, Any]) -> TrainConfig:
    refuse_other_families(options["family"])
    refuse_idle(options)
    config = TrainConfig(
        configure(options),
        split=options["protocol"],
        folds=options["folds"],
        fit_on=tuple(options["fit_on"].split("+")) if options["fit_on"] else None,
        emotions=_split(options["emotions"]),
        test=options["test"],
        adapter=not options["no_adapter"],
        members=_split(options["members"]),
        votes=options["votes"],
        teacher=options["teacher"],
        unlabelled=options["unlabelled"],
        calm=options["calm"],
        calm_speakers=options["calm_speakers"],
        base=options["base"] if is_given("base") else None,
        revision=options["revision"],
        cache=options["cache"],
    )
    if is_given("patience") and not config.folds and not config.has_dev:
        raise ConfigError(
            "--patience would do nothing: no development clips are left out to measure on"
        )
    return config


def _split(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _parse_source(source: str) -> tuple[Path, str]:
    kind, colon, path = source.partition(":")
    if colon and kind in (AUTO, *CORPORA):
        return Path(path), kind
    return Path(source), AUTO


def _run(plan: Plan, sources: tuple[str, ...], options: dict[str, Any]) -> "Training":
    quiet = options["quiet"]
    with Progress("clips", len(plan.clips), quiet=quiet) as progress:
        return plan.run(
            options["folder"],
            overwrite=options["overwrite"],
            resume=options["resume"],
            say=None if quiet else progress.say,
            progress=progress.advance,
            watcher=None if quiet else TrainingView(progress, plan.n_networks),
            details={"command": _spell_command(plan, sources, options)},
        )


def _spell_command(plan: Plan, sources: tuple[str, ...], options: dict[str, Any]) -> str:
    """Return the command that trains this model, without the user's own paths."""
    config, names = plan.config, plan.corpus.name.split("+")
    parts = ["ser", "train"]
    for name, (_, kind) in zip(names, map(_parse_source, sources), strict=False):
        reader = name if kind == AUTO and name in CORPORA else kind
        parts += ["--data", "PATH" if reader == AUTO else f"{reader}:PATH"]
    parts += ["--model", config.family]
    if config.members:
        parts += ["--members", ",".join(map(find_name, config.members))]
    parts += [spell(name) for name in ("equal_weights", "copy_members") if options[name]]
    if options["repeated_share"] is not None:
        parts += ["--repeated-share", f"{options['repeated_share']:g}"]
    for option, key in (("--map", "mapping"), ("--columns", "columns"), ("--emotions", "emotions")):
        if options[key]:
            parts += [option, options[key]]
    if options["song"]:
        parts.append("--song")
    if config.folds:
        parts += ["--folds", str(config.folds)]
    else:
        parts += ["--split", Path(config.split).name, "--fit-on", "+".join(config.splits)]
    if not config.adapter:
        parts.append("--no-adapter")
    if config.family in NETWORKS:
        parts += spell_network(options)
    else:
        parts += spell_calm(options)
    return shlex.join([*parts, "--seed", str(options["seed"]), "-o", "NAME"])


def _tell(result: "Training", folder: Path) -> None:
    training = result.classifier.spec.training
    measured = (
        f"on {training['calibration_on']}"
        if result.classifier.family in NETWORKS
        else "by cross-validation on the training clips"
    )
    say(f"UAR {training['held_out']['whole']['uar']:.3f} {measured}")
    say(f"model in {folder}")
    if result.evaluation is not None:
        from sercli.cli.tables import render_figures

        give(render_figures(result.evaluation.figures))
        for warning in result.evaluation.figures["warnings"]:
            say(f"warning: {warning}")
