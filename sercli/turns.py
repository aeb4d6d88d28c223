"""Stretches of recordings that somebody marked: in a table, a diarisation, or TextGrids."""

import csv
import hashlib
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import StringIO
from pathlib import Path
from typing import NamedTuple, Self

from sercli.errors import ConfigError
from sercli.grids import is_grid, read_grids
from sercli.schema import printable_path

# Columns that segments need.
TIMES = ("start", "end")

RTTM, TSV = ".rttm", ".tsv"
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


@dataclass(frozen=True)
class Turns:
    """The turns of recordings.

    Parameters
    ----------
    path
        Where they were read.
    by_recording
        By resolved path, or by the name without suffix, in the order of the file.
    local
        Whether a speaker's name is that of one person within a recording only, as a diarisation
        has it.
    sha256
        Of the file.
    """

    path: Path
    by_recording: Mapping[Path | str, tuple[Turn, ...]] = field(repr=False)
    local: bool = False
    sha256: str = ""

    @classmethod
    def read(cls, path: str | os.PathLike[str], *needed: str, tiers: Sequence[str] = ()) -> Self:
        """Read a table, a diarisation or TextGrids.

        Parameters
        ----------
        path
            A CSV file (or TSV, by its suffix) with the column file and any of channel, start, end
            and speaker; its paths are relative to its folder or, if nothing is there, to where the
            program runs, as in the output of `ser annotate`. Or a diarisation in RTTM, which names
            recordings without suffix. Or a TextGrid of Praat, or a folder of them, each named as
            its recording: their intervals that have a text.
        needed
            Columns that a table must have, too.
        tiers
            Of TextGrids, each of which is what one speaker says, where there are several; without
            any, each grid is to have one tier of intervals.

        Raises
        ------
        ConfigError
            If it is none of these, a time is no number of seconds, or a grid lacks the tiers.
        """
        path = Path(path)
        if is_grid(path):
            return cls._read_grids(path, tiers)
        if tiers:
            raise ConfigError(f"{path}: has no tiers; expected a TextGrid, or a folder of them")
        found: dict[Path | str, list[Turn]] = {}
        is_local = path.suffix.lower() == RTTM
        try:
            content = path.read_bytes()  # once: it may be a pipe
            text = StringIO(content.decode("utf-8-sig"), newline="")
            read = _read_diarisation(text) if is_local else _read_table(path, text, needed)
            for key, turn in read:
                found.setdefault(key, []).append(turn)
        except (OSError, UnicodeError, ValueError, csv.Error) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        if is_local and not found:
            raise ConfigError(f"{path}: has no turns; expected lines that begin with SPEAKER")
        turns_of = {key: tuple(turns) for key, turns in found.items()}
        return cls(path, turns_of, is_local, hashlib.sha256(content).hexdigest())

    @classmethod
    def _read_grids(cls, path: Path, tiers: Sequence[str]) -> Self:
        try:
            intervals, sha256 = read_grids(path, tiers)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        found: dict[Path | str, list[Turn]] = {}
        for one in intervals:
            speaker = one.tier if len(tiers) > 1 else None
            found.setdefault(one.recording, []).append(Turn(one.start, one.end, None, speaker))
        return cls(path, {key: tuple(turns) for key, turns in found.items()}, True, sha256)

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
        known = {key for recording in recordings for key in _keys(recording)}
        return sorted(printable_path(str(key)) for key in self.by_recording if key not in known)

    def find_shared(self, recordings: Iterable[str]) -> list[str]:
        """Return what it has turns of that are taken for several of some recordings, sorted.

        Parameters
        ----------
        recordings
            Their paths.
        """
        counts = Counter(self._find_key(recording) for recording in recordings)
        shared = (key for key, n in counts.items() if n > 1 and key is not None)
        return sorted(printable_path(str(key)) for key in shared)

    @property
    def tells_times(self) -> bool:
        """Whether every turn has a start and an end."""
        turns = (turn for some in self.by_recording.values() for turn in some)
        return all(math.isfinite(turn.end - turn.start) for turn in turns)

    def _find_key(self, recording: str) -> Path | str | None:
        return next((key for key in _keys(recording) if key in self.by_recording), None)

    @property
    def tells_speakers(self) -> bool:
        """Whether it is known of any turn who speaks."""
        return any(turn.speaker for turns in self.by_recording.values() for turn in turns)


def _resolve(path: str | os.PathLike[str]) -> Path:
    # Unlike `Path.resolve`, it does not fail on a loop of links.
    return Path(os.path.realpath(path))


def _keys(recording: str) -> tuple[Path | str, ...]:
    """Return by what the turns of a recording may be found: its path, or its name."""
    return (_resolve(recording), Path(recording).stem)


def _read_diarisation(text: Iterable[str]) -> Iterator[tuple[str, Turn]]:
    for line in text:
        fields = line.split()
        if not fields or fields[0] != "SPEAKER":
            continue
        if len(fields) < RTTM_FIELDS:
            raise ValueError(f"a turn is {line.strip()!r}; expected {RTTM_FIELDS} fields or more")
        place = repr(line.strip())
        start, duration = _parse(fields[3], place), _parse(fields[4], place)
        # Counted from 1 there.
        channel = str(int(fields[2]) - 1) if fields[2].isdecimal() else None
        speaker = None if fields[7] == UNKNOWN else fields[7]
        yield fields[1], _check(Turn(start, start + duration, channel, speaker), place)


def _read_table(
    path: Path, text: Iterable[str], needed: tuple[str, ...]
) -> Iterator[tuple[Path, Turn]]:
    expected = ("file", *needed)
    reader = csv.DictReader(
        text, delimiter="\t" if path.suffix.lower() == TSV else ",", strict=True
    )
    names = reader.fieldnames or ()
    if not set(expected) <= set(names):
        raise ConfigError(
            f"{path}: has the columns {', '.join(names) or 'none'}; expected "
            f"{', '.join(expected)}, and any of channel, start, end and speaker"
        )
    for row in reader:
        place = f"line {reader.line_num}"
        if None in row:
            raise ValueError(
                f"{place}: has {len(names) + len(row[None])} cells; expected {len(names)}"
            )
        empty = [name for name in ("file", "start", "end") if name in needed and not row[name]]
        if empty or not row["file"]:
            raise ValueError(f"{place}: has no {(*empty, 'file')[0]}; expected one")
        start, end = row.get("start"), row.get("end")
        turn = Turn(
            _parse(start, place) if start else -math.inf,
            _parse(end, place) if end else math.inf,
            row.get("channel") or None,
            row.get("speaker") or None,
        )
        yield _find_file(path.parent, row["file"]), _check(turn, place)


# A table has many rows of one file.
@lru_cache(maxsize=1)
def _find_file(folder: Path, name: str) -> Path:
    # As the output of a run has it: from where that was, and with bytes that are no text escaped.
    plain = os.fsdecode(ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), os.fsencode(name)))
    places = (folder / name, Path(name), folder / plain, Path(plain))
    return _resolve(next(filter(os.path.lexists, places), folder / name))


def _parse(text: str, place: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{place}: {text!r} is no time; expected seconds, 0 or more")
    return seconds


def _check(turn: Turn, place: str) -> Turn:
    # What has no length is said to be too short where it matters; diarisations have such turns.
    if not turn.start <= turn.end:
        raise ValueError(
            f"{place}: starts at {turn.start:g} s and ends at {turn.end:g} s; expected no end "
            "before the start"
        )
    return turn
