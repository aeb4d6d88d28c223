"""``ser models``."""

import json
import sys
from collections.abc import Set
from dataclasses import asdict
from io import StringIO
from textwrap import fill

import click

from sercli.cli.commands import Command
from sercli.cli.console import escape, give, reports_errors, say
from sercli.config import APART
from sercli.registry.catalogue import ModelEntry, list_models, user_folder

_COLUMNS = ("name", "origin", "family", "UAR", "measured on", "MB", "target", "adapts", "labels")

# Longest lines of a cell: more than any has, and on a terminal that is too narrow for these.
WIDE, NARROW = 10_000, 10


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print everything about the models as JSON.")
@reports_errors
def models(as_json: bool) -> None:
    """List the models at hand.

    They are shipped, or in your own folder of models. UAR is the unweighted average recall that
    `ser eval` measured, on speakers never trained on if nothing else is said.

    \b
    Example:
      ser models
    """
    entries = list_models()
    if as_json:
        give(json.dumps([asdict(one) | {"path": str(one.path)} for one in entries], indent=1))
        return
    own = {entry.name for entry in entries if entry.origin == "user"}
    rows = [_row(entry, own) for entry in entries]
    if sys.stdout.isatty():
        give(_render_table(rows))
    else:
        give("\n".join(map("\t".join, (_COLUMNS, *rows))))
    say(f"your own models are searched for in {user_folder()}")


def _row(entry: ModelEntry, own: Set[str]) -> tuple[str, ...]:
    is_hidden = entry.origin != "user" and entry.name in own
    return (
        entry.name,
        f"{entry.origin}, hidden by yours" if is_hidden else entry.origin,
        entry.family or "?",
        "-" if entry.uar is None else f"{entry.uar:.3f}",
        _tell_evaluation(entry),
        f"{entry.size / 1e6:.1f}",
        ",".join(entry.targets) or "?",
        "yes" if entry.adapts else "no",
        entry.error or ",".join(entry.labels),
    )


def _tell_evaluation(entry: ModelEntry) -> str:
    where = entry.measured_on or "-"
    return where if entry.protocol in (APART, None) else f"{where}, {entry.protocol}"


def _render_table(rows: list[tuple[str, ...]]) -> str:
    """Return the list as a table for a terminal."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    page = StringIO()
    # Names may look like Rich's markup.
    console = Console(file=page, force_terminal=True, markup=False, emoji=False)
    # Rich would break words on a narrow terminal.
    for longest in (WIDE, 40, 25, 16, NARROW):
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for name in _COLUMNS:
            table.add_column(fill(name, longest), no_wrap=True)
        for row in rows:
            cells = (escape(value).replace(",", ", ") for value in row)
            table.add_row(
                *(
                    fill(cell, longest, break_long_words=False, break_on_hyphens=False)
                    for cell in cells
                )
            )
        width = Measurement.get(console, console.options.update(max_width=WIDE), table).maximum
        if width <= console.width:
            break
    console.width = max(console.width, width)
    console.print(table)
    return page.getvalue().removesuffix("\n")
