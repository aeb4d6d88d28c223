"""A run: labels many files, writes one output and its record, and can resume an earlier run."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sercli.annotation.given import Given
from sercli.config import ACROSS_FILES, OnError
from sercli.discovery import Found, find_inputs
from sercli.errors import ConfigError, OutputError
from sercli.files import STDOUT, AnyPath, copy_mode, write_json
from sercli.output.journal import Journal, find_unfinished
from sercli.output.report import RunInfo, RunReport, describe_file
from sercli.output.resuming import Earlier, EarlierFile, check_stamp, find_stamp
from sercli.output.target import Output
from sercli.output.writers import Writer, open_writer, record_path
from sercli.registry.catalogue import DEFAULT_MODEL
from sercli.schema import FileResult, printable
from sercli.system.interrupts import delay_interrupts
from sercli.text import format_count
from sercli.version import __version__

if TYPE_CHECKING:
    from sercli.annotation.annotator import Annotator
    from sercli.classifiers.base import Classifier


# Fields that the record updates for a file that cannot be read now and whose rows are kept.
OF_A_FAILURE = ("status", "error", "warnings")
KEPT = "{} of an earlier run kept in the output; --resume tries the file again"


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
        self._known: list[tuple[EarlierFile | None, bool]] = [(file, True) for file in absent]
        for found in inputs:
            file = earlier.find(found)
            is_kept = file is not None and file.still_holds(found, self._given.hash(found.path))
            self._known.append((file, is_kept))
            if not is_kept:
                self._new.append(found)
        self.n_files, self.n_new, self.n_absent = len(self._known), len(self._new), len(absent)
        self.n_left = self.n_new

    def write(self, watcher: RunWatcher | None = None, on_error: OnError = "continue") -> RunReport:
        """Label the files and write them in order, after kept files that are not among the inputs.

        However it ends, the rows of finished files are in the output, or beside it for a run that
        resumes. A run that is ended before its first file is done leaves everything as it was.

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
        output, report, watcher = self._output, self.report, watcher or RunWatcher()
        if output.target != STDOUT:
            find_unfinished(Path(output.target))  # another run may have begun to write it since
        self._check_unchanged()
        ledger: _Ledger | None = None
        failing: BaseException | None = None
        try:
            with ExitStack() as stack:
                with delay_interrupts():  # or an interrupt could leave a temporary file behind
                    ledger = self._open_ledger(stack)
                results = self._annotator.annotate(
                    self._new, watcher.decoded, on_error, watcher.file_scored, self._given
                )
                stack.enter_context(closing(results))
                self._write_all(results, ledger, watcher)
            report.completed = not self.n_left
        except BaseException as error:
            failing = error  # raised below
        with delay_interrupts():  # or an interrupt could leave an output without its record
            if ledger is not None:
                self._conclude(ledger, failing)
        if failing is not None:
            raise failing
        return report

    def _conclude(self, ledger: "_Ledger", failing: BaseException | None) -> None:
        """Write the record, and remove what only a resumed run would need."""
        digest = ledger.writer.sha256 if ledger.writer.in_place else None
        is_recorded = self._write_record(failing, digest)
        if digest and is_recorded:  # journals have served their purpose
            for one in self._output.unfinished:
                one.remove()
            # Last, as until then it shows that older ones are superseded.
            ledger.remove_journal()
        elif not digest and ledger.writer.held and not isinstance(failing, OutputError):
            ledger.discard()

    def _check_unchanged(self) -> None:
        """Raise if the output was changed since its rows were found."""
        if self._output.resume:
            check_stamp(self._output.target, self._before, find_stamp(self._output.target))

    def _open_ledger(self, stack: ExitStack) -> "_Ledger":
        """Open the output and its journal; the stack closes them."""
        output, info = self._output, self.report.info
        writer = stack.enter_context(
            open_writer(
                output.target,
                output.format,
                info,
                overwrite=output.overwrite or output.resume,
                held=True,
            )
        )
        journal = None
        if writer.temporary is not None:
            is_there = output.unfinished or os.path.exists(output.target)
            replaces = output.overwrite and bool(is_there)
            try:
                journal = Journal(writer, info, replaces=replaces)
            except BaseException:
                writer.discard()  # without a journal, no run could resume it
                raise
            stack.enter_context(journal)
        return _Ledger(writer, journal, self.report)

    def _write_record(self, failing: BaseException | None, digest: str | None) -> bool:
        """Write the run record beside the finished output, whose SHA-256 is `digest`.

        Returns whether it was written. Without it, a run can resume from the journal.

        If an earlier output stays, so does its record. If there is no output because it could not
        be written, the record is written nevertheless.
        """
        target = self._output.target
        is_lost = isinstance(failing, OutputError) and not os.path.exists(target)
        if target == STDOUT or not (digest or is_lost):
            return False
        record = record_path(target)
        is_new = not os.path.exists(record)
        try:
            write_json(record, self.report.record(digest))
            if is_new:
                copy_mode(Path(target), record)
        except OutputError:
            if failing is None or isinstance(failing, KeyboardInterrupt):
                raise  # otherwise the first error says more
            return False
        return True

    def _write_all(
        self, results: Iterator[FileResult], ledger: "_Ledger", watcher: RunWatcher
    ) -> None:
        n_done = 0
        failing: BaseException | None = None
        try:
            for file, is_kept in self._known:
                if file is not None and is_kept:
                    with ledger.in_one_piece():
                        ledger.keep(file)
                        n_done += 1
                    continue
                result = next(results, None)
                if result is None:  # with on_error="stop", after a file that failed
                    break
                with ledger.in_one_piece():
                    result = ledger.put(result, self._given.hash(result.path), file)
                    n_done += 1
                    self.n_left -= 1
                watcher.done(result)
        except BaseException as error:
            failing = error
            raise
        finally:
            # Rows of an earlier run must not be lost, whatever ended this one. After an error of
            # the output, or if no file was labelled, they stay in the earlier files.
            is_worth = failing is None or self.n_left < self.n_new
            if is_worth and not isinstance(failing, OutputError):
                with ledger.in_one_piece():
                    for file, _ in self._known[n_done:]:
                        if file is not None:
                            ledger.keep(file)
                    self._check_unchanged()
                    ledger.writer.held = False


