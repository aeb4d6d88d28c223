"""``ser summary``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from sercli.cli.commands import Command
from sercli.cli.console import printing, refuse_closed_output, reports_errors, say
from sercli.errors import ConfigError, OutputError
from sercli.files import STDOUT, check_target, identify, write_bytes
from sercli.output.results import read_output
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
    mean of the probabilities of all segments, weighted by their durations. Where segments overlap,
    or channels are labelled separately, the time counts for each.

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
    if path is None:
        refuse_closed_output()
    else:
        check_target(path, overwrite=overwrite)
        if identify(path) in identify_output(labels):
            raise OutputError(f"{path}: is what is summarised; name another file")
    results, gap = read_output(labels)
    try:
        summaries = summarise(results, by)
    except ConfigError as error:
        raise ConfigError(f"{labels}: {error}") from error
    if format_ == "csv":
        names = next((result.labels for result in results if result.labels), ())
        text = _render_csv(summaries, by, names)
    else:
        text = _render_json(summaries, by)
    if path is None:
        with printing():
            StandardOutput().write(text.encode())
    else:
        write_bytes(path, text.encode())
    if not quiet:
        if gap is not None:
            say(f"warning: {labels}: {gap}")
        _tell_left_out(results, by)


def _render_csv(summaries: Sequence[Summary], by: By, labels: Sequence[str]) -> str:
    heads = (*NAMES[by], *_choose_facts(by), "emotion", *(SHARE_PREFIX + one for one in labels))
    rows = [
        (
            *(value or "" for value in one.name.values()),
            *(_spell(getattr(one, name)) for name in _choose_facts(by)),
            one.emotion or "",
            *(
                f"{one.shares[label]:.{PROBABILITY_DIGITS}f}" if one.shares else ""
                for label in labels
            ),
        )
        for one in summaries
    ]
    return join_cells([heads, *rows])


def _render_json(summaries: Sequence[Summary], by: By) -> str:
    rows = []
    for one in summaries:
        facts = {name: getattr(one, name) for name in _choose_facts(by)}
        rows.append(
            {
                **one.name,
                **{
                    name: round(value, TIME_DIGITS) if isinstance(value, float) else value
                    for name, value in facts.items()
                },
                "emotion": one.emotion,
                "shares": {
                    label: round(share, PROBABILITY_DIGITS) for label, share in one.shares.items()
                },
            }
        )
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def _choose_facts(by: By) -> tuple[str, ...]:
    facts = ("duration", "segments", "seconds")
    return facts if "file" in NAMES[by] else ("recordings", *facts)


def _spell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.{TIME_DIGITS}f}" if isinstance(value, float) else str(value)


def _tell_left_out(results: Sequence[FileResult], by: By) -> None:
    """Report the recordings that have no or not all of their part in rows without a status."""
    if "file" in NAMES[by]:
        return
    silent = [one for one in results if not one.segments]
    n_failed = sum(one.status == "failed" for one in silent)
    n_partly = sum(one.status == "failed" for one in results) - n_failed
    for n_found, what in (
        (n_failed, "not in these rows, as they failed"),
        (len(silent) - n_failed, "not in these rows, as they have no segments"),
        (n_partly, "only in part in these rows, as they broke off"),
    ):
        if n_found:
            say(f"{what}: {format_count(n_found, 'recording')}")
