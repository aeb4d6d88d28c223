"""``ser summary``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import click

from sercli.cli.commands import Command
from sercli.cli.console import printing, reports_errors, say
from sercli.errors import ConfigError, OutputError
from sercli.files import STDOUT, check_target, identify, write_bytes
from sercli.output.results import read_results
from sercli.output.summaries import NAMES, SHARE_PREFIX, By, Summary, summarise
from sercli.output.writers import (
    PROBABILITY_DIGITS,
    TIME_DIGITS,
    StandardOutput,
    identify_output,
    join_cells,
)
from sercli.schema import FileResult
from sercli.text import format_count


@click.command(cls=Command)
@click.argument("labels", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--by",
    type=click.Choice(get_args(By)),
    default="recording",
    show_default=True,
    help="A row for each recording, each channel of a recording, each speaker in all recordings, "
    "or one row for all.",
)
@click.option(
    "-o",
    "--output",
    default=STDOUT,
    show_default=True,
    metavar="FILE",
    help="Output file: .csv or .json; - for standard output.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(("csv", "json")),
    help="Output format.  [default: by the suffix of FILE, else csv]",
)
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@reports_errors
def summary(
    labels: str, by: By, output: str, format_: str | None, overwrite: bool, quiet: bool
) -> None:
    """Tell how the emotions share the time of each recording, channel or speaker.

    LABELS is what `ser annotate` wrote, if possible with its run record beside it. A share is the
    mean of the probabilities of all segments, weighted by their durations.

    \b
    Examples:
      ser summary labels.csv -o calls.csv
      ser summary labels.csv --by speaker --format json | jq '.[] | {speaker, emotion}'
    """
    format_ = format_ or Path(output).suffix.removeprefix(".").lower() or "csv"
    if format_ not in ("csv", "json"):
        raise OutputError(
            f"{output}: its suffix names no format; expected .csv or .json, or give --format"
        )
    path = None if output == STDOUT else Path(output)
    if path is not None:
        check_target(path, overwrite=overwrite)
        if identify(path) in identify_output(labels):
            raise OutputError(f"{path}: is what is summarised; name another file")
    results = read_results(labels)
    try:
        summaries = summarise(results, by)
    except ConfigError as error:
        raise ConfigError(f"{labels}: {error}") from error
    text = _render_csv(summaries, by, results) if format_ == "csv" else _render_json(summaries)
    if path is None:
        with printing():
            StandardOutput().write(text.encode())
    else:
        write_bytes(path, text.encode())
    if not quiet:
        _tell_left_out(results, by)


def _render_csv(summaries: Sequence[Summary], by: By, results: Sequence[FileResult]) -> str:
    labels = next((result.labels for result in results if result.labels), ())
    heads = (*NAMES[by], "segments", "seconds", "emotion", *(SHARE_PREFIX + one for one in labels))
    rows = [
        (
            *(value or "" for value in one.name.values()),
            str(one.segments),
            f"{one.seconds:.{TIME_DIGITS}f}",
            one.emotion or "",
            *(
                f"{one.shares[label]:.{PROBABILITY_DIGITS}f}" if one.shares else ""
                for label in labels
            ),
        )
        for one in summaries
    ]
    return join_cells([heads, *rows])


def _render_json(summaries: Sequence[Summary]) -> str:
    rows: list[dict[str, Any]] = [
        {
            **one.name,
            "segments": one.segments,
            "seconds": round(one.seconds, TIME_DIGITS),
            "emotion": one.emotion,
            "shares": {
                label: round(share, PROBABILITY_DIGITS) for label, share in one.shares.items()
            },
        }
        for one in summaries
    ]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def _tell_left_out(results: Sequence[FileResult], by: By) -> None:
    """Report the recordings that have no part in the rows of speakers, or in that of all."""
    if "file" in NAMES[by]:
        return
    for status in ("failed", "no speech"):
        if n_found := sum(one.status == status and not one.segments for one in results):
            say(f"not in these rows: {format_count(n_found, 'recording')} ({status})")
