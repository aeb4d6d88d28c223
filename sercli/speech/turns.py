"""Turns of recordings, given in a table, a diarisation or TextGrids."""

import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Self

from sercli.errors import ConfigError
from sercli.schema import printable_path
from sercli.speech.grids import is_grid, read_grids
from sercli.speech.rttm import SUFFIX, read_rttm
from sercli.speech.turn import Turn
from sercli.speech.turn_tables import read_turn_table
from sercli.text import compose, list_spellings


@dataclass(frozen=True)
class Turns:
    """The turns of recordings.

    Parameters
    ----------
    path
        Path of the file or folder that they were read from.
    by_recording
        Turns of each recording in the order of the file. A key is a real path; if `local`, a name
        with or without suffix, after folders if any.
    local
        Whether they name recordings by their names and speakers within a recording, as
        diarisations and TextGrids do, and not by paths and across recordings, as tables do.
    sha256
        SHA-256 digest of the file; of TextGrids, of all of them and the names of the tiers.
    lines
        Line at which each name first appears in a diarisation.
    """

    path: Path
    by_recording: Mapping[str, tuple[Turn, ...]] = field(repr=False)
    local: bool = False
    sha256: str = ""
    lines: Mapping[str, int] = field(default_factory=dict, repr=False)
    # Recordings for which it is clear which turns are theirs, if any; and those that have none, as
    # the only turns of their name are of another recording.
    _told_apart: set[str] = field(default_factory=set, init=False, repr=False, compare=False)
    _without: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *needed: str, tiers: Sequence[str] = ()) -> Self:
        """Read a table, a diarisation or TextGrids.

        Parameters
        ----------
        path
            A table (see `sercli.delimited.read_table`) with the column file and any of channel,
            start, end and speaker; its paths are relative to its folder or, if there is no such
            file, to the working directory, as in the output of `ser annotate`. Or a diarisation in
            RTTM, which names recordings with or without suffix. Or a TextGrid of Praat, or a folder
            of them, of which the intervals with a text are read; each is named after its recording,
            in the same subfolders where several recordings have one name, as written by
            `sercli.export_labels`.
        needed
            Columns that a table must have in addition to file.
        tiers
            Names of the tiers of TextGrids to read. If there are several, each is taken for a
            speaker; without any, each grid must have exactly one interval tier.

        Raises
        ------
        ConfigError
            If it is none of these, a time is no number of seconds, a recording has two speakers
            throughout, or a grid lacks the tiers.
        """
        path = Path(path)
        if is_grid(path):
            grids, sha256 = read_grids(path, tiers)
            return cls(path, grids, True, sha256)
        if tiers:
            raise ConfigError(f"{path}: has no tiers; expected a TextGrid, or a folder of them")
        try:
            content = path.read_bytes()  # once: it may be a pipe
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        sha256 = hashlib.sha256(content).hexdigest()
        if path.suffix.lower() == SUFFIX:
            named, lines = read_rttm(path, content)
            return cls(path, named, True, sha256, lines)
        return cls(path, read_turn_table(path, content, needed), sha256=sha256)

    def find(self, recording: str, *, mixed: bool = False) -> tuple[Turn, ...]:
        """Return the turns of a recording, possibly none.

        Parameters
        ----------
        recording
            Path of the recording.
        mixed
            Whether its channels are mixed down: the turns of a diarisation then apply to the mix,
            whatever their channels. (A table may have rows of the mix and of channels.)
        """
        key = self._find_key(recording)
        turns = () if key is None else self.by_recording[key]
        if mixed and self.local:
            return tuple(turn._replace(channel=None) for turn in turns)
        return turns

    def find_others(self, recordings: Iterable[str]) -> list[str]:
        """Return the names, sorted, that have turns but match none of some recordings.

        Parameters
        ----------
        recordings
            Paths of the recordings.
        """
        known = {self._find_key(recording) for recording in recordings}
        others = (key for key, turns in self.by_recording.items() if turns and key not in known)
        return sorted(printable_path(key) for key in others)

    def find_shared(self, recordings: Iterable[str]) -> list[str]:
        """Return the names, sorted, whose turns are used for more than one recording.

        Parameters
        ----------
        recordings
            Paths of the recordings.
        """
        counts = Counter(self._find_key(recording) for recording in recordings)
        shared = (key for key, n in counts.items() if n > 1 and key and self.by_recording[key])
        return sorted(printable_path(key) for key in shared)

    def refuse_ambiguous(self, recordings: Sequence[str]) -> None:
        """Raise if a recording matches several names, and it is not clear which is meant.

        Such names differ in their folders, or one has a suffix and the other has none.

        Parameters
        ----------
        recordings
            Paths of all recordings. If one of the names matches another recording, by its folders
            or because that has another suffix, there is no doubt. Recordings that passed an earlier
            call are not checked again.

        Raises
        ------
        ConfigError
            If there is such a recording.
        """
        exact = {recording: self._find_exact(recording) for recording in recordings}
        taken = _list_last_names(exact.values())
        for recording, key in exact.items():
            if key is None and not taken.isdisjoint(_list_own_names(recording)):
                self._without.add(recording)
        keys = {recording: self._find_key(recording) for recording in recordings}
        found, found_names = {*keys.values()}, _list_last_names(keys.values())
        for recording, key in keys.items():
            if recording in self._told_apart or recording in self._without:
                continue
            if self.local and key is not None:
                twin = _find_twin(recording, key)
                if self.by_recording.get(twin) and twin not in found:
                    raise ConfigError(
                        f"{self.path}: {recording} may be {self._tell(key)} or {self._tell(twin)}; "
                        "expected one name of each recording"
                    )
            meant = [] if key is not None else self._find_alike(recording)
            if meant and found_names.isdisjoint(_list_own_names(recording)):
                raise ConfigError(
                    f"{self.path}: {recording} may be {meant[0]} or {meant[1]}; expected the "
                    "recordings in folders of these names, or names of their own"
                )
        self._told_apart.update(keys)

    def _tell(self, name: str) -> str:
        return f"{name} (line {self.lines[name]})" if name in self.lines else name

    @property
    def tells_times(self) -> bool:
        """Whether every turn has a start and an end."""
        turns = (turn for some in self.by_recording.values() for turn in some)
        return all(math.isfinite(turn.end - turn.start) for turn in turns)

    def _find_key(self, recording: str) -> str | None:
        if recording in self._without:
            return None
        found = self._find_exact(recording)
        if found is not None:
            return found
        # In other folders than those named: its name alone decides, if it is unique.
        alike = self._find_alike(recording)
        return alike[0] if len(alike) == 1 else None

    def _find_exact(self, recording: str) -> str | None:
        """Return the key of a recording by its path or the end of it, or None."""
        keys = _list_names(recording) if self.local else _list_paths(recording)
        return next((key for key in keys if key in self.by_recording), None)

    def _find_alike(self, recording: str) -> Sequence[str]:
        """Return the keys in any folder with the name of a recording, with or without suffix."""
        full, stem = (self._named.get(name, []) for name in _list_own_names(recording))
        # Without suffix, both are the same list.
        return full if full is stem or not stem else stem if not full else [*full, *stem]

    @cached_property
    def _named(self) -> Mapping[str, list[str]]:
        """Keys of `by_recording` that are no paths, by their names without folders."""
        named: dict[str, list[str]] = {}
        for key in self.by_recording if self.local else ():
            named.setdefault(key.rpartition("/")[2], []).append(key)
        return named

    @property
    def tells_speakers(self) -> bool:
        """Whether any turn has a speaker."""
        return any(turn.speaker for turns in self.by_recording.values() for turn in turns)


def _list_paths(recording: str) -> list[str]:
    # Unlike `Path.resolve`, this does not fail on a loop of links.
    return list_spellings(os.path.realpath(recording))


def _list_names(recording: str) -> Iterator[str]:
    """Yield the names that a recording may have: the ends of its path.

    The longest comes first; each with its suffix comes before the same without.
    """
    folders = Path(os.path.abspath(recording)).parts[1:-1]
    for first in range(len(folders) + 1):
        for name in _list_own_names(recording):
            yield "/".join((*map(compose, folders[first:]), name))


def _list_own_names(recording: str) -> tuple[str, str]:
    path = Path(os.path.abspath(recording))
    return compose(path.name), compose(path.stem)


def _list_last_names(keys: Iterable[str | None]) -> set[str]:
    """Return the names in keys that are no paths, without folders."""
    return {key.rpartition("/")[2] for key in keys if key is not None}


def _find_twin(recording: str, key: str) -> str:
    """Return the key of a recording without suffix if `key` has one, otherwise with it.

    Both are the same if the recording has no suffix.
    """
    name, stem = _list_own_names(recording)
    folders, slash, own = key.rpartition("/")
    return f"{folders}{slash}{stem if own == name else name}"
