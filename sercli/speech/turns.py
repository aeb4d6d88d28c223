"""Stretches of recordings that somebody marked: in a table, a diarisation, or TextGrids."""

import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from io import StringIO
from pathlib import Path
from reprlib import repr as shorten
from typing import NamedTuple, Self

from sercli.delimited import MOST_SECONDS, parse_count, parse_seconds, read_table
from sercli.errors import ConfigError
from sercli.files import find_file
from sercli.schema import MIX, printable_path
from sercli.speech.grids import is_grid, read_grids
from sercli.text import compose, list_spellings

# Columns that segments need.
TIMES = ("start", "end")

RTTM = ".rttm"
# Fields of a turn: type, file, channel, start, duration, and the speaker after two more.
RTTM_FIELDS = 8
# A byte that is no text, see `sercli.schema.printable_path`.
ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
# What stands in a diarisation for what is not known.
UNKNOWN = "<NA>"


class Turn(NamedTuple):
    """A stretch of a recording.

    Parameters
    ----------
    start, end
        In seconds.
    channel
        As results name it, or None: any.
    speaker
        Who speaks, or None: that is not known.
    """

    start: float = -math.inf
    end: float = math.inf
    channel: str | None = None
    speaker: str | None = None

    def is_of(self, channel: str, *, alone: bool = False) -> bool:
        """Tell whether it is of a channel.

        Parameters
        ----------
        channel
            As results name it.
        alone
            Whether the recording has no other, so that it is its mix, too.
        """
        return self.channel in (None, channel) or (alone and self.channel == MIX)