@dataclass(frozen=True)
class _Ledger:
    """Keeps the output, its journal and the report of a run in step, file by file."""

    writer: Writer
    journal: Journal | None
    report: RunReport

    def in_one_piece(self) -> AbstractContextManager[None]:
        """Delay interrupts while a file is written.

        Not on standard output, where a reader may take its time and no run resumes.
        """
        return nullcontext() if self.journal is None else delay_interrupts()

    def keep(self, file: EarlierFile) -> None:
        """Copy the rows of a file from an earlier run."""
        self.writer.copy(file.read_rows())
        self._note(self.report.keep(file.entry))

    def put(
        self, result: FileResult, turns_sha256: str | None, earlier: EarlierFile | None
    ) -> FileResult:
        """Write the rows of a file; if it cannot be read now, keep those of an earlier run.

        Parameters
        ----------
        result
            Result of the file in this run.
        turns_sha256
            Hash of the segments and speakers given for the file, if any.
        earlier
            What an earlier run left of the file, if there was one.

        Returns
        -------
        FileResult
            The result, with a warning if rows were kept.
        """
        if earlier is None or not earlier.outlasts(result):
            self.writer.write(result)
            self._note(self.report.add(result, turns_sha256))
            return result
        rows = format_count(earlier.entry["n_segments"], "segment")
        result = replace(result, warnings=(*result.warnings, KEPT.format(rows)))
        told = describe_file(result)
        failed = {**earlier.entry, **{name: told[name] for name in OF_A_FAILURE}}
        self.writer.copy(earlier.read_rows(), failed)
        self._note(self.report.keep(failed, failed=True))
        return result

    def discard(self) -> None:
        """Remove the output and its journal."""
        with delay_interrupts():  # a journal without its output would be taken for another's
            self.remove_journal()
            self.writer.discard()

    def remove_journal(self) -> None:
        """Remove the journal, if there is one."""
        if self.journal is not None:
            self.journal.remove()

    def _note(self, entry: dict[str, Any]) -> None:
        entry["rows"] = self.writer.place
        if self.journal is not None:
            self.journal.note(entry)


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
