"""A run: labels many files, writes one output and its record, and can resume an earlier run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sercli.annotation.given import Given
from sercli.config import ACROSS_FILES, OnError
from sercli.discovery import Found, find_inputs
from sercli.errors import ConfigError
from sercli.files import AnyPath
from sercli.output.ledger import Ledger
from sercli.output.report import RunInfo, RunReport
from sercli.output.resuming import Earlier, EarlierFile, find_stamp
from sercli.output.target import Output
from sercli.registry.catalogue import DEFAULT_MODEL
from sercli.schema import FileResult, printable
from sercli.system.interrupts import delay_interrupts
from sercli.version import __version__

if TYPE_CHECKING:
    from sercli.annotation.annotator import Annotator
    from sercli.classifiers.base import Classifier


class RunWatcher:
    """Callbacks for the progress of a run, which do nothing; subclasses override them."""

    def decoded(self, seconds: float) -> None:
        """Note the seconds of audio that were decoded since the last call."""

    def file_scored(self) -> None:
        """Note that one more file was scored."""

    def done(self, result: FileResult) -> None:
        """Note that a file's labels were written."""


class LabelRun:
    """Run that labels files, and writes one output with the record of the run beside it.

    Parameters
    ----------
    annotator
        Annotator that labels the files.
    inputs
        Files, and folders that could not be searched, from `sercli.find_inputs`.
    output
        Output for the labels.
    options
        Further settings for the record.
    given
        The given segments and speakers, if they are already matched to the inputs.

    Attributes
    ----------
    report
        Report of the files that are done so far.
    n_files
        Number of inputs and of kept files that are not among them.
    n_new
        Number of inputs that this run labels.
    n_left
        Number of these that are not labelled yet.
    n_absent
        Number of files of the earlier run that are not among the inputs, and are kept.

    Raises
    ------
    ConfigError
        If a run is to be resumed with a baseline for which labels depend on all files, or it is
        unclear which of the given segments or speakers belong to an input.
    OutputError
        If the output is one of the inputs, or cannot be resumed.
    """

    def __init__(
        self,
        annotator: "Annotator",
        inputs: Sequence[Found],
        output: Output,
        options: Mapping[str, Any] = {},
        given: Given | None = None,
    ) -> None:
        if output.resume and annotator.adapt in ACROSS_FILES:
            raise ConfigError(
                f"--resume does not go with --adapt {annotator.adapt}: there, a new file changes "
                "the labels of others; label all files again with --overwrite, or choose --adapt "
                "recording"
            )
        output.refuse_inputs(found.path for found in inputs)
        self._given = given or Given.match(
            annotator.turns, annotator.speakers, [found.path for found in inputs]
        )
        self._before = find_stamp(output.target)
        self._annotator = annotator
        self._output = output
        self.report = RunReport(describe_run(annotator, output.format, options))
        earlier = Earlier()
        if output.resume:
            earlier = Earlier.read(Path(output.target), self.report.info, output.unfinished)
        absent = earlier.find_others(inputs)
        self._new: list[Found] = []
        # What an earlier run left of each file, and whether it is kept.
        self._earlier: list[EarlierFile | None] = [*absent]
        self._is_kept = [True] * len(absent)
        for found in inputs:
            file = earlier.find(found)
            is_kept = file is not None and file.still_holds(found, self._given.hash(found.path))
            self._earlier.append(file)
            self._is_kept.append(is_kept)
            if not is_kept:
                self._new.append(found)
        self.n_files, self.n_new, self.n_absent = len(self._earlier), len(self._new), len(absent)
        self.n_left = self.n_new

    def write(self, watcher: RunWatcher | None = None, on_error: OnError = "continue") -> RunReport:
        """Label the files and write them in order, after kept files that are not among the inputs.

        However it ends, the rows of finished files are in the output, or beside it for a run that
        resumes. A run that is interrupted before its first file is done leaves all as it was.

        Parameters
        ----------
        watcher
            Callbacks for the progress, if any.
        on_error
            Whether to ``"continue"`` or ``"stop"`` after a file that failed.

        Returns
        -------
        RunReport
            Report of all files.

        Raises
        ------
        OutputError
            If the output or the record cannot be written.
        KeyboardInterrupt
            If the run was interrupted; raised after the rows of finished files are in the output.
        """
        watcher = watcher or RunWatcher()
        with ExitStack() as last, ExitStack() as stack:
            with delay_interrupts():  # or an interrupt could leave a temporary file behind
                ledger = stack.enter_context(
                    Ledger(self._output, self.report, self._earlier, self._before)
                )
                last.push(ledger)  # an interrupt may come just before the first exit begins
            results = self._annotator.annotate(
                self._new, watcher.decoded, on_error, watcher.file_scored, self._given
            )
            stack.enter_context(closing(results))
            self._write_all(results, ledger, watcher)
        return self.report

    def _write_all(
        self, results: Iterator[FileResult], ledger: Ledger, watcher: RunWatcher
    ) -> None:
        for is_kept in self._is_kept:
            if is_kept:
                with ledger.in_one_piece():
                    ledger.keep()
                continue
            result = next(results, None)
            if result is None:  # with on_error="stop", after a file that failed
                break
            with ledger.in_one_piece():
                result = ledger.put(result, self._given.hash(result.path))
                self.n_left -= 1
            watcher.done(result)


