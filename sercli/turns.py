"""Stretches of recordings that somebody marked: a table of them, or the turns of a diarisation."""

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from sercli.errors import ConfigError
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
    """

    path: Path
    by_recording: Mapping[Path | str, tuple[Turn, ...]] = field(repr=False)
    local: bool = False

    @classmethod
    def read(cls, path: Path, *needed: str) -> Self:
        """Read a table or a diarisation.

        Parameters
        ----------
        path
            A CSV file (or TSV, by its suffix) with the column file and any of channel, start, end
            and speaker; its paths are relative to its folder or, if nothing is there, to where the
            program runs, as in the output of `ser annotate`. Or a diarisation in RTTM, which names
            recordings without suffix.
        needed
            Columns that a table must have, too.

        Raises
        ------
        ConfigError
            If it is none of these, or a time is no number of seconds.
        """
        found: dict[Path | str, list[Turn]] = {}
        read = _read_diarisation if path.suffix.lower() == RTTM else _read_table
        try:
            for key, turn in read(path, needed):
                found.setdefault(key, []).append(turn)
        except (OSError, UnicodeError, ValueError, csv.Error) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from error
        turns_of = {key: tuple(turns) for key, turns in found.items()}
        return cls(path, turns_of, read is _read_diarisation)

    def find(self, recording: str) -> tuple[Turn, ...]:
        """Return the turns of a recording, by its path; there may be none."""
        key = self._find_key(recording)
        return () if key is None else self.by_recording[key]

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


def _read_diarisation(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[str, Turn]]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            fields = line.split()
            if not fields or fields[0] != "SPEAKER":
                continue
            if len(fields) < RTTM_FIELDS:
                raise ValueError(
                    f"a turn is {line.strip()!r}; expected {RTTM_FIELDS} fields or more"
                )
            place = repr(line.strip())
            start, duration = _parse(fields[3], place), _parse(fields[4], place)
            speaker = None if fields[7] == UNKNOWN else fields[7]
            # Channels are counted from 1 there, and most diarisations name 1 of a mix, too.
            yield fields[1], _check(Turn(start, start + duration, None, speaker), place)


def _read_table(path: Path, needed: tuple[str, ...]) -> Iterator[tuple[Path, Turn]]:
    expected = ("file", *needed)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == TSV else ",")
        names = reader.fieldnames or ()
        if not set(expected) <= set(names):
            raise ConfigError(
                f"{path}: has the columns {', '.join(names) or 'none'}; expected "
                f"{', '.join(expected)}, and any of channel, start, end and speaker"
            )
        for row in reader:
            place = f"line {reader.line_num}"
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
