"""``ser annotate``."""

import os
import sys
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import click

from sercli.catalogue import DEFAULT_MODEL
from sercli.cli.console import reports_errors, say, show_progress
from sercli.cli.options import (
    Decorator,
    adapt_option,
    device_option,
    effort_options,
    find_effort,
    is_given,
    model_options,
    precision_option,
    target_option,
)
from sercli.cli.results import View, write_all
from sercli.config import LabelScheme, OnError, SegmentConfig, SegmentMode
from sercli.discovery import Found, find_inputs, read_path_list
from sercli.errors import OutputError
from sercli.files import STDOUT, check_target, write_json
from sercli.journal import Journal, Unfinished, find_unfinished
from sercli.memory import keep_less
from sercli.report import ExitCode, RunInfo, RunReport
from sercli.resuming import Earlier
from sercli.schema import MIX, printable_path
from sercli.store import load_model
from sercli.text import format_count
from sercli.version import __version__
from sercli.writers import WRITERS, choose_format, open_writer, record_path

if TYPE_CHECKING:
    from sercli.annotation import Annotator
    from sercli.classifiers.base import Classifier
    from sercli.turns import Turns

DEFAULTS = SegmentConfig()

# The mode of segments that an option belongs to: with another, it would do nothing.
MODE_OF = {"max_segment": "speech", "max_gap": "speech", "window": "window", "hop": "window"}
# What says nothing where segments are given.
CUTTING = ("segment", *MODE_OF, "min_segment", "vad_threshold")


