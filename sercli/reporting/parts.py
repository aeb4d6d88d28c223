"""What reports are made of: sections, tables and the texts of numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sercli.reporting.canvas import format_figure

# What the figures of a whole set of segments are called, in the order of every table.
NAMES: Final = {
    "uar": "UAR",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "ece": "ECE",
    "nll": "NLL",
    "brier": "Brier",
}


@dataclass(frozen=True)
class Table:
    """A table.

    Parameters
    ----------
    head
        Names of the columns.
    rows
        Texts of the cells.
    caption
        What it shows; empty if the section says that.
    n_texts
        How many columns from the left hold text; the others hold numbers.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    n_texts: int = 1


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Parameters
    ----------
    title
        Its heading.
    sentences
        Paragraphs.
    tables
        Below the paragraphs.
    plot
        Name of the plot between them; empty for none.
    """

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plot: str = ""


def format_figures(values: Iterable[float | None]) -> tuple[str, ...]:
    """Return the texts of figures, as the cells of a row."""
    return tuple(format_figure(value) for value in values)
