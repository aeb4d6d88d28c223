"""Building blocks of reports: sections, tables and formatted numbers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sercli.reporting.canvas import format_figure

# Display names of the figures of a set of segments, in the order of every table.
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
        Caption; empty if the section makes it redundant.
    n_texts
        Number of columns, from the left, that hold text; the others hold numbers.
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
        Heading of the section.
    sentences
        Paragraphs.
    tables
        Tables below the paragraphs.
    plot
        Name of the plot between paragraphs and tables; empty for none.
    """

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plot: str = ""


def format_figures(values: Iterable[float | None]) -> tuple[str, ...]:
    """Return formatted figures, for the cells of a row."""
    return tuple(format_figure(value) for value in values)
