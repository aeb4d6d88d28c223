"""A limit of the whole process that several runs may hold at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

Undo = Callable[[], object]


class SharedLimit:
    """Keeps a limit while anybody holds it; then all is again as it was before the first did.

    Parameters
    ----------
    apply
        Sets the limit, and returns what undoes that.
    """

    def __init__(self, apply: Callable[[int], Undo]) -> None:
        self._apply = apply
        self._lock = Lock()
        self._n_holders = 0
        self._undo: Undo = lambda: None

    @contextmanager
    def hold(self, limit: int) -> Iterator[None]:
        """Hold the limit within the block; of several, the one that came last counts.

        Parameters
        ----------
        limit
            Its value.
        """
        with self._lock:
            undo = self._apply(limit)
            if not self._n_holders:
                self._undo = undo
            self._n_holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_holders -= 1
                if not self._n_holders:
                    self._undo()
