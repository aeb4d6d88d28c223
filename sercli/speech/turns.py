"""Turns of recordings, given in a table, a diarisation or TextGrids."""

import codecs
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from io import StringIO
from pathlib import Path
from reprlib import repr as shorten
from typing import Any, NamedTuple, Self

from sercli.delimited import MOST_SECONDS, Row, Table, parse_count, parse_seconds, read_table
from sercli.errors import ConfigError
from sercli.files import find_listed, parse_json
from sercli.schema import MIX, printable_path
from sercli.speech.grids import is_grid, read_grids
from sercli.text import compose, list_spellings

# Columns that a table of segments must have.
TIMES = ("start", "end")

RTTM = ".rttm"
# Fields of a turn: type, file, channel, start, duration, and the speaker after two more.
RTTM_FIELDS = 8
# Unknown values in a diarisation.
UNKNOWN = "<NA>"


class Turn(NamedTuple):
    """A stretch of a recording, by default the whole.

    Parameters
    ----------
    start, end
        Times in seconds.
    channel
        Name of the channel in the results, or None for all channels.
    speaker
        Name of the speaker, or None if unknown.
    """

    start: float = -math.inf
    end: float = math.inf
    channel: str | None = None
    speaker: str | None = None

    def is_of(self, channel: str, *, alone: bool = False) -> bool:
        """Return whether the turn applies to a channel.

        Parameters
        ----------
        channel
            Name of the channel in the results.
        alone
            Whether the recording has only this channel, which is then also its mix.
        """
        return self.channel in (None, channel) or (alone and self.channel == MIX)


@dataclass(frozen=True)
class Turns:
    """The turns of recordings.

    Parameters
    ----------
    path
        Path of the file or folder that they were read from.
    by_recording
        Turns of each recording in the order of the file. A key is a resolved path (table), or a
        name with or without suffix, after folders if any (diarisation, TextGrids).
    local
        Whether a name stands for the same speaker within a recording only, as in a diarisation.
    sha256
        SHA-256 digest of the file; of TextGrids, of all of them and the names of the tiers.
    lines
        Line at which each name first appears in a diarisation.
    """

    path: Path
    by_recording: Mapping[Path | str, tuple[Turn, ...]] = field(repr=False)
    local: bool = False
    sha256: str = ""
    lines: Mapping[Path | str, int] = field(default_factory=dict, repr=False)
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
        # Grids without intervals are kept, so that their recordings match no other of that name.
        found: dict[Path | str, tuple[Turn, ...]] = {
            recording: tuple(
                Turn(
                    one.start,
                    one.end,
                    one.channel,
                    _name_speaker(recording, one.tier) if len(tiers) > 1 else one.speaker,
                )
                for one in intervals
            )
            for recording, intervals in grids.items()
        }
        return cls(path, found, True, sha256)

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
        if not self.local:
            return turns
        # Most diarisations are made from a mix, but name a channel nevertheless.
        is_diarisation = bool(self.lines)
        if mixed or (is_diarisation and len({turn.channel for turn in turns}) == 1):
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
        return sorted(printable_path(str(key)) for key in others)

    def find_shared(self, recordings: Iterable[str]) -> list[str]:
        """Return the names, sorted, whose turns are used for more than one recording.

        Parameters
        ----------
        recordings
            Paths of the recordings.
        """
        counts = Counter(self._find_key(recording) for recording in recordings)
        shared = (key for key, n in counts.items() if n > 1 and key and self.by_recording[key])
        return sorted(printable_path(str(key)) for key in shared)

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
            if isinstance(key, str):
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

    def _find_key(self, recording: str) -> Path | str | None:
        if recording in self._without:
            return None
        found = self._find_exact(recording)
        if found is not None:
            return found
        # In other folders than those named: its name alone decides, if it is unique.
        alike = self._find_alike(recording)
        return alike[0] if len(alike) == 1 else None

    def _find_exact(self, recording: str) -> Path | str | None:
        """Return the key of a recording by its path or the end of it, or None."""
        return next((key for key in _keys(recording) if key in self.by_recording), None)

    def _find_alike(self, recording: str) -> Sequence[str]:
        """Return the keys in any folder with the name of a recording, with or without suffix."""
        full, stem = (self._named.get(name, []) for name in _list_own_names(recording))
        # Without suffix, both are the same list.
        return full if full is stem or not stem else stem if not full else [*full, *stem]

    @cached_property
    def _named(self) -> Mapping[str, list[str]]:
        """Keys of `by_recording` that are no paths, by their names without folders."""
        named: dict[str, list[str]] = {}
        for key in self.by_recording:
            if isinstance(key, str):
                named.setdefault(key.rpartition("/")[2], []).append(key)
        return named

    @property
    def tells_speakers(self) -> bool:
        """Whether any turn has a speaker."""
        return any(turn.speaker for turns in self.by_recording.values() for turn in turns)


