"""Files that wait until all of their groups were heard, to be judged by their baselines."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sercli.adaptation import Adapter
from sercli.annotation.spool import RowStore
from sercli.schema import FileResult, Group
from sercli.speech.turns import Turn


class Heard(NamedTuple):
    """What the model makes of each piece of a file by itself.

    Parameters
    ----------
    result
        The file, without its segments.
    pieces
        Their channel, start and end in seconds, seconds of speech, and probabilities.
    channels, ends
        Names of the channels that are judged, and where they end, in seconds.
    turns
        That it was cut at, if they were told.
    """

    result: FileResult
    pieces: NDArray[Any]
    channels: tuple[str, ...] = ()
    ends: tuple[float, ...] = ()
    turns: Sequence[Turn] = ()


# From a piece of a file to the name of its group.
NameGroup = Callable[[Heard, np.void], str]


class WaitingFiles:
    """Files that were heard, and the groups that their pieces are of.

    Parameters
    ----------
    adapter
        That judges groups.
    store
        Where pieces wait.
    name_group
        Tells of which group a piece is.
    """

    def __init__(self, adapter: Adapter, store: RowStore, name_group: NameGroup) -> None:
        self._adapter, self._store, self._name_group = adapter, store, name_group
        self._files: list[tuple[Heard, range, frozenset[str]]] = []
        self._members: dict[str, array[int]] = {}

    def add(self, heard: Heard) -> None:
        """Take a file."""
        numbers = self._store.append(heard.pieces)
        names = [self._name_group(heard, piece) for piece in heard.pieces]
        for name, number in zip(names, numbers, strict=True):
            self._members.setdefault(name, array("q")).append(number)
        waiting = heard._replace(pieces=heard.pieces[:0].copy())
        self._files.append((waiting, numbers, frozenset(names)))

    def judge(self) -> Iterator[Heard]:
        """Judge all groups by their baselines, and give the files, in their order."""
        groups: dict[str, Group] = {}
        for name, members in self._members.items():
            pieces = self._store.read(members)
            pieces["probabilities"] = self._adapter.adapt(pieces["probabilities"])
            self._store.write(members, pieces)
            adapted = len(members) >= self._adapter.settings.least
            groups[name] = Group(name, len(members), adapted)
        for heard, numbers, names in self._files:
            result = replace(heard.result, groups=tuple(groups[name] for name in sorted(names)))
            yield heard._replace(result=result, pieces=self._store.read(numbers))
        self._files, self._members = [], {}
        self._store.clear()