def write_labels(
    paths: AnyPath | Iterable[AnyPath],
    output: AnyPath,
    annotator: "Annotator | Classifier | AnyPath" = DEFAULT_MODEL,
    *,
    format_: str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_error: OnError = "continue",
    recursive: bool = True,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
) -> RunReport:
    """Label recordings into a file, with the record of the run beside it, as `ser annotate` does.

    Parameters
    ----------
    paths, recursive, include, exclude
        As for `sercli.annotate`.
    output
        Path of the output, or ``"-"`` for standard output.
    annotator
        An annotator, see `sercli.Annotator.load`; or the name of a model, the path of its folder,
        or a loaded model, which is used with default settings.
    format_
        ``"csv"``, ``"json"`` or ``"jsonl"``; None: by the suffix of the output, CSV on standard
        output.
    overwrite
        Whether to replace the output if it exists.
    resume
        Whether to add to the output if it exists, or to the files that a killed run left: rows of
        unchanged files are kept; files that are new, have changed, or failed are labelled.
    on_error
        Whether to ``"continue"`` or ``"stop"`` after a file that failed.

    Returns
    -------
    RunReport
        Report of all files; files that fail do not raise.

    Raises
    ------
    ConfigError
        If settings exclude each other.
    ModelError
        If the model cannot be loaded.
    OutputError
        If the output cannot be written, exists with neither `overwrite` nor `resume`, or cannot be
        resumed.
    """
    from sercli.annotation.annotator import (
        Annotator,  # loads numpy and the decoders, which --help must not
    )

    place = Output.prepare(output, format_, overwrite=overwrite, resume=resume)
    if not isinstance(annotator, Annotator):
        annotator = Annotator.load(annotator)
    inputs = list(find_inputs(paths, recursive=recursive, include=include, exclude=exclude))
    return LabelRun(annotator, inputs, place).write(on_error=on_error)


def describe_run(annotator: "Annotator", format_: str, options: Mapping[str, Any]) -> RunInfo:
    """Return the description of a run.

    Parameters
    ----------
    annotator
        Annotator that labels the files.
    format_
        Format of the output.
    options
        Further settings for the record.
    """
    classifier, effort = annotator.classifier, annotator.effort
    spec, channels = classifier.spec, annotator.channels
    model = {
        "name": classifier.name,
        "family": spec.family,
        "labels": list(spec.labels),
        "calibration": spec.calibration.method,
        "sha256": classifier.sha256,
        "revision": classifier.revision,
    }
    settings = {
        **asdict(annotator.config),
        "channels": channels if isinstance(channels, str) else ",".join(map(str, channels)),
        "format": format_,
        "segments_sha256": annotator.turns.sha256 if annotator.turns else None,
        "target": annotator.target,
        "adapt": annotator.adapt,
        "tells_speakers": annotator.tells_speakers,
        "speakers_pattern": _make_printable(
            annotator.speakers.spelled if annotator.speakers else None
        ),
        "precision": classifier.precision,
        "threads": effort.n_threads,
        "workers": effort.n_workers,
        "batch_seconds": effort.batch_seconds or classifier.batch_seconds,
    }
    told = {name: _make_printable(value) for name, value in options.items()}
    return RunInfo(__version__, model, told | settings, speakers=annotator.tells_speakers)


def _make_printable(value: Any) -> Any:
    """Return the value of an option in JSON types."""
    if isinstance(value, tuple):
        return [_make_printable(one) for one in value]
    return printable(value) if isinstance(value, str) else value
