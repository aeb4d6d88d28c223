"""``ser eval``."""

import json
from pathlib import Path
from typing import Any, get_args

import click

from sercli.cli.commands import Command
from sercli.cli.comparing import compare
from sercli.cli.console import give, reports_errors
from sercli.cli.corpora import AUTO, corpus_options
from sercli.cli.measuring import finish, measure
from sercli.cli.options import (
    adapt_option,
    device_option,
    jobs_option,
    join_options,
    labels_option,
    model_options,
    precision_option,
    target_option,
)
from sercli.config import MAX_SEED, EvalConfig, Precision, Split
from sercli.datasets import CORPORA
from sercli.errors import ConfigError
from sercli.neural.hub import HUB
from sercli.registry.catalogue import DEFAULT_MODEL

subject_options = join_options(
    model_options(f"Model to measure.  [default: {DEFAULT_MODEL}]"),
    labels_option,
    target_option,
    click.option(
        "--compare",
        is_flag=True,
        help="Compare the models, or reports of earlier runs, that follow CORPUS.",
    ),
    heading="Model",
)

data_options = join_options(
    click.option(
        "--corpus",
        "kind",
        type=click.Choice((AUTO, *CORPORA)),
        default=AUTO,
        help="Kind of CORPUS.",
    ),
    click.option(
        "--split",
        type=click.Choice((*get_args(Split), "new")),
        help="Split to measure on; new: speakers that no model was trained, selected or calibrated "
        "on.  [default: test, or all of a corpus without splits]",
    ),
    corpus_options,
    heading="Data",
)

measure_options = join_options(
    click.option(
        "--stress",
        metavar="CONDITION,...",
        is_flag=False,
        flag_value="default",
        help="Also measure under these conditions: clean, phone, gsm, amr, noise<dB>, pink<dB>, "
        "babble<dB>, reverb, mp3, opus, clip, gain<dB>. As the last option without a value: a "
        "selection of them.",
    ),
    adapt_option(
        "none",
        "auto: the speaker where all are known, else the channel, if channels are classified "
        "separately, else the recording; none where `ser annotate` would use none.",
    ),
    click.option(
        "--mix",
        is_flag=True,
        help="Also measure what baselines change: in groups of 3 to 80 clips of one speaker, from "
        "all neutral to all of one other emotion.",
    ),
    click.option(
        "--votes",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Compare with listeners: a CSV file with the columns clip and one per label.",
    ),
    click.option(
        "--target-precision",
        type=float,
        metavar="P",
        help="Find the confidence above which this share of the labels of `ser annotate` is right.",
    ),
    click.option("--baseline", is_flag=True, help="Add the most frequent label and random labels."),
    click.option(
        "--precisions",
        metavar="TYPE,...",
        callback=lambda _context, _option, text: _split_precisions(text),
        help="Also measure with these number types, and how many labels stay the same.",
    ),
    click.option(
        "--strict", is_flag=True, help="Refuse clips or speakers that the model was trained on."
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, MAX_SEED),
        default=EvalConfig.seed,
        help="Seed of all random numbers.",
    ),
    heading="Figures",
)

report_options = join_options(
    click.option(
        "-o",
        "--output",
        "folder",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder for metrics.json, predictions.csv, plots, report.md and report.html. With "
        "--compare: for comparison.json, and these in a sub-folder for each model.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace these files if they exist."),
    click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON."),
    heading="Output",
)

run_options = join_options(
    device_option(default=None),
    precision_option,
    jobs_option(EvalConfig.jobs),
    heading="Speed",
)


@click.command("eval", cls=Command, context_settings={"show_default": True})
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(),
    metavar="CORPUS [--compare MODEL|REPORT ...]",
)
@subject_options
@data_options
@measure_options
@report_options
@run_options
@click.option(
    "-q",
    "--quiet",
    is_flag=True,
    help=(
        "Print only errors, the figures, and a warning if a model was trained on what it is "
        "measured on."
    ),
)
@reports_errors
def evaluate(paths: tuple[str, ...], **options: Any) -> None:
    """Measure a model on a corpus, or compare several.

    CORPUS is the folder of CREMA-D, RAVDESS, TESS, SAVEE, EmoDB, EMOVO, IEMOCAP, MELD or ESD, a
    folder with one sub-folder per class, a table (CSV or TSV: file, emotion and, optionally,
    speaker, start, end, channel, split), TextGrids or label tracks of Audacity (a file, or a folder
    of them), or an audformat database. Each clip is one segment. Warns about speakers and clips
    that the model was trained on.

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
    if options["overwrite"] and not options["folder"]:
        raise click.UsageError("--overwrite goes with -o DIR.")
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
        compare(paths, config, options)
        return
    if len(paths) > 1:
        raise ConfigError(
            f"found {len(paths)} paths: {', '.join(paths)}; expected one corpus, or "
            "--compare for several models"
        )
    if options["folder"]:
        prepare_report(options["folder"], overwrite=options["overwrite"])
    (result,) = measure([options["model"] or DEFAULT_MODEL], Path(paths[0]), config, options)
    if options["folder"]:
        write_evaluation(result, options["folder"])
    if options["as_json"]:
        give(json.dumps(result.figures, indent=1))
    else:
        from sercli.cli.tables import render_figures

        give(render_figures(result.figures))
    finish([(result.figures["model"], result)], quiet=options["quiet"])


def _split_precisions(text: str | None) -> tuple[Precision, ...]:
    """Return the distinct number types that ``--precisions`` lists."""
    known = {name: name for name in get_args(Precision) if name != "auto"}
    names = [part.strip() for part in text.split(",")] if text else []
    for name in names:
        if name not in known:
            raise click.BadParameter(f"found {name!r}; expected some of {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names))
