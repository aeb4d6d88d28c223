"""Who speaks when in which recording: by its name, a table, or the turns of a diarisation."""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from sercli.errors import ConfigError

RTTM = ".rttm"
# Fields of a turn: type, file, channel, start, duration, and the speaker after two more.
RTTM_FIELDS = 8


class Turn(NamedTuple):
    """A stretch of a recording in which somebody speaks.

    Parameters
    ----------
    speaker
        Who speaks.
    channel
        As results name it, or None: any.
    start, end
        In seconds.
    """

    speaker: str
    channel: str | None = None
    start: float = -math.inf
    end: float = math.inf


@dataclass(frozen=True)
class Speakers:
    """Tells who speaks in a segment of a recording.

    Parameters
    ----------
    pattern
        Searched for in a path, with ``/`` between its parts; its first group is the speaker.
    turns
        By resolved path, or by the name without suffix: who speaks when.
    """

    pattern: re.Pattern[str] | None = None
    turns: Mapping[Path | str, list[Turn]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a table or a diarisation if there is a file of this name; else it is a pattern.

        Parameters
        ----------
        text
            The path of a CSV file with the columns file and speaker, and channel, or start and end
            in seconds, where several speak in a recording; its paths are relative to its folder.
            Or of a diarisation in RTTM, which names recordings without suffix. Or a regular
            expression with one group, such as ``([0-9]{4})_``.

        Raises
        ------
        ConfigError
            If it is none of these.
        """
        path = Path(text)
        if path.is_file():
            turns: dict[Path | str, list[Turn]] = {}
            for key, turn in _read(path):
                turns.setdefault(key, []).append(turn)
            return cls(turns=turns)
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise ConfigError(
                f"speakers are {text!r}: no such file, and no regular expression ({error})"
            ) from error
        if pattern.groups != 1:
            raise ConfigError(
                f"speakers are {text!r}: no such file, and a regular expression with "
                f"{pattern.groups} groups; expected one, which is the speaker: '([0-9]{{4}})_'"
            )
        return cls(pattern)

    def find(self, path: str, channel: str, start: float, end: float) -> str | None:
        """Return who speaks for most of a segment, or None if that is not known.

        Parameters
        ----------
        path
            Of the recording.
        channel
            As results name it.
        start, end
            Of the segment, in seconds.
        """
        if self.pattern is not None:
            found = self.pattern.search(Path(path).as_posix())
            return found[1] if found else None
        place = Path(path)
        turns = self.turns.get(place.resolve()) or self.turns.get(place.stem, [])
        spoken: dict[str, float] = {}
        for turn in turns:
            overlap = min(end, turn.end) - max(start, turn.start)
            if overlap > 0 and turn.channel in (None, channel):
                spoken[turn.speaker] = spoken.get(turn.speaker, 0.0) + overlap
        return max(spoken, key=lambda speaker: spoken[speaker]) if spoken else None


def _read(path: Path) -> Iterator[tuple[Path | str, Turn]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() == RTTM:
                for line in file:
                    fields = line.split()
                    if fields and fields[0] == "SPEAKER":
                        yield _parse_turn(fields)
                return
            reader = csv.DictReader(file)
            names = reader.fieldnames or ()
            if not {"file", "speaker"} <= set(names):
                raise ConfigError(
                    f"{path}: has the columns {', '.join(names) or 'none'}; expected file and "
                    "speaker, and channel, or start and end, where a recording has several speakers"
                )
            for row in reader:
                if row["speaker"]:
                    yield (path.parent / row["file"]).resolve(), _parse_row(row)
    except (OSError, UnicodeError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _parse_turn(fields: list[str]) -> tuple[str, Turn]:
    if len(fields) < RTTM_FIELDS:
        raise ValueError(f"a turn is {' '.join(fields)!r}; expected {RTTM_FIELDS} fields or more")
    start, duration = float(fields[3]), float(fields[4])
    # Channels are counted from 1 there, and most diarisations name 1 of a mix, too.
    return fields[1], Turn(fields[7], None, start, start + duration)


def _parse_row(row: Mapping[str, str]) -> Turn:
    start, end = row.get("start"), row.get("end")
    return Turn(
        row["speaker"],
        row.get("channel") or None,
        float(start) if start else -math.inf,
        float(end) if end else math.inf,
    )
