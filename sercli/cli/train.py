"""``ser train``."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sercli.cli.console import reports_errors, say, show_progress
from sercli.cli.corpora import AUTO, corpus_options, read
from sercli.config import SvmConfig
from sercli.datasets import CORPORA
from sercli.errors import ConfigError
from sercli.report import ExitCode
from sercli.store import MODEL_FILE
from sercli.writers import check_target

if TYPE_CHECKING:
    from sercli.datasets import Corpus
    from sercli.training.run import Training

MIN_FOLDS = 2


@click.command(context_settings={"show_default": True})
@click.option(
    "--data",
    "sources",
    multiple=True,
    required=True,
    metavar="[KIND:]PATH",
    help="A corpus, as `ser eval --help` lists them; several times for several.",
)
@click.option("-m", "--model", "family", type=click.Choice(["svm"]), default="svm", help="Family.")
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
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
@reports_errors
def train(sources: tuple[str, ...], **options: Any) -> None:
    """Train and calibrate a model, measure it, and write its folder.

    Settings are searched and the calibration is fitted by cross-validation within the clips that
    are learned from. The folder gets the model, its card, metrics.json, predictions.csv, plots and
    reports of the test clips.

    \b
    Examples:
      ser train --data CREMA-D/AudioWAV --fit-on train+dev -o my-svm
      ser train --data cremad:AudioWAV --data emodb:emodb --folds 5 -o both
    """
    from sercli.reporting.folder import prepare_report, write_evaluation

    folder, quiet = options["folder"], options["quiet"]
    prepare_report(folder, overwrite=options["overwrite"])
    check_target(folder / MODEL_FILE, overwrite=options["overwrite"])
    corpus = _read(sources, options)
    if not quiet:
        say(corpus.describe())
    result = _train(corpus, sources, options)
    if result.evaluation is not None:
        write_evaluation(result.evaluation, folder)
    if not quiet:
        _tell(result, folder)
    for error in result.failed.values():
        say(f"failed: {error}")
    sys.exit(ExitCode.SOME_FAILED if result.failed else ExitCode.DONE)


def _read(sources: tuple[str, ...], options: dict[str, Any]) -> "Corpus":
    from sercli import protocols
    from sercli.training.run import choose_training_labels

    corpus = read([_parse_source(source) for source in sources], options)
    corpus = corpus.keep(choose_training_labels(corpus))
    protocol, seed = options["protocol"], options["seed"]
    if options["folds"]:
        if protocol != "speaker":
            raise ConfigError(f"--folds keep speakers apart; --split {protocol} would do nothing")
        if options["fit_on"] != "train" or not options["test"]:
            raise ConfigError(
                "--folds learn from all clips and measure all; --fit-on and --no-test would do "
                "nothing"
            )
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

    random = options["protocol"] == "random" and not options["folds"]
    config = replace(
        SvmConfig(seed=options["seed"], jobs=options["jobs"]),
        group_by="clip" if random else "speaker",
    )
    fit_on = options["fit_on"].split("+")
    clips = corpus.clips if options["folds"] else [c for c in corpus.clips if c.split in fit_on]
    with show_progress("clips", len(clips), quiet=options["quiet"]) as progress:
        common: dict[str, Any] = {
            "details": {"command": _spell_command(corpus, sources, options)},
            "say": (lambda _: None) if options["quiet"] else progress.say,
            "progress": progress.advance,
        }
        if options["folds"]:
            return cross_validate(corpus, options["folder"], config, options["folds"], **common)
        return train(
            corpus, options["folder"], config, fit_on=fit_on, test=options["test"], **common
        )


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
    return shlex.join([*parts, "--seed", str(options["seed"]), "-o", "NAME"])


def _tell(result: "Training", folder: Path) -> None:
    held_out = result.classifier.spec.training["held_out"]["whole"]
    say(f"UAR {held_out['uar']:.3f} by cross-validation on what was learned from")
    if result.evaluation is not None:
        from sercli.cli.tables import print_figures

        print_figures(result.evaluation.figures)
        for warning in result.evaluation.figures["warnings"]:
            say(f"warning: {warning}")
    say(f"model in {folder}")
