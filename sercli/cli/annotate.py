"""``ser annotate``."""

import sys
from typing import TYPE_CHECKING, Any, get_args

import click

from sercli.annotation.given import Given
from sercli.annotation.run import LabelRun
from sercli.cli.commands import Command
from sercli.cli.console import Progress, leave, refuse_closed_output, reports_errors, say
from sercli.cli.options import (
    MODEL_HELP,
    Decorator,
    adapt_option,
    channels_option,
    is_given,
    join_options,
    labels_option,
    load_chosen,
    model_options,
    speed_options,
    spell,
    target_option,
)
from sercli.cli.standard_input import STDIN, read_stdin, refuse_unusable_stdin, reserve_stdin
from sercli.cli.view import View
from sercli.config import Effort, OnError, SegmentConfig, SegmentMode
from sercli.discovery import Found, find_inputs, read_path_list
from sercli.errors import OutputError
from sercli.files import STDOUT
from sercli.output.report import ExitCode
from sercli.output.target import Output
from sercli.output.writers import WRITERS
from sercli.registry.catalogue import DEFAULT_MODEL
from sercli.system.memory import keep_less
from sercli.text import format_count

if TYPE_CHECKING:
    from sercli.annotation.annotator import Annotator
    from sercli.classifiers.base import Classifier
    from sercli.speech.matching import Match
    from sercli.speech.turns import Turns

DEFAULTS = SegmentConfig()

# The values of --segment with which an option has an effect.
MODES_OF = {
    "max_segment": ("speech",),
    "min_segment": ("speech", "window"),
    "max_gap": ("speech",),
    "window": ("window",),
    "hop": ("window",),
}
# Options that the run record leaves out.
UNTOLD = ("files_from", "format_", "quiet", "verbose", "nul", "resume")
# Options that have no effect if segments are given.
CUTTING = ("mode", *MODES_OF, "vad_threshold")


def _seconds(name: str, default: float | None, text: str) -> Decorator:
    return click.option(name, type=float, metavar="S", default=default, help=text)


input_options = join_options(
    click.option(
        "--files-from",
        type=click.File("rb"),
        metavar="FILE",
        help="Also label the paths listed in FILE, one per line; - for standard input.",
    ),
    click.option("-0", "--null", "nul", is_flag=True, help="Paths in FILE are separated by NUL."),
    click.option("--no-recursive", is_flag=True, help="Do not search sub-folders."),
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="In directories, take only files that match, whatever their suffix, by name, by path "
        "below the directory, or by path as given. Repeatable.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="GLOB",
        help="In directories, leave out files and sub-folders that match, in the same ways. "
        "Repeatable.",
    ),
    heading="Input",
)

segment_options = join_options(
    click.option(
        "--segment",
        "mode",
        type=click.Choice(get_args(SegmentMode)),
        default=DEFAULTS.mode,
        help="Label detected speech, fixed windows, or whole files.",
    ),
    click.option(
        "--segments",
        metavar="FILE|DIR",
        type=click.Path(exists=True),
        help="Label these segments instead: the rows of a CSV file with the columns file, start, "
        "end and, optionally, channel (with --channels split) and speaker; the turns of a "
        "diarisation (.rttm); or the intervals of a .TextGrid, or of a folder of them, each named "
        "like its recording (and in the same sub-folder, where several have the same name).",
    ),
    click.option(
        "--tier",
        "tiers",
        multiple=True,
        metavar="NAME",
        help="Tier of a TextGrid to take intervals from. Repeatable: several tiers are several "
        "speakers (with --segments).",
    ),
    _seconds(
        "--max-segment",
        DEFAULTS.max_segment,
        "Cut longer speech at its quietest point; at least twice --min-segment.",
    ),
    _seconds(
        "--min-segment",
        DEFAULTS.min_segment,
        "Join shorter speech to a close neighbour; with --segment window, leave out a shorter "
        "window at the end.",
    ),
    _seconds("--max-gap", DEFAULTS.max_gap, "Bridge shorter pauses."),
    _seconds("--window", DEFAULTS.window, "Length of a window (with --segment window)."),
    _seconds("--hop", DEFAULTS.hop, "Step between windows.  [default: the length of a window]"),
    click.option(
        "--vad-threshold",
        type=float,
        metavar="P",
        default=DEFAULTS.vad_threshold,
        help="Speech probability from which on a frame counts as speech.",
    ),
    channels_option,
    heading="Segments",
)

classification_options = join_options(
    model_options(MODEL_HELP, DEFAULT_MODEL),
    labels_option,
    target_option,
    adapt_option(
        "auto",
        "auto: the channel, if channels are classified separately, else the recording, with "
        "models that gain from it. Groups of fewer than six segments have no baseline.",
    ),
    click.option(
        "--speakers",
        metavar="FILE|REGEX",
        help="Who speaks: a CSV file with the columns file, speaker and, where several speak in a "
        "recording, channel or start and end, or with channel and speaker, the same for every "
        "recording; the turns of a diarisation (.rttm); or a regular expression whose first group, "
        "found in the path, is the speaker. Elsewhere, speakers of --segments are used.",
    ),
    heading="Model",
)

