"""Who is told how far a training is."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sercli.training.networks.loop import TrainingProgress


class Watcher:
    """Is told how far a training is; what is to be done about it, a subclass does."""

    def hear(self, n_done: int, n_clips: int) -> None:
        """Be told how many of the clips an encoder has heard."""

    def search(self, n_done: int, n_recordings: int) -> None:
        """Be told how many of the recordings that nobody labelled were searched for speech."""

    def begin(self, name: str, *, apart: bool = False) -> None:
        """Be told that a network begins, or goes on; there may be several, and one apart."""

    def report(self, progress: "TrainingProgress") -> None:
        """Be told of every step and the end of every epoch."""


class Listener(Watcher):
    """Is told how many of the clips an encoder has heard, and tells another; of nothing else.

    Parameters
    ----------
    other
        Who is told.
    """

    def __init__(self, other: Watcher) -> None:
        self._other = other

    def hear(self, n_done: int, n_clips: int) -> None:
        """Pass it on."""
        self._other.hear(n_done, n_clips)
