"""``ser bench``."""

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from sercli.cli.commands import Command
from sercli.cli.console import give, reports_errors, say, tell_failed
from sercli.cli.options import (
    MODEL_HELP,
    channels_option,
    is_given,
    labels_option,
    load_chosen,
    model_options,
    speed_options,
)
from sercli.cli.standard_input import STDIN
from sercli.config import Effort
from sercli.output.report import ExitCode
from sercli.registry.catalogue import DEFAULT_MODEL
from sercli.system.memory import keep_less
from sercli.text import format_count, format_duration

if TYPE_CHECKING:
    from sercli.benchmark.run import Benchmark


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("paths", nargs=-1, type=click.Path(readable=False))
@model_options(MODEL_HELP, DEFAULT_MODEL)
@labels_option
@channels_option
@click.option(
    "--hours",
    type=float,
    default=0.25,
    metavar="H",
    help="Hours of synthetic recordings, if no PATHS are given.",
)
@click.option(
    "--runs",
    type=int,
    default=1,
    metavar="N",
    help="Number of measured runs, after a warm-up run. The figures are those of the median run; "
    "of an even number, of the slower of the two in the middle.",
)
@speed_options
@click.option("--json", "as_json", is_flag=True, help="Print everything that was measured as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors and the figures.")
@reports_errors
def bench(paths: tuple[str, ...], **options: Any) -> None:
    """Measure how fast recordings are annotated here, and where the time goes.

    PATHS are files and directories; without any, recordings of a synthetic voice are made. The
    figures do not include loading the model.

    \b
    Examples:
      ser bench
      ser bench ./calls --model svm --runs 5 --json
      ser bench --threads 4 --workers 2 --hours 2
    """
    from sercli.benchmark.run import measure  # loads numpy and the decoders, which --help must not

    if paths and is_given("hours"):
        raise click.UsageError("--hours goes without PATHS.")
    if STDIN in paths:
        raise click.UsageError(
            f"{STDIN}: standard input can be read only once; expected files and directories, which "
            f"every run reads again (a file of this name is ./{STDIN})."
        )
    effort = Effort(options["threads"], options["workers"], options["batch_seconds"])
    keep_less()
    classifier = load_chosen(options)
    found = measure(
        classifier,
        paths,
        hours=options["hours"],
        channels=options["channels"],
        effort=effort,
        runs=options["runs"],
        say=(lambda _: None) if options["quiet"] else say,
    )
    tell_failed(found.errors)
    if options["as_json"]:
        give(json.dumps(asdict(found), indent=1))
    else:
        give("\n".join(_tell(found)))
    if found.failed:
        sys.exit(ExitCode.SOME_FAILED)


def _tell(found: "Benchmark") -> list[str]:
    """Return the figures, line by line."""
    failed = f" ({found.failed} failed)" if found.failed else ""
    n_runs = len(found.wall_seconds)
    median = "median" if n_runs % 2 else "slower median"
    lines = [
        f"{found.model}, {found.precision}, {format_count(found.workers, 'worker')} on "
        f"{format_count(found.threads, 'thread')}, {found.batch_seconds:g} s a batch",
        f"{format_count(found.files, 'file')}{failed}, "
        f"{format_duration(found.audio_seconds)} of audio, "
        f"{format_count(found.segments, 'segment')}, {format_duration(found.speech_seconds)}",
        f"{found.hours_per_minute:.2f} hours of audio per minute, {found.speed:.0f} times real "
        f"time ({median} of {format_count(n_runs, 'run')})",
        "",
        f"{'stage':10}{'s of work':>12}{'share':>9}{'times real time, one worker':>30}",
    ]
    for name, stage in found.stages.items():
        lines.append(f"{name:10}{stage.seconds:12.2f}{stage.share:9.1%}{stage.speed:30,.0f}")
    lines.append("")
    if found.peak is not None and found.multiply_adds is not None:
        lines.append(
            f"{found.multiply_adds / found.speech_seconds / 1e9:.2f} G multiply-adds per second of "
            f"speech; this machine does {found.peak / 1e9:.0f} G per second of large matrices"
        )
        lines.append(
            f"of that peak, the stages features and model together reach {found.model_share:.0%}, "
            f"and the whole run {found.run_share:.0%}"
        )
    if found.peak_memory is not None:
        lines.append(f"peak memory of this process {found.peak_memory / 1e6:,.0f} MB")
    return lines