@dataclass(frozen=True)
class Turns:
    """The turns of recordings.

    Parameters
    ----------
    path
        Where they were read.
    by_recording
        By resolved path, or by the name with or without suffix, which folders may come before, in
        the order of the file.
    local
        Whether a speaker's name is that of one person within a recording only, as a diarisation
        has it.
    sha256
        Of the file.
    lines
        Of a diarisation: where each name is first.
    """

    path: Path
    by_recording: Mapping[Path | str, tuple[Turn, ...]] = field(repr=False)
    local: bool = False
    sha256: str = ""
    lines: Mapping[Path | str, int] = field(default_factory=dict, repr=False)
    # Recordings that are known to be one of those that are named, or none.
    _told_apart: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @classmethod
    def read(cls, path: str | os.PathLike[str], *needed: str, tiers: Sequence[str] = ()) -> Self:
        """Read a table, a diarisation or TextGrids.

        Parameters
        ----------
        path
            A table (see `sercli.delimited.read_table`) with the column file and any of channel,
            start, end and speaker; its paths are relative to its folder or, if nothing is there,
            to where the program runs, as in the output of `ser annotate`. Or a diarisation in
            RTTM, which names recordings with or without suffix. Or a TextGrid of Praat, or a folder
            of them, each named as its recording, and laid out as these where several have one name
            (as `sercli.export_labels` does it): their intervals that have a text.
        needed
            Columns that a table must have, too.
        tiers
            Of TextGrids, each of which is what one speaker says, where there are several; without
            any, each grid is to have one tier of intervals.

        Raises
        ------
        ConfigError
            If it is none of these, a time is no number of seconds, a recording is that of two
            speakers throughout, or a grid lacks the tiers.
        """
        path = Path(path)
        if is_grid(path):
            return cls._read_grids(path, tiers)
        if tiers:
            raise ConfigError(f"{path}: has no tiers; expected a TextGrid, or a folder of them")
        found: dict[Path | str, list[Turn]] = {}
        lines: dict[Path | str, int] = {}
        is_local = path.suffix.lower() == RTTM
        try:
            content = path.read_bytes()  # once: it may be a pipe
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        if is_local:
            for number, name, turn in _read_diarisation(path, content):
                found.setdefault(name, []).append(turn)
                lines.setdefault(name, number)
        else:
            for place, turn in _read_table(path, content, needed):
                found.setdefault(place, []).append(turn)
        if is_local and not found:
            raise ConfigError(f"{path}: has no turns; expected lines that begin with SPEAKER")
        turns_of = {key: tuple(turns) for key, turns in found.items()}
        return cls(path, turns_of, is_local, hashlib.sha256(content).hexdigest(), lines)

    @classmethod
    def _read_grids(cls, path: Path, tiers: Sequence[str]) -> Self:
        try:
            grids, sha256 = read_grids(path, tiers)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        for recording, intervals in grids.items():
            for one in intervals:
                if not max(-one.start, one.end) <= MOST_SECONDS:  # also true for NaN
                    raise ConfigError(
                        f"{path}: has an interval of {recording} from {one.start:g} to "
                        f"{one.end:g} s; expected times up to {MOST_SECONDS:g} s"
                    )
        # Also of grids without any: their recordings are not those of others of the name.
        found: dict[Path | str, tuple[Turn, ...]] = {
            recording: tuple(
                Turn(
                    one.start,
                    one.end,
                    None,
                    _name_speaker(recording, one.tier) if len(tiers) > 1 else None,
                )
                for one in intervals
            )
            for recording, intervals in grids.items()
        }
        return cls(path, found, True, sha256)

    def find(self, recording: str, *, mixed: bool = False) -> tuple[Turn, ...]:
        """Return the turns of a recording; there may be none.

        Parameters
        ----------
        recording
            Its path.
        mixed
            Whether its channels are judged as one: what a diarisation tells of each is then told of
            that. (A table may have rows of the mix and of channels.)
        """
        key = self._find_key(recording)
        turns = () if key is None else self.by_recording[key]
        if not self.local:
            return turns
        # Most diarisations are of a mix, and name a channel all the same.
        if mixed or len({turn.channel for turn in turns}) == 1:
            return tuple(turn._replace(channel=None) for turn in turns)
        return turns

    def find_others(self, recordings: Iterable[str]) -> list[str]:
        """Return what it has turns of besides some recordings, as it names it, sorted.

        Parameters
        ----------
        recordings
            Their paths.
        """
        known = {self._find_key(recording) for recording in recordings}
        others = (key for key, turns in self.by_recording.items() if turns and key not in known)
        return sorted(printable_path(str(key)) for key in others)

    def find_shared(self, recordings: Iterable[str]) -> list[str]:
        """Return what it has turns of that are taken for several of some recordings, sorted.

        Parameters
        ----------
        recordings
            Their paths.
        """
        counts = Counter(self._find_key(recording) for recording in recordings)
        shared = (key for key, n in counts.items() if n > 1 and key and self.by_recording[key])
        return sorted(printable_path(str(key)) for key in shared)

    def refuse_ambiguous(self, recordings: Sequence[str]) -> None:
        """Refuse a recording that may be several of those that it names.

        They have other folders, or the one its suffix and the other none.

        Parameters
        ----------
        recordings
            Paths of all. Where one of those is found by its folders, another of its name is none;
            a name without suffix is that of one with another suffix, if there is any. What was told
            apart among more of them stays so.

        Raises
        ------
        ConfigError
            If there is such a recording.
        """
        keys = {recording: self._find_key(recording) for recording in recordings}
        found = {*keys.values()}
        for recording, key in keys.items():
            if recording in self._told_apart:
                continue
            if isinstance(key, str):
                twin = _find_twin(recording, key)
                if self.by_recording.get(twin) and twin not in found:
                    raise ConfigError(
                        f"{self.path}: {recording} may be {self._tell(key)} or {self._tell(twin)}; "
                        "expected one name of each recording"
                    )
            for name in () if key is not None else _list_own_names(recording):
                meant = self._named.get(name, [])
                if meant and found.isdisjoint(meant):
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

    def _find_key(self, recording: str) -> Path | str | None:
        found = next((key for key in _keys(recording) if key in self.by_recording), None)
        if found is not None:
            return found
        # It lies elsewhere: its name tells it, if a single one has that.
        alike = (self._named.get(name, []) for name in _list_own_names(recording))
        return next((keys[0] for keys in alike if len(keys) == 1), None)

    @cached_property
    def _named(self) -> Mapping[str, list[str]]:
        """Those that are not known by a path of their own, by their names without folders."""
        named: dict[str, list[str]] = {}
        for key in self.by_recording:
            if isinstance(key, str):
                named.setdefault(key.rpartition("/")[2], []).append(key)
        return named

    @property
    def tells_speakers(self) -> bool:
        """Whether it is known of any turn who speaks."""
        return any(turn.speaker for turns in self.by_recording.values() for turn in turns)


def _resolve(path: str | os.PathLike[str]) -> Path:
    # Unlike `Path.resolve`, it does not fail on a loop of links.
    return Path(os.path.realpath(path))


def _keys(recording: str) -> Iterator[Path | str]:
    """Give by what the turns of a recording are found: its path, or the end of it.

    The longest comes first, and each with its suffix before it is without.
    """
    yield from map(Path, list_spellings(str(_resolve(recording))))
    folders = Path(os.path.abspath(recording)).parts[1:-1]
    for first in range(len(folders) + 1):
        for name in _list_own_names(recording):
            yield "/".join((*map(compose, folders[first:]), name))


def _list_own_names(recording: str) -> tuple[str, str]:
    path = Path(os.path.abspath(recording))
    return compose(path.name), compose(path.stem)


