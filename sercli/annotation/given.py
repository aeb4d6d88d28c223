"""Segments and speakers that are given for the recordings of a run."""

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple, Self

from sercli.speech.matching import Match, match_turns
from sercli.speech.speakers import Speakers
from sercli.speech.turns import Turns


class Given(NamedTuple):
    """Segments and speakers that are given for the recordings of a run.

    Parameters
    ----------
    segments
        Segments of each recording, or None if they are to be found.
    speakers
        Speakers of each recording, or None if they are unknown or are those of the segments.
    """

    segments: Match | None = None
    speakers: Match | None = None

    @classmethod
    def match(
        cls, segments: Turns | None, speakers: Speakers | None, recordings: Sequence[str]
    ) -> Self:
        """Match all recordings of a run to the given segments and speakers.

        Parameters
        ----------
        segments, speakers
            Segments and speakers of recordings, if given.
        recordings
            Paths of all recordings of the run.

        Raises
        ------
        ConfigError
            If it is unclear which belong to a recording; see `sercli.speech.matching.match_turns`.
        """
        return cls(
            None if segments is None else match_turns(segments, recordings),
            None if speakers is None else speakers.match(recordings),
        )

    def hash(self, recording: str) -> str | None:
        """Return a hash of the turns of a recording, to see whether they have changed.

        None if no turns are given; a pattern of speakers is a setting of the whole run.

        Parameters
        ----------
        recording
            Path of the recording.
        """
        turns = [one.find(recording) for one in self if one is not None and one.source is not None]
        return sha256(repr(turns).encode(errors="backslashreplace")).hexdigest() if turns else None
