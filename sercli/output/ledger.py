"""Ledger of a run: owns its output from opening it until it is in its place, left, or removed."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from sercli.errors import OutputError
from sercli.files import STDOUT, copy_mode, write_json
from sercli.output.journal import Journal, find_unfinished
from sercli.output.report import RunReport, describe_file
from sercli.output.resuming import EarlierFile, Stamp, check_stamp, find_stamp
from sercli.output.target import Output
from sercli.output.writers import open_writer, record_path
from sercli.schema import FileResult
from sercli.system.interrupts import delay_interrupts
from sercli.text import format_count

# Fields that the record updates for a file that cannot be read now and whose rows are kept.
OF_A_FAILURE = ("status", "error", "warnings")
KEPT = "{} of an earlier run kept in the output; --resume tries the file again"


class Ledger:
    """Output of a run with its journal and report, kept in step; a context manager.

    Nothing replaces an earlier output before the exit. There, also after an error, the output is
    completed: it is put in its place, with the record beside it. But after an `OutputError`, or
    another error amid the rows of a file, it is left with its journal, from which another run can
    resume; and after another error before any file was labelled, both are discarded. Standard
    output is always completed. Further exits do nothing.

    Parameters
    ----------
    output
        The output, which is opened.
    report
        Report of the run.
    earlier
        What an earlier run left of each file, in the order of the files, if anything.
    before
        Stamp of the output when this was found; see `find_stamp`.

    Raises
    ------
    OutputError
        If the output or the journal cannot be written, or another run has begun to write it.
    """

    def __init__(
        self,
        output: Output,
        report: RunReport,
        earlier: Sequence[EarlierFile | None],
        before: Stamp | None,
    ) -> None:
        self._output, self._report, self._earlier, self._before = output, report, earlier, before
        self._n_done = 0
        self._has_new = False
        self._has_ended = False
        self._is_amid = False  # the rows of a file: some may be written, but not counted
        target = output.target
        if target != STDOUT:
            find_unfinished(Path(target))  # another run may have begun to write it since
        self._check_unchanged()
        self._writer = open_writer(
            target, output.format, report.info, overwrite=output.overwrite or output.resume
        )
        self._journal = None
        if target != STDOUT:
            is_there = output.unfinished or os.path.exists(target)
            replaces = output.overwrite and bool(is_there)
            try:
                self._journal = Journal(self._writer, report.info, replaces=replaces)
            except BaseException:
                self._writer.discard()  # without a journal, no run could resume it
                raise

    def in_one_piece(self) -> AbstractContextManager[None]:
        """Delay interrupts while a file is written.

        Not on standard output, where a reader may take its time and no run resumes.
        """
        return nullcontext() if self._journal is None else delay_interrupts()

    def keep(self) -> None:
        """Copy the rows that an earlier run left of the next file, if any."""
        earlier = self._earlier[self._n_done]
        self._is_amid = True
        if earlier is not None:
            self._writer.copy(earlier.read_rows())
            self._note(self._report.keep(earlier.entry))
        self._n_done += 1
        self._is_amid = False

    def put(self, result: FileResult, turns_sha256: str | None) -> FileResult:
        """Write the rows of the next file; if it cannot be read now, keep those of an earlier run.

        Parameters
        ----------
        result
            Result of the file in this run.
        turns_sha256
            Hash of the segments and speakers given for the file, if any.

        Returns
        -------
        FileResult
            The result, with a warning if rows were kept.
        """
        earlier = self._earlier[self._n_done]
        self._is_amid = True
        if earlier is None or not earlier.outlasts(result):
            self._writer.write(result)
            self._note(self._report.add(result, turns_sha256))
        else:
            rows = format_count(earlier.entry["n_segments"], "segment")
            result = replace(result, warnings=(*result.warnings, KEPT.format(rows)))
            told = describe_file(result)
            failed = {**earlier.entry, **{name: told[name] for name in OF_A_FAILURE}}
            self._writer.copy(earlier.read_rows(), failed)
            self._note(self._report.keep(failed, failed=True))
        self._n_done += 1
        self._has_new = True
        self._is_amid = False
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        # An interrupt could leave an output without its record.
        with self.in_one_piece(), self._journal or nullcontext():
            if self._has_ended:
                return
            self._has_ended = True
            is_broken = isinstance(error, OutputError) or (self._is_amid and self._has_new)
            if self._journal is None or error is None or (self._has_new and not is_broken):
                self._complete(error)
            elif is_broken:
                self._leave(error)
            else:
                self._discard()

    def _complete(self, error: BaseException | None) -> None:
        """Put the output in its place, write the record, and remove what a resumed run would need.

        Rows of an earlier run must not be lost, whatever ended this one.
        """
        is_done = error is None and self._n_done == len(self._earlier)
        try:
            while self._n_done < len(self._earlier):
                self.keep()
            self._check_unchanged()
            self._writer.finish()
        except BaseException as another:
            self._leave(another)
            raise
        self._report.completed = is_done
        if self._journal is not None and self._write_record(error, self._writer.sha256):
            for one in self._output.unfinished:
                one.remove()
            # Last, as until then it shows that older ones are superseded.
            self._journal.remove()

    def _leave(self, error: BaseException | None) -> None:
        """Leave the output and its journal to a run that resumes.

        If there is no output because it could not be written, a record tells so.
        """
        self._writer.leave()
        is_lost = isinstance(error, OutputError) and not os.path.exists(self._output.target)
        if is_lost and self._journal is not None:
            self._write_record(error, None)

    def _discard(self) -> None:
        """Remove the output and its journal."""
        if self._journal is not None:
            self._journal.remove()  # first, as without its rows it would be taken for another's
        self._writer.discard()

    def _write_record(self, error: BaseException | None, digest: str | None) -> bool:
        """Write the run record beside the output, whose SHA-256 is `digest`.

        Returns whether it was written. Without it, a run can resume from the journal.
        """
        target = Path(self._output.target)
        record = record_path(target)
        is_new = not os.path.exists(record)
        try:
            write_json(record, self._report.record(digest))
            if is_new:
                copy_mode(target, record)
        except OutputError:
            if error is None or isinstance(error, KeyboardInterrupt):
                raise  # otherwise the first error says more
            return False
        return True

    def _check_unchanged(self) -> None:
        """Raise if the output was changed since the rows of earlier runs were found."""
        if self._output.resume:
            check_stamp(self._output.target, self._before, find_stamp(self._output.target))

    def _note(self, entry: dict[str, Any]) -> None:
        entry["rows"] = self._writer.place
        if self._journal is not None:
            self._journal.note(entry)
