"""What `ser annotate` does with results: writes, counts and shows them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sercli.cli.console import Progress
from sercli.journal import Journal
from sercli.report import RunReport
from sercli.resuming import Earlier
from sercli.schema import FileResult
from sercli.text import format_count, format_duration
from sercli.writers import Writer


class View:
    """Counts results, and tells the progress of a run.

    Parameters
    ----------
    report
        In which they are counted.
    progress
        Where it is shown.
    verbose
        Say what became of each file.
    quiet
        Say nothing but errors.
    """

    def __init__(
        self, report: RunReport, progress: Progress, *, verbose: bool, quiet: bool
    ) -> None:
        self.report = report
        self._progress = progress
        self._verbose = verbose
        self._quiet = quiet
        self._seconds = 0.0

    def heard(self, seconds: float) -> None:
        """Show that so much more audio was heard."""
        self._seconds += seconds
        self._progress.advance(0, self._note())

    def heard_file(self) -> None:
        """Show that one more file was heard."""
        self._progress.advance(1, self._note())

    def done(self, result: FileResult) -> dict[str, Any]:
        """Count a file, say what a user should know of it, and return what the record has of it."""
        entry = self.report.add(result)
        if result.error is not None:
            self._progress.say(f"failed: {result.error}")
        elif self._verbose:
            what = f"{result.status}, {format_count(len(result.segments), 'segment')}"
            self._progress.say(f"{result.path}: {what}, {format_duration(result.duration)}")
        for warning in () if self._quiet else result.warnings:
            self._progress.say(f"{result.path}: {warning}")
        return entry

    def _note(self) -> str:
        speed = self.report.speed(self._seconds)
        return f"{self._seconds / 3600:.2f} h of audio, {speed:.0f}x real time"


def write_all(
    results: Iterator[FileResult],
    kept: Sequence[Mapping[str, Any] | None],
    earlier: Earlier,
    writer: Writer,
    view: View,
    journal: Journal | None,
) -> None:
    """Write what is new and what is kept, in the order of the inputs.

    Parameters
    ----------
    results
        Of inputs of which nothing is kept; they may end early.
    kept
        Of each input, what the record of a run before has of it, or None.
    earlier
        That run.
    writer, view
        Where they go.
    journal
        Told of each file, if there is one.
    """
    n_written = 0

    def note(entry: Mapping[str, Any]) -> None:
        if journal is not None:
            journal.note(entry, writer.n_bytes)

    def keep(entry: Mapping[str, Any]) -> None:
        writer.copy(earlier.read_rows(entry))
        view.report.keep(entry)
        note(entry)

    try:
        for entry in kept:
            if entry is not None:
                n_written += 1
                keep(entry)
                continue
            result = next(results, None)
            if result is None:
                break
            n_written += 1
            writer.write(result)
            note(view.done(result))
    finally:
        # However it ended: what there was before must not be lost.
        for entry in kept[n_written:]:
            if entry is not None:
                keep(entry)
