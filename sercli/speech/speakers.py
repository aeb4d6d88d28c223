"""Speakers of segments, from the names of recordings, a table or a diarisation."""

import math
import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from sercli.errors import ConfigError
from sercli.speech.grids import is_grid
from sercli.speech.matching import Match, match_turns
from sercli.speech.turn import Turn
from sercli.speech.turns import Turns


class Timeline:
    """Speakers of a recording over time, found by bisection of the turns of each.

    Parameters
    ----------
    turns
        Turns in any order; those of unknown speakers are left out.
    alone
        Whether the recording has only one channel, which is also its mix.
    """

    def __init__(self, turns: Iterable[Turn] = (), *, alone: bool = False) -> None:
        self._turns = sorted((one for one in turns if one.speaker), key=lambda one: one.start)
        self._alone = alone
        self._spans: dict[str, dict[str, _Spans]] = {}  # by channel and speaker

    def find(self, channel: str, start: float, end: float) -> str | None:
        """Return the speaker of most of a segment, or None if that is unknown.

        Parameters
        ----------
        channel
            Name of the channel in the results.
        start, end
            Start and end of the segment in seconds.
        """
        spans = self._spans.get(channel)
        if spans is None:
            spans = self._spans[channel] = {}
            for turn in self._turns:
                if turn.speaker and turn.is_of(channel, alone=self._alone):
                    spans.setdefault(turn.speaker, _Spans([], [])).add(turn)
        # Of two with equal shares, the one who speaks first.
        spoken, _, speaker = max(
            ((*one.overlap(start, end), speaker) for speaker, one in spans.items()),
            key=lambda found: found[:2],
            default=(0.0, 0.0, None),
        )
        return speaker if spoken > 0 else None


class _Spans(NamedTuple):
    """Where one speaker speaks: starts and ends in rising order, of spans that do not overlap."""

    starts: list[float]
    ends: list[float]

    def add(self, turn: Turn) -> None:
        """Add a turn that starts no earlier than those before it.

        Turns of one speaker may overlap, such as those heard in both channels of a call.
        """
        if self.ends and turn.start < self.ends[-1]:
            self.ends[-1] = max(self.ends[-1], turn.end)
        else:
            self.starts.append(turn.start)
            self.ends.append(turn.end)

    def overlap(self, start: float, end: float) -> tuple[float, float]:
        """Return the seconds spoken in a segment, and minus the start of the first span there."""
        inside = range(bisect_right(self.ends, start), bisect_left(self.starts, end))
        overlap = sum(min(end, self.ends[at]) - max(start, self.starts[at]) for at in inside)
        return overlap, -self.starts[inside.start] if inside else -math.inf


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
            in seconds, where a recording has several speakers; or with channel and speaker alone,
            for every recording with several channels; or path of a diarisation in RTTM; see
            `sercli.speech.turns.Turns.read`. Otherwise a regular expression with one group, such as
            ``([0-9]{4})_``.

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
