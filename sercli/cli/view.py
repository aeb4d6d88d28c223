"""Views of progress: of a run for `ser annotate`, of networks for `ser train`."""

from time import monotonic
from typing import TYPE_CHECKING

from sercli.annotation.run import RunWatcher
from sercli.cli.console import PROGRESS_INTERVAL_S, Progress, join_lines
from sercli.output.report import RunReport
from sercli.schema import FileResult
from sercli.text import format_count, format_duration
from sercli.training.watcher import Watcher

if TYPE_CHECKING:
    from sercli.training.networks.loop import TrainingProgress


class View(RunWatcher):
    """Shows the progress of a run.

    Parameters
    ----------
    report
        Report of the run.
    progress
        Bar or lines to show it with.
    verbose
        Whether to print a line for each file.
    quiet
        Whether to print only errors.
    """

    def __init__(
        self, report: RunReport, progress: Progress, *, verbose: bool, quiet: bool
    ) -> None:
        self._report = report
        self._progress = progress
        self._verbose = verbose
        self._quiet = quiet
        self._seconds = 0.0

    def decoded(self, seconds: float) -> None:
        """Show that more seconds of audio were decoded."""
        self._seconds += seconds
        self._progress.advance(0, self._note())

    def file_scored(self) -> None:
        """Show that one more file was scored."""
        self._progress.advance(1, self._note())

    def done(self, result: FileResult) -> None:
        """Print the error or warnings of a file, and with `verbose` its status."""
        if result.error is not None:
            self._say(f"failed: {result.error}")
        elif self._verbose:
            what = f"{result.status}, {format_count(len(result.segments), 'segment')}"
            self._say(f"{result.path}: {what}, {format_duration(result.duration)}")
        for warning in () if self._quiet else result.warnings:
            self._say(f"{result.path}: {warning}")

    def _say(self, message: str) -> None:
        self._progress.say(join_lines(message))

    def _note(self) -> str:
        speed = self._report.speed(self._seconds)
        return f"{self._seconds / 3600:.2f} h of audio, {speed:.0f}x real time"


class TrainingView(Watcher):
    """Shows the progress of training networks: a bar on a terminal, else a line per epoch.

    Parameters
    ----------
    progress
        Bar or lines to show it with.
    n_networks
        Number of networks, from which the remaining time is estimated.
    """

    def __init__(self, progress: Progress, n_networks: int) -> None:
        self._progress = progress
        self._n_networks = n_networks
        self._name = ""
        self._n_begun = self._place = 0
        self._n_all = n_networks
        self._started = self._share = self._skipped = 0.0
        self._said = monotonic()

    def search(self, n_done: int, n_recordings: int) -> None:
        """Show how many of the unlabelled recordings were searched for speech."""
        self._show("recordings searched", n_done, n_recordings)

    def vary(self, n_done: int, n_segments: int) -> None:
        """Show of how many unlabelled segments there are versions with another prosody."""
        self._show("segments varied", n_done, n_segments)

    def extract(self, n_done: int, n_clips: int) -> None:
        """Show for how many clips features were extracted."""
        self._show("clips with features", n_done, n_clips)

    def _show(self, title: str, n_done: int, n_all: int) -> None:
        self._progress.show(title, n_done, n_all, "")
        if not self._progress.has_bar and monotonic() - self._said >= PROGRESS_INTERVAL_S:
            self._said = monotonic()
            self._progress.say(f"{n_done}/{n_all} {title}")

    def begin(self, name: str, *, apart: bool = False) -> None:
        """Note that the training of a network starts or resumes.

        Parameters
        ----------
        name
            Name of the network.
        apart
            Whether it is not one of the `n_networks`.
        """
        # A network apart is timed by itself: its time says nothing about that of the others.
        self._n_all, self._place = (1, 0) if apart else (self._n_networks, self._n_begun)
        self._n_begun += not apart
        self._name = f"{name}: " if apart or self._n_networks > 1 else ""
        if self._place == 0:
            self._started = monotonic()
            self._share = self._skipped = 0.0
        self._is_first = True

    def report(self, at: "TrainingProgress") -> None:
        """Show a step, or the end of an epoch."""
        of_network = (at.epoch - 1 + at.step / at.n_steps) / at.n_epochs
        share = (self._place + of_network) / self._n_all
        if self._is_first:  # steps restored from a checkpoint took no time in this run
            self._skipped += share - self._share
            self._is_first = False
        self._share = share
        title = f"{self._name}epoch {at.epoch}/{at.n_epochs}"
        note = f"loss {at.loss:.3f}"
        if at.dev_uar is not None and at.best_uar is not None:
            note += f", development UAR {at.dev_uar:.3f} (best {at.best_uar:.3f})"
        if self._skipped < share < 1:
            left = (monotonic() - self._started) / (share - self._skipped) * (1 - share)
            note += f", {format_duration(left)} left"
        if at.ends_epoch and not self._progress.has_bar:
            self._progress.say(f"{title}, {note}")
        self._progress.show(title, at.step, at.n_steps, note)
