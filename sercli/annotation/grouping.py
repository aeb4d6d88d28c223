"""Files that wait until their groups are complete, to be rescored with baselines."""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sercli.adaptation import Adapter
from sercli.annotation.spool import RowStore
from sercli.arrays import DoubleArray
from sercli.schema import FileResult, Group
from sercli.speech.speakers import Timeline
from sercli.speech.turn import Turn


class Heard(NamedTuple):
    """File with the model's probabilities for each of its pieces by itself.

    Parameters
    ----------
    result
        Result of the file, without its segments.
    pieces
        One row per piece, of `sercli.annotation.annotator.Annotator.piece_type`: channel, start and
        end in seconds, seconds of speech, turn, and probabilities.
    channels, ends
        Names of the selected channels, and their ends in seconds.
    turns
        Given turns at which the file was cut; empty if there are none.
    speakers
        Given speakers over time.
    """

    result: FileResult
    pieces: NDArray[Any]
    channels: tuple[str, ...] = ()
    ends: tuple[float, ...] = ()
    turns: Sequence[Turn] = ()
    speakers: Timeline = Timeline()


# Returns the name of the group of a file's piece.
NameGroup = Callable[[Heard, np.void], str]


class WaitingFiles:
    """Scored files, and the groups of their pieces.

    Parameters
    ----------
    adapter
        Adapter that rescores the pieces of a group.
    store
        Store of the pieces that wait.
    name_group
        Function that returns the name of a piece's group.
    """

    def __init__(self, adapter: Adapter, store: RowStore, name_group: NameGroup) -> None:
        self._adapter, self._store, self._name_group = adapter, store, name_group
        self._files: list[tuple[Heard, range, frozenset[str]]] = []
        self._members: dict[str, array[int]] = {}

    def add(self, heard: Heard) -> None:
        """Add a scored file."""
        numbers = self._store.append(heard.pieces)
        names = [self._name_group(heard, piece) for piece in heard.pieces]
        for name, number in zip(names, numbers, strict=True):
            self._members.setdefault(name, array("q")).append(number)
        waiting = heard._replace(pieces=heard.pieces[:0].copy())
        self._files.append((waiting, numbers, frozenset(names)))

    def judge(self) -> Iterator[Heard]:
        """Rescore all groups with their baselines, yield the files in order, and forget them."""
        groups: dict[str, Group] = {}
        for name, members in self._members.items():
            self._adapter.rescore(_Members(self._store, members))
            adapted = len(members) >= self._adapter.settings.least
            groups[name] = Group(name, len(members), adapted)
        for heard, numbers, names in self._files:
            result = replace(heard.result, groups=tuple(groups[name] for name in sorted(names)))
            yield heard._replace(result=result, pieces=self._store.read(numbers))
        self._files, self._members = [], {}
        self._store.clear()


class _Members:
    """Probabilities of the pieces of a group in the store, read slice by slice.

    Parameters
    ----------
    store
        Store of all pieces that wait.
    numbers
        Numbers of the pieces of the group, in rising order.
    """

    def __init__(self, store: RowStore, numbers: Sequence[int]) -> None:
        self._store, self._numbers = store, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, part: slice) -> DoubleArray:
        probabilities: DoubleArray = self._store.read(self._numbers[part])["probabilities"]
        return probabilities

    def __setitem__(self, part: slice, probabilities: DoubleArray) -> None:
        pieces = self._store.read(self._numbers[part])
        pieces["probabilities"] = probabilities
        self._store.write(self._numbers[part], pieces)
