"""Reports of `ser eval`: Markdown with links to its plots, and HTML with embedded plots."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sercli.files import write_together
from sercli.reporting.canvas import FORMATS, Figures, render_plot
from sercli.reporting.content import report_sections, report_title
from sercli.reporting.parts import Table
from sercli.reporting.plots import draw_plots, plot_names

MARKDOWN_FILE: Final = "report.md"
HTML_FILE: Final = "report.html"

PLOT_TITLES: Final = {
    "confusion": "Confusion matrix",
    "reliability": "Reliability diagram",
    "coverage": "Accuracy against coverage",
    "speakers": "Accuracy of each speaker",
    "stress": "UAR under stress",
}
# Characters that Markdown would interpret inside a line or a cell.
MARKUP: Final = re.compile(r"[\\`*_\[\]|~#$!]")


def write_report(figures: Figures, folder: Path) -> list[Path]:
    """Write the plots, ``report.md`` and ``report.html``.

    Parameters
    ----------
    figures
        Figures of one model on one corpus, as in ``metrics.json``.
    folder
        Existing folder of the output; files of the same names are replaced.

    Returns
    -------
    list of Path
        The files: plots first, as PNG and SVG.

    Raises
    ------
    OutputError
        If one of the files cannot be written.
    """
    files = {
        f"{name}.{format_}": render_plot(figure, name, format_)
        for name, figure in draw_plots(figures).items()
        for format_ in FORMATS
    }
    inline = {name: files[f"{name}.svg"].decode() for name in plot_names(figures)}
    files[MARKDOWN_FILE] = render_markdown(figures).encode()
    files[HTML_FILE] = render_html(figures, inline).encode()
    write_together({folder / name: data for name, data in files.items()})
    return [folder / name for name in files]


def render_markdown(figures: Figures) -> str:
    """Return the report as GitHub-flavoured Markdown, with links to the PNG files of the plots.

    Parameters
    ----------
    figures
        As for `write_report`.
    """
    blocks = [f"# {escape_markdown(report_title(figures))}"]
    blocks += [f"> **Warning:** {escape_markdown(one)}" for one in figures["warnings"]]
    plots = plot_names(figures)
    for section in report_sections(figures):
        blocks.append(f"## {escape_markdown(section.title)}")
        blocks += [escape_markdown(sentence) for sentence in section.sentences]
        if section.plot in plots:
            blocks.append(f"![{PLOT_TITLES[section.plot]}]({section.plot}.png)")
        for table in section.tables:
            if table.caption:
                blocks.append(f"**{escape_markdown(table.caption)}**")
            blocks.append(_markdown_table(table))
    return "\n\n".join(blocks) + "\n"


def render_html(figures: Figures, plots: Mapping[str, str]) -> str:
    """Return the report as a self-contained HTML page.

    Parameters
    ----------
    figures
        As for `write_report`.
    plots
        SVG documents by name of the plot, inserted unchanged; no two may share an id.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("sercli.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # An SVG inside a page must have neither an XML declaration nor a document type.
    inline = {name: Markup(svg[svg.index("<svg") :]) for name, svg in plots.items()}  # noqa: S704
    return environment.get_template("report.html.j2").render(
        title=report_title(figures),
        warnings=figures["warnings"],
        sections=report_sections(figures),
        plots=inline,
        plot_titles=PLOT_TITLES,
    )


def escape_markdown(text: str) -> str:
    """Return a text as one line, escaped so that Markdown shows it literally.

    Parameters
    ----------
    text
        Any text.
    """
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return MARKUP.sub(r"\\\g<0>", line)


def _markdown_table(table: Table) -> str:
    """Return a table with padded columns, so that the source is readable, too."""
    rows = [[escape_markdown(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    for i in range(table.n_texts, len(rule)):
        rule[i] = rule[i][1:] + ":"
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = [
            cell.ljust(width) if i < table.n_texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