def _options(*options: Decorator) -> Decorator:
    """Join options into one decorator, in the order in which help shows them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def _seconds(name: str, default: float | None, text: str) -> Decorator:
    return click.option(name, type=float, metavar="S", default=default, help=text)


input_options = _options(
    click.option(
        "--files-from",
        type=click.File("rb"),
        metavar="FILE",
        help="Also take the paths listed in FILE, one a line; - for standard input.",
    ),
    click.option("-0", "--null", "nul", is_flag=True, help="The list is separated by NUL."),
    click.option("--no-recursive", is_flag=True, help="Leave out sub-folders."),
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="In directories, take only what matches, whatever its suffix. Repeatable.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="In directories, leave out what matches. Repeatable.",
    ),
)

segment_options = _options(
    click.option(
        "--segment",
        "mode",
        type=click.Choice(get_args(SegmentMode)),
        default=DEFAULTS.mode,
        help="What gets a label: detected speech, fixed windows, or the whole file.",
    ),
    click.option(
        "--segments",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False),
        help="What gets a label, in the place of detected speech: the rows of a CSV file with the "
        "columns file, start and end, and channel and speaker if there are any; or the turns of a "
        "diarisation (.rttm).",
    ),
    _seconds("--max-segment", DEFAULTS.max_segment, "Cut longer speech at its quietest point."),
    _seconds("--min-segment", DEFAULTS.min_segment, "Shorter speech joins a close neighbour."),
    _seconds("--max-gap", DEFAULTS.max_gap, "Bridge shorter pauses."),
    _seconds("--window", DEFAULTS.window, "Length of a window (with --segment window)."),
    _seconds("--hop", DEFAULTS.hop, "Step between windows; the length of a window by default."),
    click.option(
        "--vad-threshold",
        type=float,
        metavar="P",
        default=DEFAULTS.vad_threshold,
        help="Probability from which a frame counts as speech.",
    ),
    click.option(
        "--channels",
        default=MIX,
        metavar="mix|split|0,1",
        help="Judge the mean of all channels, each by itself, or those named.",
    ),
)

output_options = _options(
    click.option(
        "-o",
        "--output",
        "output",
        default=STDOUT,
        metavar="FILE",
        help="labels.csv, .json or .jsonl; - for standard output.",
    ),
    click.option("--format", "format_", type=click.Choice(list(WRITERS)), help="Of the output."),
    click.option("--overwrite", is_flag=True, help="Replace the output if it exists."),
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with the output if it exists, or with what a run left that was killed: keep "
        "what there is of files that are as they were or not among PATHS, and label those that are "
        "new, have changed, or failed.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(get_args(OnError)),
        default="continue",
        help="What to do after a file that cannot be read in full.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say what became of each file."),
)


@click.command(context_settings={"show_default": True})
@click.argument("paths", nargs=-1, type=click.Path(readable=False))
@model_options(
    "A model by name (see: ser models), a model folder, or an audio classifier of Hugging Face: "
    "hub:NAME, or its folder.",
    DEFAULT_MODEL,
)
@click.option(
    "--labels",
    type=click.Choice(get_args(LabelScheme)),
    help="Of a classifier of Hugging Face: ours for those that mean the same, or the model's own.  "
    "[default: ours]",
)
@device_option(several=True)
@precision_option()
@effort_options
@target_option()
@adapt_option(
    "auto",
    "auto: the channel, if each is judged by itself, else the recording, with models that can; "
    "groups of few segments have none.",
)
@click.option(
    "--speakers",
    metavar="FILE|REGEX",
    help="Who speaks: a CSV file with the columns file and speaker, and channel if it matters; or "
    "a regular expression of which the first group in a path is the speaker (with --adapt "
    "speaker).",
)
@input_options
@segment_options
@output_options
@reports_errors
def annotate(paths: tuple[str, ...], **options: Any) -> None:
    """Label the speech segments of recordings.

    PATHS are files and directories, mixed. Writes one row per segment with times in seconds, the
    emotion, its calibrated confidence and the probability of every emotion. Beside labels.csv,
    labels.csv.run.json tells what became of each file.

    \b
    Examples:
      ser annotate ./calls -o labels.csv
      ser annotate call.wav --channels split --format jsonl | jq .emotion
      find . -name '*.m4a' -print0 | ser annotate --files-from - -0 -o labels.json
      ser annotate ./visits --adapt speaker --speakers '(patient[0-9]+)' -o labels.csv
      ser annotate ./talks --segments turns.rttm --adapt speaker -o labels.csv
      ser annotate ./calls --model hub:superb/hubert-base-superb-er -o labels.csv
    """
    _refuse_unusable_paths(paths, options)
    _refuse_idle_options(options)
    output, resume = options["output"], options["resume"]
    may_replace = options["overwrite"] or resume
    format_ = choose_format(output, options["format_"])
    unfinished = [] if output == STDOUT else _check_output(output, may_replace=may_replace)
    inputs = _find(paths, options)
    _refuse_replacing(output, [found.path for found in inputs], options)
    annotator = _create_annotator(options)
    if not options["quiet"]:
        _tell_limits(annotator.classifier)
        if annotator.turns is not None:
            _tell_unused_turns(annotator.turns, inputs, options["segments"])
    report = RunReport(_run_info(annotator, options, format_))
    earlier = Earlier.read(Path(output), report.info, unfinished) if resume else Earlier()
    kept = [earlier.find(found) for found in inputs]
    absent = earlier.find_others(inputs)
    if absent and not options["quiet"]:
        say(f"{format_count(len(absent), 'file')} of before not among the inputs: kept")
    n_files = len(absent) + len(inputs)
    code, journal = ExitCode.INTERRUPTED, None
    try:
        with (
            open_writer(output, format_, report.info, overwrite=may_replace) as writer,
            show_progress(
                "files",
                kept.count(None),
                quiet=options["quiet"],
                bar=output != STDOUT or not sys.stdout.isatty(),  # or rows would be on its line
            ) as progress,
        ):
            view = View(report, progress, verbose=options["verbose"], quiet=options["quiet"])
            new = [found for found, entry in zip(inputs, kept, strict=True) if entry is None]
            heard = annotator.annotate(new, view.heard, options["on_error"], view.heard_file)
            to_file = writer.temporary
            beside = Journal(to_file, report.info) if to_file is not None else nullcontext()
            with closing(heard) as results, beside as journal:
                write_all(results, [*absent, *kept], earlier, writer, view, journal)
        report.completed = report.n_files == n_files
        code = report.exit_code
    except KeyboardInterrupt:
        say(f"interrupted after {report.n_files} of {format_count(n_files, 'file')}")
    except BrokenPipeError:
        _end_quietly()
    finally:
        if output != STDOUT:
            failing = sys.exception()
            try:
                write_json(record_path(output), report.record(), overwrite=True)
            except OutputError:
                if failing is None:  # else that tells more
                    raise
    # All of it has its place now.
    if journal is not None:
        journal.remove()
    for one in unfinished:
        one.remove()
    if not options["quiet"]:
        _tell_rest(report, n_files, code, options)
        say(report.summary())
    sys.exit(code)


def _refuse_unusable_paths(paths: tuple[str, ...], options: dict[str, Any]) -> None:
    if not paths and options["files_from"] is None:
        raise click.UsageError("Name files or directories, or a list of them by --files-from.")
    if STDOUT in paths and not os.path.exists(STDOUT):
        raise click.UsageError(
            "Audio is not read from standard input; name files, or --files-from - for a list of "
            "them."
        )


def _check_output(output: str, *, may_replace: bool) -> list[Unfinished]:
    """Refuse an output that may not be written; return what killed runs left of it."""
    for path in (Path(output), record_path(output)):
        check_target(path, overwrite=may_replace)
    unfinished = find_unfinished(Path(output))
    if unfinished and not may_replace:
        raise OutputError(
            f"{output}: a run that was to write it was killed; go on from there with --resume, or "
            "begin anew with --overwrite"
        )
    return unfinished


def _refuse_replacing(output: str, inputs: list[str], options: dict[str, Any]) -> None:
    """Refuse to write the output over what is read, as a pattern of the shell may have it."""
    if output == STDOUT:
        return
    written = {_identify(output), _identify(record_path(output))} - {None}
    for path in (*inputs, options["segments"], options["speakers"]) if written else ():
        if path and _identify(path) in written:
            raise OutputError(f"{path}: is to be read; expected another output")


def _identify(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """Return by what a file is known, whatever its path; None if there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # no path holds NUL
        return None
    return status.st_dev, status.st_ino