def _resolve(path: str | os.PathLike[str]) -> Path:
    # Unlike `Path.resolve`, this does not fail on a loop of links.
    return Path(os.path.realpath(path))


def _keys(recording: str) -> Iterator[Path | str]:
    """Yield the keys that may hold the turns of a recording: its path and the ends of it.

    The longest comes first; each with its suffix comes before the same without.
    """
    yield from map(Path, list_spellings(str(_resolve(recording))))
    folders = Path(os.path.abspath(recording)).parts[1:-1]
    for first in range(len(folders) + 1):
        for name in _list_own_names(recording):
            yield "/".join((*map(compose, folders[first:]), name))


def _list_own_names(recording: str) -> tuple[str, str]:
    path = Path(os.path.abspath(recording))
    return compose(path.name), compose(path.stem)


def _list_last_names(keys: Iterable[Path | str | None]) -> set[str]:
    """Return the names in keys that are no paths, without folders."""
    return {key.rpartition("/")[2] for key in keys if isinstance(key, str)}


def _find_twin(recording: str, key: str) -> str:
    """Return the key of a recording without suffix if `key` has one, otherwise with it.

    Both are the same if the recording has no suffix.
    """
    name, stem = _list_own_names(recording)
    folders, slash, own = key.rpartition("/")
    return f"{folders}{slash}{stem if own == name else name}"


def _read_diarisation(path: Path, content: bytes) -> Iterator[tuple[int, str, Turn]]:
    """Yield the line number, the name of the recording and the turn, for each turn."""
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
    """Return the channel of a diarisation as results name it, or None for any."""
    try:
        is_below = float(text) < 1
    except ValueError:
        is_below = False
    # RTTM counts from 1: if counted from 0, each channel would be taken for the one before.
    if is_below:
        raise ConfigError(
            f"{where}: channel is {shorten(text)}; expected a number from 1 on, as RTTM counts "
            f"them, or {UNKNOWN}"
        )
    index = parse_count(text)
    return None if index is None else str(index - 1)


def _read_table(path: Path, content: bytes, needed: Sequence[str]) -> Iterator[tuple[Path, Turn]]:
    expected = ("file", *needed)
    # A table that `ser annotate` wrote of recordings without speech has only a header.
    is_empty = not content and path.suffix.lower() == ".jsonl"  # of a run that found no speech
    if is_empty or content.removeprefix(codecs.BOM_UTF8).startswith(b"{"):
        table = _read_results(path, content)
    else:
        table = read_table(path, ConfigError, content, may_be_empty={*TIMES} <= {*needed})
    if not set(expected) <= set(table.columns):
        others = [name for name in ("channel", *TIMES, "speaker") if name not in expected]
        raise ConfigError(
            f"{path}: has the columns {', '.join(filter(None, table.columns))}; expected "
            f"{', '.join(expected)}, and any of {', '.join(others)}"
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
        # Turns of length 0 are allowed, as diarisations have them, and reported as too short later.
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


def _read_results(path: Path, content: bytes) -> Table:
    """Read JSON or JSON Lines that `ser annotate` wrote, as a table."""
    columns = ("file", "channel", *TIMES, "speaker")

    def read() -> Iterator[Row]:
        try:
            document = parse_json(content.decode("utf-8-sig"))
        except ValueError:
            document = {}
        if "files" in document:
            for file in document["files"]:
                for segment in file["segments"]:
                    yield make(f"{path}: {file['path']}", {"file": file["path"], **segment})
            return
        # Of bytes: texts have more kinds of line ends, which may be within names.
        for number, line in enumerate(content.splitlines(), start=1):
            if line.strip():
                yield make(f"{path}, line {number}", parse_json(line.decode("utf-8-sig")))

    def make(where: str, values: Mapping[str, Any]) -> Row:
        found = {name: values.get(name) for name in columns}
        return Row(where, {name: "" if one is None else str(one) for name, one in found.items()})

    try:
        rows = [*read()]
        tells_speakers = any(row.cells["speaker"] for row in rows)
        return Table(columns if tells_speakers else columns[:-1], iter(rows))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: cannot be read: {error}; expected what `ser annotate` wrote, or a table"
        ) from error


def _refuse_second(where: str, known: dict[str | None, str], turn: Turn) -> None:
    """Raise if a whole recording, or a whole channel of it, has a second speaker."""
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


# Cached, as tables have many consecutive rows of one file.
@lru_cache(maxsize=1)
def _find_file(folder: Path, name: str) -> Path:
    return _resolve(find_listed(folder, name) or folder / name)