output_options = join_options(
    click.option(
        "-o",
        "--output",
        "output",
        default=STDOUT,
        metavar="FILE",
        help="Output file: .csv, .json or .jsonl; - for standard output.",
    ),
    click.option(
        "--format",
        "format_",
        type=click.Choice(list(WRITERS)),
        help="Output format.  [default: by the suffix of FILE, else csv]",
    ),
    click.option("--overwrite", is_flag=True, help="Replace the output if it exists."),
    click.option(
        "--resume",
        is_flag=True,
        help="Add to the output of an earlier run, also of one that was killed: keep the rows of "
        "files that have not changed or are not among PATHS, and label files that are new, have "
        "changed, or failed. Not with --adapt speaker or corpus.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(get_args(OnError)),
        default="continue",
        help="What to do after a file that cannot be read in full.",
    ),
    heading="Output",
)

message_options = join_options(
    click.option("-q", "--quiet", is_flag=True, help="Print only errors."),
    click.option("-v", "--verbose", is_flag=True, help="Report each file."),
)


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("paths", nargs=-1, type=click.Path(readable=False))
@input_options
@segment_options
@classification_options
@output_options
@speed_options
@message_options
@reports_errors
def annotate(paths: tuple[str, ...], **options: Any) -> None:
    """Label the speech segments of recordings.

    PATHS are files and directories; - is a recording on standard input. Writes one row per
    segment: its times in seconds, the emotion, its calibrated confidence and the probability of
    every emotion. Beside labels.csv, labels.csv.run.json records the run and what became of each
    file.

    \b
    Examples:
      ser annotate ./calls -o labels.csv
      ser annotate call.wav --channels split --format jsonl | jq .emotion
      find . -name '*.m4a' -print0 | ser annotate --files-from - -0 -o labels.json
      ser annotate ./visits --adapt speaker --speakers '(patient[0-9]+)' -o labels.csv
      ser annotate ./talks --segments turns.rttm --adapt speaker -o labels.csv
      ser annotate ./calls --model hub:superb/hubert-base-superb-er -o labels.csv
      ffmpeg -i talk.mkv -f wav - | ser annotate - --model svm
    """
    _refuse_unusable_paths(paths, options)
    _refuse_idle_options(options)
    output = Output.prepare(
        options["output"],
        options["format_"],
        overwrite=options["overwrite"],
        resume=options["resume"],
    )
    inputs = _find(paths, options)
    listed = options["files_from"]
    read = (options["segments"], options["speakers"], listed and listed.name)
    output.refuse_inputs(path for path in read if path)
    annotator, given = _create_annotator(options, [found.path for found in inputs])
    quiet = options["quiet"]
    if not quiet:
        _tell_limits(annotator.classifier)
        for what, match in given._asdict().items():
            if match is not None:
                _tell_misfits(match, what)
    for found in inputs:
        read_stdin(found)
    told = {name: value for name, value in options.items() if name not in UNTOLD}
    run = LabelRun(annotator, inputs, output, told, given)
    if run.n_absent and not quiet:
        say(f"{format_count(run.n_absent, 'file')} of an earlier run not among the inputs: kept")
    # If rows are printed on the terminal, a bar would mix with them.
    bar = not (output.target == STDOUT and sys.stdout.isatty())
    try:
        with Progress("files", run.n_new, quiet=quiet, bar=bar) as progress:
            view = View(run.report, progress, verbose=options["verbose"], quiet=quiet)
            code = run.write(view, options["on_error"]).exit_code
    except KeyboardInterrupt:
        n_done = run.n_files - run.n_left
        say(f"interrupted after {n_done} of {format_count(run.n_files, 'file')}")
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:  # the reader of the rows has closed the pipe
        leave(sys.stdout)
        sys.exit(ExitCode.DONE)
    except OutputError:
        if output.target == STDOUT:
            leave(sys.stdout)  # what is still in its buffer would fail at exit, too
        raise
    if code != ExitCode.INTERRUPTED:
        _tell_nothing(run, annotator.turns)
    if not quiet:
        _tell_rest(run, code, options)
        say(run.report.summary())
    sys.exit(code)


def _refuse_unusable_paths(paths: tuple[str, ...], options: dict[str, Any]) -> None:
    if not paths and options["files_from"] is None:
        raise click.UsageError("Name files or directories, or a list of them by --files-from.")
    refuse_unusable_stdin(paths, options)
    if options["output"] == STDOUT:
        refuse_closed_output()