def _create_annotator(options: dict[str, Any]) -> "Annotator":
    from sercli.annotation import Annotator  # loads numpy and the decoders, which --help must not
    from sercli.speakers import Speakers
    from sercli.turns import TIMES, Turns

    # Before a model is loaded, as they may be unusable.
    config, effort = _segment_config(options), find_effort(options)
    turns = Turns.read(options["segments"], *TIMES) if options["segments"] else None
    speakers = Speakers.parse(options["speakers"]) if options["speakers"] else None
    keep_less()
    classifier = load_model(
        options["model"],
        options["device"],
        revision=options["revision"],
        labels=options["labels"],
        precision=options["precision"],
    )
    return Annotator(
        classifier,
        turns or config,
        options["channels"],
        options["target"],
        options["adapt"],
        speakers,
        effort,
    )


def _tell_unused_turns(turns: "Turns", inputs: list[Found], listed: str) -> None:
    """Say of what recordings the segments cannot be taken, or are taken twice."""
    paths = [found.path for found in inputs]
    others = turns.find_others(paths)
    if others:
        recordings = format_count(len(others), "recording")
        say(
            f"warning: {listed} has segments of {recordings} not among the inputs, such as "
            f"{others[0]}"
        )
    for name in turns.find_shared(paths):
        say(
            f"warning: {listed}: several inputs are named {name}; its segments are taken for "
            "those of each"
        )


def _tell_rest(report: RunReport, n_files: int, code: ExitCode, options: dict[str, Any]) -> None:
    """Say what the summary does not: what was not tried, and who is not known."""
    left = n_files - report.n_files
    if left and code != ExitCode.INTERRUPTED:
        say(f"stopped at a file that failed: {format_count(left, 'file')} not tried")
    if options["adapt"] == "speaker" and report.n_unknown:
        say(
            f"warning: of {report.n_unknown} of {format_count(report.n_segments, 'segment')} it is "
            "not known who speaks; they are judged by the baseline of their file"
        )


