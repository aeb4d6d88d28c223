"""A limit of the whole process that several runs may set at the same time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

Undo = Callable[[], object]


class SharedLimit:
    """Limit that is kept while anyone holds it; then the state before the first holder returns.

    Parameters
    ----------
    apply
        Function that sets the limit, and returns a function that restores the previous state.
    """

    def __init__(self, apply: Callable[[int], Undo]) -> None:
        self._apply = apply
        self._lock = Lock()
        self._n_holders = 0
        self._undo: Undo = lambda: None

    @contextmanager
    def hold(self, limit: int) -> Iterator[None]:
        """Hold a limit within the block; of several, the last one set counts.

        Parameters
        ----------
        limit
            Value of the limit.
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
