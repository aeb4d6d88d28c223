"""``ser models``."""

import json
import sys

import click

from sercli.catalogue import ModelEntry, entry_as_dict, list_models, user_folder
from sercli.cli.console import reports_errors

_COLUMNS = ("name", "origin", "family", "UAR", "measured on", "MB", "target", "adapts", "labels")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="All that is known, as JSON.")
@reports_errors
def models(as_json: bool) -> None:
    """List the models at hand.

    They are shipped, or in your own folder of models. UAR is the unweighted average recall that
    `ser eval` measured on speakers never trained on.

    \b
    Example:
      ser models
    """
    entries = list(list_models())
    if as_json:
        click.echo(json.dumps([entry_as_dict(entry) for entry in entries], indent=1))
        return
    rows = [_row(entry) for entry in entries]
    if sys.stdout.isatty():
        _print_table(rows)
    else:
        for row in (_COLUMNS, *rows):
            click.echo("\t".join(row))
    click.echo(f"your own models are looked for in {user_folder()}", err=True)


def _row(entry: ModelEntry) -> tuple[str, ...]:
    return (
        entry.name,
        entry.origin,
        entry.family or "?",
        "-" if entry.uar is None else f"{entry.uar:.3f}",
        entry.measured_on or "-",
        f"{entry.size / 1e6:.1f}",
        ",".join(entry.targets) or "?",
        "yes" if entry.adapts else "no",
        entry.error or ",".join(entry.labels),
    )


def _print_table(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
