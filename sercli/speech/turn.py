"""A turn: a stretch of a recording, which may have a channel and a speaker."""

import math
from typing import NamedTuple

from sercli.schema import MIX

# Columns of a table with the times of turns.
TIMES = ("start", "end")


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
