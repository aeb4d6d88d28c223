"""A resource that several threads use at the same time, or one of them alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Room:
    """A resource such as the memory of a GPU.

    Who waits to use it alone goes before those who would share it.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._n_inside = 0
        self._is_reserved = False

    @contextmanager
    def enter(self, *, alone: bool) -> Iterator[None]:
        """Use it within the block.

        Parameters
        ----------
        alone
            Whether nobody else may use it meanwhile.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._is_reserved)
            self._is_reserved = alone
            self._n_inside += 1
        try:
            if alone:
                with self._changed:
                    self._changed.wait_for(lambda: self._n_inside == 1)
            yield
        finally:
            with self._changed:
                self._n_inside -= 1
                if alone:
                    self._is_reserved = False
                self._changed.notify_all()
