"""What `ser annotate` shows of a run."""

from sercli.cli.console import Progress
from sercli.report import RunReport
from sercli.run import RunWatcher
from sercli.schema import FileResult
from sercli.text import format_count, format_duration


class View(RunWatcher):
    """Tells the progress of a run.

    Parameters
    ----------
    report
        Of the run.
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
        self._report = report
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

    def done(self, result: FileResult) -> None:
        """Say what a user should know of a file."""
        if result.error is not None:
            self._progress.say(f"failed: {result.error}")
        elif self._verbose:
            what = f"{result.status}, {format_count(len(result.segments), 'segment')}"
            self._progress.say(f"{result.path}: {what}, {format_duration(result.duration)}")
        for warning in () if self._quiet else result.warnings:
            self._progress.say(f"{result.path}: {warning}")

    def _note(self) -> str:
        speed = self._report.speed(self._seconds)
        return f"{self._seconds / 3600:.2f} h of audio, {speed:.0f}x real time"
