"""Receivers of progress reports of a training."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sercli.training.networks.loop import TrainingProgress


class Watcher:
    """Receiver of progress reports; its methods do nothing, subclasses override them."""

    def extract(self, n_done: int, n_clips: int) -> None:
        """Receive the number of clips whose features were extracted, and of all clips."""

    def search(self, n_done: int, n_recordings: int) -> None:
        """Receive the number of unlabelled recordings that were searched for speech, and of all."""

    def vary(self, n_done: int, n_segments: int) -> None:
        """Receive the number of segments of which there are varied versions, and of all."""

    def begin(self, name: str, *, apart: bool = False) -> None:
        """Receive the name of a network whose training starts or resumes.

        With `apart`, it is not one of the networks counted by `sercli.training.plan.Plan`.
        """

    def report(self, progress: "TrainingProgress") -> None:
        """Receive the progress after every step and at the end of every epoch."""


class ExtractionWatcher(Watcher):
    """Watcher that forwards reports of extracted features to another, and ignores all others.

    Parameters
    ----------
    other
        Watcher that receives the reports.
    """

    def __init__(self, other: Watcher) -> None:
        self._other = other

    def extract(self, n_done: int, n_clips: int) -> None:
        """Forward the report."""
        self._other.extract(n_done, n_clips)
