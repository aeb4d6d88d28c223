"""``ser eval``."""

import json
import sys
from pathlib import Path
from typing import Any

import click

from sercli.cli.console import reports_errors, say, show_progress
from sercli.report import ExitCode
from sercli.store import DEFAULT_MODEL, METRICS_FILE, find_model, load_model, model_hash
from sercli.text import format_count
from sercli.writers import check_target, write_json

SPLITS = ("test", "dev", "train", "all")


@click.command("eval", context_settings={"show_default": True})
@click.argument("corpus", type=click.Path(path_type=Path))
@click.option("-m", "--model", default=DEFAULT_MODEL, metavar="NAME|DIR", help="What to measure.")
@click.option(
    "--split", type=click.Choice(SPLITS), default="test", help="Whose clips; by speakers."
)
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write metrics.json into this folder; it is made.",
)
@click.option("--overwrite", is_flag=True, help="Replace metrics.json if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--jobs", type=int, default=-1, metavar="N", help="Processes; -1: one per core.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors and the figures.")
@reports_errors
def evaluate(corpus: Path, **options: Any) -> None:
    """Measure a model on a corpus.

    CORPUS is a copy of CREMA-D. Each clip is one segment. The splits are lists of speakers, so
    that nobody is in two of them; shipped models were not trained on the speakers of `test`.

    \b
    Example:
      ser eval CREMA-D/AudioWAV --model svm --split test
    """
    folder, quiet = options["folder"], options["quiet"]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        check_target(folder / METRICS_FILE, overwrite=options["overwrite"])

    from sercli.datasets import read_corpus
    from sercli.evaluation import evaluate as measure

    classifier = load_model(options["model"])
    data = read_corpus(corpus)
    if not quiet:
        say(data.describe())
    with show_progress("clips", len(data.select(options["split"])), quiet=quiet) as progress:
        figures = measure(
            classifier, data, options["split"], jobs=options["jobs"], progress=progress.advance
        )
    path = find_model(options["model"])
    figures = {"model": path.name, "sha256": model_hash(path), **figures}
    if folder is not None:
        write_json(folder / METRICS_FILE, figures, overwrite=True)
    if options["as_json"]:
        click.echo(json.dumps(figures, indent=1))
    else:
        print_figures(figures)
    if known := figures["speakers_trained_on"]:
        heard = format_count(len(known), "speaker")
        say(f"warning: the model was trained on {heard} of these; its figures are too good")
    for error in figures["failed"].values():
        say(f"failed: {error}")
    sys.exit(ExitCode.SOME_FAILED if figures["failed"] else ExitCode.DONE)


def print_figures(figures: dict[str, Any]) -> None:
    """Print figures as tables on standard output.

    Parameters
    ----------
    figures
        Of `sercli.evaluation.evaluate`.
    """
    from rich.console import Console
    from rich.table import Table

    # A file or a pipe has no width that tables should be squeezed into.
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(
        f"{figures['model']} on {figures['corpus']} {figures['split']}: "
        f"{format_count(figures['n_segments'], 'clip')} of "
        f"{format_count(len(figures['speakers']), 'speaker')}"
    )
    total = Table("UAR", "accuracy", "macro-F1", "ECE", "NLL", box=None, pad_edge=False)
    total.add_row(*(f"{figures[n]:.3f}" for n in ("uar", "accuracy", "macro_f1", "ece", "nll")))
    console.print(total)
    labels = list(figures["classes"])
    heads = ("precision", "recall", "F1", "clips", *(f"as {label}" for label in labels))
    table = Table("emotion", *heads, box=None, pad_edge=False)
    for (label, row), counts in zip(figures["classes"].items(), figures["confusion"], strict=True):
        table.add_row(
            label,
            *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1")),
            str(row["support"]),
            *map(str, counts),
        )
    console.print(table)
