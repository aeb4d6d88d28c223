"""``ser eval``."""

import json
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from sercli.cli.commands import Command
from sercli.cli.console import give, reports_errors, say, show_progress, tell_failed
from sercli.cli.corpora import AUTO, corpus_options, read
from sercli.cli.options import (
    adapt_option,
    device_option,
    is_given,
    jobs_option,
    labels_option,
    model_options,
    precision_option,
    spell,
    target_option,
)
from sercli.config import EvalConfig, Precision, Split
from sercli.datasets import CORPORA
from sercli.errors import ConfigError
from sercli.files import check_target, make_folder, write_json
from sercli.neural.hub import HUB
from sercli.output.report import ExitCode
from sercli.registry.catalogue import DEFAULT_MODEL, METRICS_FILE
from sercli.registry.description import MODEL_FILE
from sercli.registry.store import is_checkpoint_of_others, load_model
from sercli.text import format_count

if TYPE_CHECKING:
    from sercli.classifiers.base import Classifier
    from sercli.datasets import Corpus
    from sercli.evaluation.run import Evaluation

SPLITS = ("test", "dev", "train", "all")
COMPARISON_FILE = "comparison.json"
# Options that a comparison shows in the report of each model only.
REPORTED = ("stress", "votes", "baseline", "target_precision", "mix", "precisions")
# Options that tell how models are measured, and on what.
MEASURING = (
    *REPORTED,
    "split",
    "mapping",
    "columns",
    "song",
    "strict",
    "device",
    "revision",
    "labels",
    "target",
    "adapt",
    "precision",
    "kind",
)


@click.command("eval", cls=Command, context_settings={"show_default": True})
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    metavar="CORPUS [--compare MODEL|REPORT ...]",
)
@model_options(f"What to measure.  [default: {DEFAULT_MODEL}]")
@labels_option()
@click.option(
    "--compare",
    is_flag=True,
    help="Put models, or reports of earlier runs, side by side: all that follow CORPUS.",
)
@click.option(
    "--corpus", "kind", type=click.Choice((AUTO, *CORPORA)), default=AUTO, help="What CORPUS is."
)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    help="Whose clips.  [default: test, or all of a corpus without splits]",
)
@corpus_options
@click.option(
    "--stress",
    metavar="CONDITION,...",
    is_flag=False,
    flag_value="default",
    help="Also hear the clips under these conditions: clean, phone, gsm, amr, noise<dB>, pink<dB>, "
    "babble<dB>, reverb, mp3, opus, clip, gain<dB>; as the last option without a value, under a "
    "selection of them.",
)
@click.option(
    "--votes",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Compare with listeners: a CSV file with the columns clip and one per label.",
)
@click.option(
    "--target-precision",
    type=float,
    metavar="P",
    help="Find the confidence from which this share of the labels that `ser annotate` writes is "
    "right.",
)
@target_option()
@adapt_option(
    "none",
    "auto: the speaker where all are known, else the channel where each is by itself, else the "
    "recording; none with models that cannot.",
)
@click.option(
    "--mix",
    is_flag=True,
    help="Also measure what baselines are worth: in groups of 3 to 80 clips of one speaker, from "
    "all neutral to one other emotion only.",
)
@click.option("--baseline", is_flag=True, help="Add the most frequent label and random labels.")
@click.option("--strict", is_flag=True, help="Refuse clips or speakers that the model knows.")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write metrics.json, predictions.csv, plots, report.md and report.html; it is made. "
    "With --compare: comparison.json, and these in a sub-folder for each model.",
)
@click.option("--overwrite", is_flag=True, help="Replace those files if they exist.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=EvalConfig.seed,
    help="Of everything that is random.",
)
@jobs_option(EvalConfig.jobs)
@device_option(default=None)
@precision_option()
@click.option(
    "--precisions",
    metavar="TYPE,...",
    callback=lambda _context, _option, text: _split_precisions(text),
    help="Also judge the clips with these number types, and tell how many labels stay.",
)
@click.option(
    "-q",
    "--quiet",
    is_flag=True,
    help="Say nothing but errors, the figures, and whether a model knows what it is measured on.",
)
@reports_errors
def evaluate(paths: tuple[Path, ...], **options: Any) -> None:
    """Measure a model on a corpus, or compare several.

    CORPUS is the folder of CREMA-D, RAVDESS, TESS, SAVEE, EmoDB, EMOVO, IEMOCAP, MELD or ESD, a
    folder with one sub-folder per class, a table (CSV or TSV: file, emotion and, where known,
    speaker, start, end, channel, split) or an audformat database. Each clip is one segment.
    Speakers and clips that the model was trained on are told.

    \b
    Examples:
      ser eval CREMA-D/AudioWAV --model svm -o report
      ser eval emodb --stress phone,noise10 --target-precision 0.9
      ser eval CREMA-D/AudioWAV --compare svm my-svm
      ser eval --compare report-a report-b
    """
    from sercli.evaluation.stress import DEFAULT_CONDITIONS, parse_conditions
    from sercli.reporting.folder import prepare_report, write_evaluation

    if options["revision"] and not options["model"]:
        raise click.UsageError(f"--revision goes with --model {HUB}NAME.")
    stress = options["stress"]
    if stress == "default":
        stress = ",".join(DEFAULT_CONDITIONS)
    config = EvalConfig(
        stress=parse_conditions(stress) if stress else (),
        target_precision=options["target_precision"],
        baselines=options["baseline"],
        strict=options["strict"],
        seed=options["seed"],
        jobs=options["jobs"],
        target=options["target"],
        adapt=options["adapt"],
        mixes=options["mix"],
        precisions=options["precisions"],
    )
    if options["compare"]:
        _compare(paths, config, options)
        return
    if len(paths) > 1:
        raise ConfigError(
            f"found {len(paths)} paths: {', '.join(map(str, paths))}; expected one corpus, or "
            "--compare for several models"
        )
    if options["folder"]:
        prepare_report(options["folder"], overwrite=options["overwrite"])
    classifiers = _load([options["model"] or DEFAULT_MODEL], options)
    (result,) = _measure(read([(paths[0], options["kind"])], options), classifiers, config, options)
    if options["folder"]:
        write_evaluation(result, options["folder"])
    if options["as_json"]:
        give(json.dumps(result.figures, indent=1))
    else:
        from sercli.cli.tables import render_figures

        give(render_figures(result.figures))
    _finish([result], quiet=options["quiet"])


