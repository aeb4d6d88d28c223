"""Speakers of segments, from the names of recordings, a table or a diarisation."""

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Self

from sercli.errors import ConfigError
from sercli.speech.grids import is_grid
from sercli.speech.matching import Match, match_turns
from sercli.speech.turn import Turn
from sercli.speech.turns import Turns


class Timeline:
    """Speakers of a recording over time, found by bisection of its turns.

    Parameters
    ----------
    turns
        Turns in any order; those of unknown speakers are left out.
    """

    def __init__(self, turns: Iterable[Turn] = ()) -> None:
        self._turns = sorted((one for one in turns if one.speaker), key=lambda one: one.start)
        self._starts = [one.start for one in self._turns]
        # Latest end of each turn and all before it, which never falls: bisection finds the first
        # turn that may reach into a segment.
        self._ends = list(accumulate((one.end for one in self._turns), max))

    def find(self, channel: str, start: float, end: float, *, alone: bool = False) -> str | None:
        """Return the speaker of most of a segment, or None if that is unknown.

        Parameters
        ----------
        channel
            Name of the channel in the results.
        start, end
            Start and end of the segment in seconds.
        alone
            Whether the recording has only one channel, which is also its mix.
        """
        spoken: dict[str, float] = {}
        reached: dict[str, float] = {}
        for turn in self._turns[bisect_right(self._ends, start) : bisect_left(self._starts, end)]:
            if not (turn.is_of(channel, alone=alone) and turn.speaker):
                continue
            # Turns of one speaker may overlap, such as those heard in both channels of a call.
            first = max(start, turn.start, reached.get(turn.speaker, start))
            if (overlap := min(end, turn.end) - first) > 0:
                spoken[turn.speaker] = spoken.get(turn.speaker, 0.0) + overlap
                reached[turn.speaker] = min(end, turn.end)
        return max(spoken, key=lambda speaker: spoken[speaker]) if spoken else None


@dataclass(frozen=True)
class Speakers:
    """Source of the speakers of recordings.

    Parameters
    ----------
    source
        Turns with speakers. Or a regular expression, searched for in the path of a recording with
        ``/`` between its parts; its only group is the speaker.

    Raises
    ------
    ConfigError
        If it is neither, or the expression has not one group.
    """

    source: re.Pattern[str] | Turns

    def __post_init__(self) -> None:
        """Check that the source is one."""
        if isinstance(self.source, Turns):
            return
        if not isinstance(self.source, re.Pattern):
            raise ConfigError(
                f"speakers are {self.source!r}; expected turns or a compiled regular expression "
                "(Speakers.parse reads a text)"
            )
        if self.source.groups != 1:
            raise ConfigError(
                f"speakers are {self.source.pattern!r}: no such file, and a regular expression "
                f"with {self.source.groups} groups; expected one, which is the speaker: "
                "'([0-9]{4})_'"
            )

    @property
    def spelled(self) -> str | None:
        """The pattern as text, or None if there are turns."""
        return self.source.pattern if isinstance(self.source, re.Pattern) else None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a table or a diarisation if there is a file of this name, else compile a pattern.

        Parameters
        ----------
        text
            Path of a CSV file with the columns file and speaker, and with channel, or start and end
            in seconds, where a recording has several speakers; or path of a diarisation in RTTM;
            see `sercli.speech.turns.Turns.read`. Otherwise a regular expression with one group,
            such as ``([0-9]{4})_``.

        Raises
        ------
        ConfigError
            If it is none of these.
        """
        if os.path.isfile(text):  # does not fail on a pattern that is too long for a path
            if is_grid(Path(text)):
                raise ConfigError(
                    f"{text}: is a TextGrid; expected a table or a diarisation. Tiers give the "
                    "speakers only if they are the segments, too (--segments, --tier)"
                )
            return cls(Turns.read(text, "speaker"))
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise ConfigError(
                f"speakers are {text!r}: no such file, and no regular expression ({error})"
            ) from error
        return cls(pattern)

    def match(self, recordings: Iterable[str]) -> Match:
        """Return the turns, with their speakers, of each recording.

        Parameters
        ----------
        recordings
            Paths of all recordings of the run.

        Raises
        ------
        ConfigError
            If a recording may have the turns of several; see `sercli.speech.matching.match_turns`.
        """
        if isinstance(self.source, Turns):
            return match_turns(self.source, recordings)
        found = {one: self.source.search(Path(one).as_posix()) for one in recordings}
        return Match({one: (Turn(speaker=it[1]),) if it else () for one, it in found.items()})
