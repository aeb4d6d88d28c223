"""Groups of segments that share a baseline, and the files that wait until theirs are complete."""

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import get_args

from sercli.adaptation import Adapter
from sercli.annotation.scored import ScoredFile
from sercli.annotation.spool import RowStore
from sercli.arrays import DoubleArray
from sercli.classifiers.base import Classifier
from sercli.config import Adaptation, Target
from sercli.errors import ConfigError
from sercli.schema import MIX, Group


def choose_adaptation(
    adapt: Adaptation,
    classifier: Classifier,
    target: Target,
    channels: str | tuple[int, ...],
    *,
    tells_speakers: bool,
) -> Adaptation:
    """Return the kind of group that shares a baseline, with ``"auto"`` resolved.

    Parameters
    ----------
    adapt, target
        As in `sercli.annotate`.
    classifier
        The model.
    channels
        Selected channels, from `sercli.annotation.recording.parse_channels`.
    tells_speakers
        Whether speakers were given.

    Raises
    ------
    ConfigError
        If `adapt` is not valid, the model has no adapter for it, or speakers are missing.
    """
    if adapt not in get_args(Adaptation):
        raise ConfigError(f"adapt is {adapt!r}; expected one of {', '.join(get_args(Adaptation))}")
    if adapt == "auto":
        usual: Adaptation = "recording" if channels == MIX else "channel"
        return classifier.resolve_adaptation(adapt, target, usual)
    if adapt != "none":
        classifier.find_adapter(target)
    if adapt == "speaker" and not tells_speakers:
        raise ConfigError(
            "adapt is 'speaker', but the speakers are not known; expected a table or pattern of "
            "speakers, or segments with speakers"
        )
    return adapt


class WaitingFiles:
    """Scored files, and the groups of their pieces.

    Parameters
    ----------
    adapter
        Adapter that rescores the pieces of a group.
    store
        Store of the pieces that wait.
    adapt
        Kind of group, see `choose_adaptation`.
    """

    def __init__(self, adapter: Adapter, store: RowStore, adapt: Adaptation) -> None:
        self._adapter, self._store, self._adapt = adapter, store, adapt
        self._files: list[tuple[ScoredFile, range, frozenset[tuple[str, bool]]]] = []
        # A speaker may have the name of a file whose speaker is unknown.
        self._members: dict[tuple[str, bool], array[int]] = {}

    def add(self, scored: ScoredFile) -> None:
        """Add a scored file."""
        numbers = self._store.append(scored.pieces)
        keys = [scored.find_group(self._adapt, piece) for piece in scored.pieces]
        for key, number in zip(keys, numbers, strict=True):
            self._members.setdefault(key, array("q")).append(number)
        waiting = scored._replace(pieces=scored.pieces[:0].copy())
        self._files.append((waiting, numbers, frozenset(keys)))

    def rescore(self) -> Iterator[ScoredFile]:
        """Rescore all groups with their baselines, yield the files in order, and forget them."""
        groups: dict[tuple[str, bool], Group] = {}
        for key, members in self._members.items():
            self._adapter.rescore(_Members(self._store, members))
            adapted = len(members) >= self._adapter.settings.least
            groups[key] = Group(key[0], len(members), adapted)
        for scored, numbers, keys in self._files:
            result = replace(scored.result, groups=tuple(groups[key] for key in sorted(keys)))
            yield scored._replace(result=result, pieces=self._store.read(numbers))
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
