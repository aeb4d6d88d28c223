"""A file that was read and scored: its pieces, which become its segments."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sercli.annotation.recording import CUT_S, Piece, Recording
from sercli.arrays import DoubleArray, split_by
from sercli.config import Adaptation
from sercli.schema import FileResult
from sercli.speech.speakers import Timeline
from sercli.speech.turn import Turn

# Value of `adapt` with one group for all segments of a run, and the name of that group.
CORPUS = "corpus"


class ScoredFile(NamedTuple):
    """File with the model's probabilities for each of its pieces.

    Parameters
    ----------
    result
        Result of the file, without its segments.
    pieces
        One row per piece, of the data type `find_piece_type`.
    channels, ends
        Names of the selected channels, and their ends in seconds.
    turns
        Given turns at which the file was cut; empty if there are none.
    speakers
        Given speakers over time.
    """

    result: FileResult
    pieces: NDArray[Any]
    channels: tuple[str, ...] = ()
    ends: tuple[float, ...] = ()
    turns: Sequence[Turn] = ()
    speakers: Timeline = Timeline()

    @classmethod
    def gather(
        cls, recording: Recording, probabilities: DoubleArray, speakers: Iterable[Turn]
    ) -> Self:
        """Return a recording that was read to its end, with the probabilities of its pieces.

        Parameters
        ----------
        recording
            The recording.
        probabilities
            Probabilities of each piece by itself, shape (n_pieces, n_labels).
        speakers
            Given turns of its speakers; empty if there are none.
        """
        pieces = np.empty(len(probabilities), find_piece_type(probabilities.shape[1]))
        for place, piece in enumerate(recording.pieces):
            pieces[place] = (*piece, probabilities[place])
        return cls(
            recording.result,
            pieces,
            recording.channels,
            recording.ends,
            recording.turns or (),
            Timeline(speakers, alone=recording.result.channels == 1),
        )

    def find_speaker(self, piece: np.void) -> str | None:
        """Return the speaker of a piece, or None if unknown."""
        channel, start, end = self.channels[piece["channel"]], piece["start"], piece["end"]
        if found := self.speakers.find(channel, float(start), float(end)):
            return found
        return self.turns[piece["turn"]].speaker if self.turns else None

    def find_group(self, adapt: Adaptation, piece: np.void) -> tuple[str, bool]:
        """Return the name of the group of a piece, and whether it is that of a speaker.

        Parameters
        ----------
        adapt
            Kind of group.
        piece
            One of the pieces.
        """
        path = self.result.path
        if adapt == CORPUS:
            return CORPUS, False
        if adapt == "speaker" and (speaker := self.find_speaker(piece)):
            return speaker, True
        name = f"{path}#{self.channels[piece['channel']]}" if adapt == "channel" else path
        return name, False

    def join(self) -> Self:
        """Return the file with one piece per turn, or per channel if there are no turns.

        Its probabilities are the mean of those of its parts, weighted by speech.
        """
        parts = split_by(self.pieces[["channel", "turn"]])
        joined = [self._join_one(self.pieces[own]) for own in parts]
        return self._replace(pieces=np.array(joined, self.pieces.dtype))

    def _join_one(self, parts: NDArray[Any]) -> np.void:
        end = self.ends[parts["channel"][0]]
        whole, speech = parts[0].copy(), parts["speech"]
        whole["start"], whole["end"], whole["speech"] = 0.0, end, speech.sum()
        if self.turns:
            # The times as given, not as rounded to samples.
            turn = self.turns[whole["turn"]]
            whole["start"] = turn.start
            whole["end"] = turn.end if turn.end <= end + CUT_S else end
        whole["probabilities"] = speech @ parts["probabilities"] / speech.sum()
        joined: np.void = whole
        return joined


def find_piece_type(n_labels: int) -> np.dtype[Any]:
    """Return the data type of a piece: its fields as in `Piece`, and its probabilities.

    Parameters
    ----------
    n_labels
        Number of labels of the model.
    """
    return np.dtype(
        {
            "names": (*Piece._fields, "probabilities"),
            "formats": ("i4", "f8", "f8", "f8", "i4", (np.float64, (n_labels,))),
        }
    )