def _refuse_idle_options(options: dict[str, Any]) -> None:
    if options["nul"] and options["files_from"] is None:
        raise click.UsageError("-0 goes with --files-from.")
    if options["resume"]:
        _refuse_resuming(options)
    if options["segments"] is not None:
        for name in CUTTING:
            if is_given("mode" if name == "segment" else name):
                raise click.UsageError(f"--{name.replace('_', '-')} does not go with --segments.")
    for name, mode in MODE_OF.items():
        if is_given(name) and options["mode"] != mode:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --segment {mode}.")
    by_speaker = options["adapt"] == "speaker"
    if options["speakers"] is not None and not by_speaker:
        raise click.UsageError("--speakers goes with --adapt speaker.")
    if by_speaker and options["speakers"] is None and options["segments"] is None:
        raise click.UsageError(
            "--adapt speaker goes with --speakers FILE|REGEX, or with --segments that tell who "
            "speaks."
        )


def _refuse_resuming(options: dict[str, Any]) -> None:
    if options["output"] == STDOUT:
        raise click.UsageError("--resume goes with -o FILE.")
    if options["overwrite"]:
        raise click.UsageError("--resume and --overwrite exclude each other.")
    if options["adapt"] in ("speaker", "corpus"):
        raise click.UsageError(
            f"--resume does not go with --adapt {options['adapt']}: there, labels depend on all "
            "files."
        )


def _segment_config(options: dict[str, Any]) -> SegmentConfig:
    names = SegmentConfig.__dataclass_fields__
    return SegmentConfig(**{name: options[name] for name in names})


def _find(paths: tuple[str, ...], options: dict[str, Any]) -> list[Found]:
    listed = options["files_from"]
    if listed is not None:
        paths = (*paths, *read_path_list(listed, nul=options["nul"]))
    inputs = list(
        find_inputs(
            paths,
            recursive=not options["no_recursive"],
            include=options["include"],
            exclude=options["exclude"],
        )
    )
    if not inputs and not options["quiet"]:
        say(f"found no audio or video files in: {', '.join(paths) or 'an empty list'}")
    return inputs


def _tell_limits(classifier: "Classifier") -> None:
    limits = classifier.limits
    if not classifier.spec.training:
        limits = ("What it was trained on is not known.", *limits)
    if limits:
        say(f"warning: {classifier.name}: {' '.join(limits)}")


def _run_info(annotator: "Annotator", options: dict[str, Any], format_: str) -> RunInfo:
    classifier = annotator.classifier
    spec = classifier.spec
    model = {
        "name": classifier.name,
        "family": spec.family,
        "labels": list(spec.labels),
        "calibration": spec.calibration.method,
        "sha256": classifier.sha256,
        "revision": classifier.revision,
    }
    recorded = {
        name: _make_printable(value)
        for name, value in options.items()
        if name not in ("files_from", "format_", "quiet", "verbose", "nul", "resume")
    }
    resolved = {
        "format": format_,
        "segments_sha256": annotator.turns.sha256 if annotator.turns else None,
        "adapt": annotator.adapt,
        "precision": classifier.precision,
        "threads": annotator.effort.n_threads,
        "workers": annotator.effort.n_workers,
        "batch_seconds": annotator.effort.batch_seconds or classifier.batch_seconds,
    }
    return RunInfo(__version__, model, recorded | resolved, speakers=annotator.tells_speakers)


def _make_printable(value: Any) -> Any:
    """Return what was given as JSON can hold it."""
    if isinstance(value, tuple):
        return [_make_printable(one) for one in value]
    return printable_path(value) if isinstance(value, str) else value


def _end_quietly() -> NoReturn:
    """End as a program whose reader has seen enough; what is buffered goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(ExitCode.DONE)
