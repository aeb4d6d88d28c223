"""The command line: parses options into settings, runs them, and sets the exit code."""

import warnings

import click

from sercli.cli.annotate import annotate
from sercli.cli.bench import bench
from sercli.cli.commands import Commands
from sercli.cli.evaluate import evaluate
from sercli.cli.export import export
from sercli.cli.models import models
from sercli.cli.summary import summary
from sercli.cli.train import train
from sercli.version import __version__


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="ser")
def main() -> None:
    """Label the emotion in recorded speech: audio in, timed and calibrated labels out.

    \b
    Example:
      ser annotate ./calls -o labels.csv

    Exit codes: 0 all done, 1 some files failed, 2 wrong usage or model, 130 interrupted.
    """
    # joblib replaces worker processes that were idle for long, and loses nothing by it.
    warnings.filterwarnings("ignore", "A worker stopped while some jobs")


for command in (annotate, bench, evaluate, export, models, summary, train):
    main.add_command(command)
