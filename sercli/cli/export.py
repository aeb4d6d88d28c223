"""``ser export``."""

import click

from sercli.cli.commands import Command
from sercli.cli.console import join_lines, reports_errors, say
from sercli.output.exporting import FORMATS, export_labels
from sercli.output.results import read_output
from sercli.text import format_count


@click.command(cls=Command)
@click.argument("labels", type=click.Path(exists=True, dir_okay=False))
@click.option(
    "--format",
    "format_",
    type=click.Choice(list(FORMATS)),
    required=True,
    help="TextGrid for Praat and ELAN, label track for Audacity, or subtitles.",
)
@click.option("-o", "--output", required=True, metavar="DIR", help="Directory for the files.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors.")
@reports_errors
def export(labels: str, format_: str, output: str, overwrite: bool, quiet: bool) -> None:
    """Write the labels of each recording to a file of its own, to listen and look.

    LABELS is what `ser annotate` wrote, if possible with its run record beside it. The files are in
    the same sub-folders below DIR as the recordings below the folder that all of them share: run
    `ser eval` and `ser train` on DIR in that folder, or put the files there.

    \b
    Example:
      ser export labels.csv --format textgrid -o grids
    """
    results, gap = read_output(labels)
    written = export_labels(results, output, format_, overwrite=overwrite, source=labels)
    if not quiet:
        if gap is not None:
            say(f"warning: {labels}: {gap}")
        for result in results:
            if result.path not in written:
                say(join_lines(f"no labels: {result.error or result.path}"))
        say(f"{format_count(len(written), 'file')} written to {output}")