def _find_twin(recording: str, key: str) -> str:
    """Return by what a recording could be found in the place of its key: that has no suffix, or it.

    They are one where the recording has none.
    """
    name, stem = _list_own_names(recording)
    folders, slash, own = key.rpartition("/")
    return f"{folders}{slash}{stem if own == name else name}"


def _read_diarisation(path: Path, content: bytes) -> Iterator[tuple[int, str, Turn]]:
    """Give the turns, each with its line and what it is of."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no UTF-8: {error}; expected RTTM in UTF-8") from error
    for number, line in enumerate(StringIO(text, newline=""), start=1):
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        where = f"{path}, line {number}"
        if len(fields) < RTTM_FIELDS:
            raise ConfigError(
                f"{where}: a turn is {line.strip()!r}; expected {RTTM_FIELDS} fields or more"
            )
        start, duration = (
            parse_seconds(field, f"{where}: {name}", ConfigError)
            for name, field in zip(("start", "duration"), fields[3:5], strict=True)
        )
        channel = _name_channel(fields[2], where)
        name = compose(fields[1])
        speaker = None if fields[7] == UNKNOWN else _name_speaker(name, compose(fields[7]))
        yield number, name, Turn(start, start + duration, channel, speaker)


def _name_speaker(recording: str, name: str) -> str:
    """Return a name that no speaker of another recording has: there, the same is somebody else."""
    return f"{recording}/{name}"


def _name_channel(text: str, where: str) -> str | None:
    """Return the channel that a diarisation means, as results name it, or None: any."""
    try:
        is_below = float(text) < 1
    except ValueError:
        is_below = False
    # Counted from 1 there: from 0, each would be taken for the one before.
    if is_below:
        raise ConfigError(
            f"{where}: channel is {shorten(text)}; expected a number from 1 on, as RTTM counts "
            f"them, or {UNKNOWN}"
        )
    index = parse_count(text)
    return None if index is None else str(index - 1)


def _read_table(path: Path, content: bytes, needed: Sequence[str]) -> Iterator[tuple[Path, Turn]]:
    expected = ("file", *needed)
    # What `ser annotate` writes where nobody speaks has a header alone.
    table = read_table(path, ConfigError, content, may_be_empty={*TIMES} <= {*needed})
    if not set(expected) <= set(table.columns):
        raise ConfigError(
            f"{path}: has the columns {', '.join(filter(None, table.columns))}; expected "
            f"{', '.join(expected)}, and any of channel, start, end and speaker"
        )
    whole: dict[Path, dict[str | None, str]] = {}
    for where, cells in table.rows:
        empty = [name for name in ("file", *TIMES) if name in expected and not cells[name]]
        if empty:
            raise ConfigError(f"{where}: has no {empty[0]}; expected one")
        start, end = (
            parse_seconds(cells[name], f"{where}: {name}", ConfigError)
            if cells.get(name)
            else missing
            for name, missing in zip(TIMES, (-math.inf, math.inf), strict=True)
        )
        # What has no length is said to be too short where it matters; diarisations have such turns.
        if start > end:
            raise ConfigError(
                f"{where}: starts at {start:g} s and ends at {end:g} s; expected no end before the "
                "start"
            )
        channel, speaker = (cells.get(name, "").strip() or None for name in ("channel", "speaker"))
        turn = Turn(start, end, channel, speaker and compose(speaker))
        key = _find_file(path.parent, cells["file"])
        if turn[:2] == Turn()[:2]:
            _refuse_second(where, whole.setdefault(key, {}), turn)
        yield key, turn


def _refuse_second(where: str, known: dict[str | None, str], turn: Turn) -> None:
    """Refuse a second speaker of all of a recording, or of all of its channel."""
    if turn.speaker is None:
        return
    channels = known if turn.channel is None else (turn.channel, None)
    others = {known.get(channel) for channel in channels} - {None, turn.speaker}
    if others:
        raise ConfigError(
            f"{where}: {turn.speaker} speaks throughout, and by a row before {others.pop()} does; "
            "expected a single speaker, or the times or the channel of each"
        )
    known[turn.channel] = turn.speaker


# A table has many rows of one file.
@lru_cache(maxsize=1)
def _find_file(folder: Path, name: str) -> Path:
    # As the output of a run has it: from where that was, and with bytes that are no text escaped,
    # by which no other name is meant there.
    plain = os.fsdecode(ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(name)))
    places = ((folder, plain), (Path(), plain), (folder, name), (Path(), name))
    return _resolve(next(filter(None, (find_file(*place) for place in places)), folder / name))
