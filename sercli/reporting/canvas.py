"""Common parts of all plots: style, size, titles and reproducible rendering.

Colours are blues and one vermilion (Okabe and Ito 2008), which remain distinguishable to
colour-blind readers and in greyscale. No text is smaller than 8 points at a width of 6.4 inches.
"""

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from io import BytesIO
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from sercli.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Figures = Mapping[str, Any]

FORMATS: Final = ("png", "svg")
WIDTH: Final = 6.4  # inches
TITLE_HEIGHT: Final = 0.48  # inches
DPI: Final = 200
LONGEST_NAME: Final = 18  # characters
MISSING: Final = "n/a"  # stands for a missing number

BLUE: Final = "#0072B2"
PALE: Final = "#A6CBE3"
VERMILION: Final = "#D55E00"
GREY: Final = "#595959"

STYLE: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # bundled with matplotlib
        "font.size": 9,
        "axes.labelsize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": "#DDDDDD",
        "grid.linewidth": 0.6,
        "text.parse_math": False,  # names may contain dollar signs
        "svg.fonttype": "path",  # looks the same wherever it is opened
    }
)


@contextmanager
def style(more: Mapping[str, Any] = {}) -> Iterator[None]:
    """Apply the style of these plots within the block, regardless of the user's matplotlibrc.

    Parameters
    ----------
    more
        Further matplotlib settings.
    """
    import matplotlib

    own: Any = {**STYLE, **more}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(own)
        yield


def styled(draw: "Callable[[Figures], Figure]") -> "Callable[[Figures], Figure]":
    """Decorate a function so that it draws in the style of these plots."""

    @wraps(draw)
    def drawn(figures: Figures) -> "Figure":
        with style():
            return draw(figures)

    return drawn


def new_figure(
    title: str, subtitle: str, *, height: float, width: float = WIDTH, n_columns: int = 1
) -> "tuple[Figure, Axes]":
    """Return a figure with axes side by side, and the first of these axes.

    Parameters
    ----------
    title, subtitle
        Title, and a line below it on how to read the plot.
    height, width
        Size in inches.
    n_columns
        Number of axes.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    # The layout does not account for the two lines of text: reserve space for them at the top.
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, 1 - TITLE_HEIGHT / height))
    figure = Figure(figsize=(width, height), layout=layout)
    figure.subplots(1, n_columns)
    left = 0.06 / width
    figure.text(left, 1 - 0.06 / height, title, va="top", fontsize=10, fontweight="bold")
    figure.text(left, 1 - 0.26 / height, subtitle, va="top", fontsize=8.5, color=GREY)
    return figure, figure.axes[0]


def render_plot(figure: "Figure", name: str, format_: str) -> bytes:
    """Return a plot as the bytes of a file, without date or version.

    Parameters
    ----------
    figure
        The plot.
    name
        Prefix of every id in an SVG, so that one page can hold several plots.
    format_
        One of `FORMATS`.

    Raises
    ------
    ConfigError
        If the format is unknown.
    """
    if format_ not in FORMATS:
        raise ConfigError(f"{format_}: no format of plots; expected one of {', '.join(FORMATS)}")
    left_out = ("Software",) if format_ == "png" else ("Creator", "Date", "Format", "Type")
    stream = BytesIO()
    with style({"svg.hashsalt": name}), warnings.catch_warnings():
        # Names in scripts that the font lacks are readable in the tables.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format=format_, dpi=DPI, metadata=dict.fromkeys(left_out))
    if format_ == "png":
        return stream.getvalue()
    # The hash salt affects only some of the ids.
    return re.sub(rb'( id="|href="#|url\(#)', rb"\1" + name.encode() + b"-", stream.getvalue())


def subject(figures: Figures) -> str:
    """Return the model and the corpus, for a title."""
    corpus = f"{figures['corpus']} {figures['split']}"
    return f"{shorten(figures['model'])} on {shorten(corpus)}"


def shorten(name: str) -> str:
    """Return a name as one line, shortened to leave room for the plot."""
    words = " ".join(name.split())
    return words if len(words) <= LONGEST_NAME else words[: LONGEST_NAME - 1] + "…"


def is_measured(value: float | None) -> TypeGuard[float]:
    """Return whether a figure is present and finite."""
    return value is not None and math.isfinite(value)


def format_figure(value: float | None) -> str:
    """Return a figure with three decimals, or `MISSING`."""
    return f"{value:.3f}" if is_measured(value) else MISSING