def _create_annotator(options: dict[str, Any], paths: list[str]) -> tuple["Annotator", Given]:
    from sercli.annotation.annotator import (
        Annotator,  # loads numpy and the decoders, which --help must not
    )
    from sercli.annotation.recording import SPLIT
    from sercli.speech.speakers import Speakers
    from sercli.speech.turn import TIMES
    from sercli.speech.turns import Turns

    # Before the model is loaded, so that invalid settings are reported at once.
    config = SegmentConfig(**{name: options[name] for name in SegmentConfig.__dataclass_fields__})
    effort = Effort(options["threads"], options["workers"], options["batch_seconds"])
    turns = None
    if options["segments"]:
        turns = Turns.read(options["segments"], *TIMES, tiers=options["tiers"])
    speakers = Speakers.parse(options["speakers"]) if options["speakers"] else None
    by_pattern = speakers is not None and not isinstance(speakers.source, Turns)
    is_divided = options["channels"] == SPLIT or "," in options["channels"]
    if by_pattern and is_divided and not options["quiet"]:
        say(
            "warning: where a recording has several channels, a pattern names one speaker for all; "
            "a table with the columns channel, speaker, and file where they differ, tells them "
            "apart"
        )
    given = Given.match(turns, speakers, paths)
    keep_less()
    classifier = load_chosen(options)
    annotator = Annotator(
        classifier,
        turns or config,
        options["channels"],
        options["target"],
        options["adapt"],
        speakers,
        effort,
    )
    return annotator, given


def _tell_misfits(match: "Match", what: str) -> None:
    """Warn of turns that match none of the inputs, or several of them."""
    path = match.source and match.source.path
    if match.others:
        recordings = format_count(len(match.others), "recording")
        say(
            f"warning: {path} has {what} of {recordings} not among the inputs, such as "
            f"{match.others[0]}"
        )
    for name in match.shared:
        say(f"warning: {path}: several inputs match {name}; its {what} are used for each of them")


def _tell_nothing(run: LabelRun, turns: "Turns | None") -> None:
    """Warn, even with --quiet, if none of the given segments has a label."""
    counts = run.report.counts()
    # If all files failed, their errors say enough.
    if turns is None or counts["segments"] or counts["failed"] == counts["files"]:
        return
    if any(turns.by_recording.values()):
        say(
            f"warning: {turns.path}: none of its segments has a label; the warning of each file "
            "says why (without -q, or in the run record)"
        )


def _tell_rest(run: LabelRun, code: ExitCode, options: dict[str, Any]) -> None:
    """Report files that were not tried, and segments whose speaker is unknown."""
    report = run.report
    if run.n_left and code != ExitCode.INTERRUPTED:
        say(f"stopped at a file that failed: {format_count(run.n_left, 'file')} not tried")
    by_speaker = options["adapt"] == "speaker"
    if report.n_unknown and (by_speaker or options["speakers"]):
        n_new = report.n_segments - report.n_kept_segments
        compared = "; they are compared with the baseline of their file" if by_speaker else ""
        say(
            f"warning: the speaker is not known for {report.n_unknown} of "
            f"{format_count(n_new, 'segment')}{compared}"
        )


def _refuse_idle_options(options: dict[str, Any]) -> None:
    if options["quiet"] and options["verbose"]:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    if options["overwrite"] and options["output"] == STDOUT:
        raise click.UsageError("--overwrite goes with -o FILE.")
    if options["nul"] and options["files_from"] is None:
        raise click.UsageError("-0 goes with --files-from.")
    if options["tiers"] and options["segments"] is None:
        raise click.UsageError("--tier goes with --segments.")
    if options["segments"] is not None:
        for name in CUTTING:
            if is_given(name):
                raise click.UsageError(f"{spell(name)} does not go with --segments.")
    for name, modes in MODES_OF.items():
        if is_given(name) and options["mode"] not in modes:
            raise click.UsageError(f"{spell(name)} goes with --segment {' or '.join(modes)}.")
    by_speaker = options["adapt"] == "speaker"
    if by_speaker and options["speakers"] is None and options["segments"] is None:
        raise click.UsageError(
            "--adapt speaker goes with --speakers FILE|REGEX, or with --segments that have "
            "speakers."
        )


def _find(paths: tuple[str, ...], options: dict[str, Any]) -> list[Found]:
    listed = options["files_from"]
    given = [reserve_stdin() if path == STDIN else path for path in paths]
    if listed is not None:
        given += read_path_list(listed, nul=options["nul"])
    idle: list[str] = []
    inputs = list(
        find_inputs(
            given,
            recursive=not options["no_recursive"],
            include=options["include"],
            exclude=options["exclude"],
            on_idle=idle.append,
        )
    )
    for pattern in () if options["quiet"] else idle:
        say(
            f"warning: nothing in the directories matches {pattern}; expected a name, a path "
            "below the directory, or a path as given"
        )
    if not inputs and not options["quiet"]:
        say(f"found no audio or video files in: {', '.join(map(str, given)) or 'an empty list'}")
    return inputs


def _tell_limits(classifier: "Classifier") -> None:
    limits = classifier.limits
    if not classifier.spec.training:
        limits = ("Its training data are not known.", *limits)
    if limits:
        say(f"warning: {classifier.name}: {' '.join(limits)}")