def _split_precisions(text: str | None) -> tuple[Precision, ...]:
    """Return the number types that ``--precisions`` names, each once."""
    known = {name: name for name in get_args(Precision) if name != "auto"}
    names = [part.strip() for part in text.split(",")] if text else []
    for name in names:
        if name not in known:
            raise click.BadParameter(f"found {name!r}; expected some of {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names))


def _compare(paths: tuple[Path, ...], config: EvalConfig, options: dict[str, Any]) -> None:
    from sercli.datasets.protocols import SHARED
    from sercli.evaluation.comparison import compare_predictions
    from sercli.evaluation.predictions import PREDICTIONS_FILE, Predictions
    from sercli.reporting.folder import prepare_report, write_evaluation

    def is_report(path: Path) -> bool:
        return (path / PREDICTIONS_FILE).is_file()

    folder = options["folder"]
    corpus, others = (None, paths) if is_report(paths[0]) else (paths[0], paths[1:])
    if corpus is not None:
        # A model's folder has the report of its training, too: of another corpus, or fewer clips.
        told = [path for path in others if is_report(path) and not (path / MODEL_FILE).is_file()]
    else:
        told = [path for path in others if is_report(path)]
    models = [options["model"]] if options["model"] else []
    models += [str(path) for path in others if path not in told]
    if models and corpus is None:
        raise ConfigError(
            f"{', '.join(models)}: models are measured on a corpus; expected "
            "`ser eval CORPUS --compare ...`, or reports alone"
        )
    if corpus is not None and not models:
        raise ConfigError(f"{corpus}: no model is to be measured on it; expected reports alone")
    if not models and (unused := [name for name in MEASURING if is_given(name)]):
        raise ConfigError(
            f"{', '.join(map(spell, unused))}: would do nothing, since reports are not measured "
            "anew; expected a corpus and models, or reports alone"
        )
    if folder is None and any(options[name] for name in REPORTED):
        raise ConfigError(
            "--stress, --votes, --baseline, --mix, --precisions and --target-precision go into the "
            "report of each model; expected -o DIR with --compare"
        )
    if folder is not None:
        make_folder(folder)
        check_target(folder / COMPARISON_FILE, overwrite=options["overwrite"])
        for place in _place_reports(folder, models):
            prepare_report(place, overwrite=options["overwrite"])
    classifiers = _load(models, options)
    results: list[Evaluation] = []
    if corpus is not None and classifiers:
        results = _measure(read([(corpus, options["kind"])], options), classifiers, config, options)
    found: list[Predictions] = [result.predictions for result in results]
    measured = [result.figures for result in results]
    for path in told:
        figures = _read_figures(path)
        measured.append(figures)
        found.append(Predictions.read(path / PREDICTIONS_FILE, _report_name(path, figures)))
    comparison = compare_predictions(found, measured=measured, seed=config.seed)
    if folder is not None:
        write_json(folder / COMPARISON_FILE, comparison, overwrite=True)
        for place, result in zip(_place_reports(folder, models), results, strict=True):
            write_evaluation(result, place)
    if options["as_json"]:
        give(json.dumps(comparison, indent=1))
    else:
        from sercli.cli.tables import render_comparison

        give(render_comparison(comparison))
    shared = tuple(f"{one['name']}: {SHARED}" for one in comparison["models"])
    for warning in comparison["warnings"]:
        if warning.startswith(shared) or not options["quiet"]:
            say(f"warning: {warning}")
    _finish(results, quiet=options["quiet"])


def _load(models: Sequence[str], options: dict[str, Any]) -> "list[Classifier]":
    of_others = [model for model in models if is_checkpoint_of_others(model)]
    return [
        load_model(
            model,
            options["device"] or "auto",
            # A revision is that of the model which --model names.
            revision=options["revision"] if model == options["model"] else None,
            # Where there are none that have labels of their own, each refuses to.
            labels=options["labels"] if model in of_others or not of_others else None,
            precision=options["precision"],
        )
        for model in models
    ]


def _place_reports(folder: Path, models: Sequence[str]) -> list[Path]:
    """Return the sub-folder for the report of each model; those of one name are numbered."""
    names = [Path(model.removeprefix(HUB)).name for model in models]
    places: list[Path] = []
    for name in names:
        numbered = (f"{name}-{number}" for number in count(1))
        free = (one for one in numbered if one not in names and folder / one not in places)
        places.append(folder / (name if names.count(name) == 1 else next(free)))
    return places


def _read_figures(folder: Path) -> dict[str, Any]:
    """Return the figures of a report, or nothing if they are not there."""
    try:
        figures = json.loads((folder / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return figures if isinstance(figures, dict) else {}


def _report_name(folder: Path, figures: dict[str, Any]) -> str:
    """Name of the model whose report it is, and of the report."""
    name = figures.get("model", folder.name)
    return folder.name if name == folder.name else f"{name} ({folder.name})"


def _measure(
    corpus: "Corpus", classifiers: "list[Classifier]", config: EvalConfig, options: dict[str, Any]
) -> "list[Evaluation]":
    from sercli.datasets.votes import read_votes
    from sercli.evaluation.judging import CLEAN
    from sercli.evaluation.run import evaluate_all

    votes = read_votes(options["votes"]) if options["votes"] else None
    if not options["quiet"]:
        say(corpus.describe())
        for one in classifiers:
            if config.adapt == "auto" and not one.adapts_unasked(config.target):
                say(
                    f"{one.name} judges each clip by itself, as it does with --adapt auto of "
                    "ser annotate"
                )
    split: Split = options["split"] or corpus.default_split
    n_passes = len({one.front_end for one in classifiers}) * (1 + len({*config.stress} - {CLEAN}))
    n_passes += len(classifiers) * len(config.precisions)
    total = len(corpus.select(split)) * n_passes
    with show_progress("clips", total, quiet=options["quiet"]) as progress:
        return evaluate_all(
            classifiers, corpus, split, config, votes=votes, progress=progress.advance
        )


def _finish(results: "Sequence[Evaluation]", *, quiet: bool) -> None:
    from sercli.datasets.protocols import SHARED

    for figures in (result.figures for result in results):
        if not quiet:
            _tell_limits(figures)
        elif figures["protocol"] == SHARED:  # of which the first warning is
            say(f"warning: {figures['model']}: {figures['warnings'][0]}")
        tell_failed(figures["failed"])
    failed = any(result.figures["failed"] for result in results)
    sys.exit(ExitCode.SOME_FAILED if failed else ExitCode.DONE)


def _tell_limits(figures: dict[str, Any]) -> None:
    name, left_out = figures["model"], figures["labels_left_out"]
    for warning in figures["warnings"]:
        say(f"warning: {name}: {warning}")
    if left_out["model"]:
        say(
            f"labels of {name} that are not scored: {', '.join(left_out['model'])}; their "
            "probabilities are shared out among the others"
        )
    heard = ", but in the baselines" if figures["adapt"] != "none" else ""
    for label, n_clips in left_out["corpus"].items():
        clips = format_count(n_clips, "clip")
        say(f"{clips} of {label} left out{heard}: {name} has no such label")
