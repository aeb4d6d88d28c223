"""Clips as strangers might have said them, in other rooms and into other microphones.

What a frozen encoder makes of somebody's calm speech tells of the voice, the room and the
microphone; what it makes of other speech of theirs differs from that by the emotion. So the
difference of a clip from its speaker's calm clips, added to a stranger's calm speech, is about what
the encoder would make of the same emotion over there. Of strangers, nothing but calm speech is
needed, which is at hand anywhere, as actors who were told to be angry are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import FloatArray, IntArray, RealArray, split_by
from sercli.datasets.base import Clip, class_indices
from sercli.errors import ConfigError, DatasetError
from sercli.labels import CALM
from sercli.text import format_count

# Least and most of what is kept of the difference from what is calm: people show emotions more or
# less strongly.
CONTRAST = (0.7, 1.2)
# Fewer do not tell how voices and rooms differ.
MIN_STRANGERS = 6
# Deviations are compared by their ratio; of smaller ones nothing is made.
LEAST_DEVIATION = 1e-3
# Of the source of draws, so that it is none of those of a batch.
_DRAWS = 2

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Transposition:
    """Moves rows of clips to strangers.

    Parameters
    ----------
    strangers
        Calm speech of each stranger, of `find_strangers`, shape (n_strangers, n_features).
    calm
        Calm speech of each clip's own speaker, in the same space, shape (n_speakers, n_features).
    speakers
        Index of each clip's speaker in `calm`, shape (n_clips,).
    names
        Of the clips' speakers, shape (n_speakers,).
    deviations
        Which features are deviations, shape (n_features,).
    """

    strangers: FloatArray
    calm: FloatArray
    speakers: IntArray
    names: Sequence[str]
    deviations: Mask

    @classmethod
    def of(
        cls,
        clips: Sequence[Clip],
        labels: Sequence[str],
        rows: RealArray,
        strangers: FloatArray,
        deviations: Mask,
    ) -> "Transposition":
        """Find what is calm of each speaker.

        Parameters
        ----------
        clips
            Those that are to be moved.
        labels
            Of which one is calm.
        rows
            Of the clips as they are, shape (n_clips, n_features).
        strangers, deviations
            As of the class.

        Raises
        ------
        ConfigError
            If no label is calm.
        DatasetError
            If no clip is.
        """
        if CALM not in labels:
            raise ConfigError(
                f"clips are heard as strangers might say them by what is {CALM} of their speakers; "
                f"the labels are {', '.join(labels)}; expected {CALM} among them"
            )
        calm = np.array(class_indices(clips, labels)) == labels.index(CALM)
        if not calm.any():
            raise DatasetError(
                f"no clip is {CALM}: nothing tells how strangers would say the others; expected "
                "some of every speaker"
            )
        # Whose speaker is unknown, or is never calm, differs from what is calm of all.
        found = [clip.voice or "" for clip in clips]
        names, speakers = np.unique(found, return_inverse=True)
        straight = straighten(rows, deviations)
        everybody = straight[calm].mean(axis=0)
        own = [calm & (speakers == number) for number in range(len(names))]
        means = [straight[mine].mean(axis=0) if mine.any() else everybody for mine in own]
        return cls(strangers, np.stack(means), speakers, names.tolist(), deviations)

    def draw(
        self, rows: FloatArray, clips: IntArray, seed: Sequence[int], share: float
    ) -> FloatArray:
        """Return rows of which some are moved towards a stranger, by any part of the way.

        Their difference from what is calm of their speaker is made a bit smaller or larger.

        Parameters
        ----------
        rows
            Shape (n_rows, n_features).
        clips
            Index of the clip of each row; what is no clip of these stays, shape (n_rows,).
        seed
            Of all draws.
        share
            Of the rows that are moved, in ``[0, 1]``.
        """
        rng = np.random.default_rng([*seed, _DRAWS])
        moved = np.flatnonzero((rng.random(len(rows)) < share) & (clips < len(self.speakers)))
        strangers = rng.integers(len(self.strangers), size=len(moved))
        way = rng.random((len(moved), 1), np.float32)
        contrast = rng.uniform(*CONTRAST, (len(moved), 1)).astype(np.float32)
        found = rows.copy()
        found[moved] = self._move(rows[moved], clips[moved], strangers, way, contrast)
        return found

    def move(self, rows: FloatArray) -> FloatArray:
        """Return all clips as a stranger might say them, the same for all of a speaker.

        Parameters
        ----------
        rows
            Of each clip, shape (n_clips, n_features).
        """
        # By their names, so that it does not depend on who else is there.
        chosen = [crc32(name.encode(errors="surrogateescape")) for name in self.names]
        strangers = np.array(chosen)[self.speakers] % len(self.strangers)
        whole = np.ones((1, 1), np.float32)
        return self._move(rows, np.arange(len(rows)), strangers, whole, whole)

    def _move(
        self,
        rows: FloatArray,
        clips: IntArray,
        strangers: IntArray,
        way: FloatArray,
        contrast: FloatArray,
    ) -> FloatArray:
        """Return rows some part of the way to strangers, each of shape (n_rows, ...)."""
        calm = self.calm[self.speakers[clips]]
        emotion = straighten(rows, self.deviations) - calm
        moved = calm + way * (self.strangers[strangers] - calm) + contrast * emotion
        moved[:, self.deviations] = np.exp(moved[:, self.deviations])
        return moved


def find_strangers(
    clips: Sequence[Clip],
    rows: RealArray,
    deviations: Mask,
    least: int = MIN_STRANGERS,
) -> FloatArray:
    """Return what the calm speech of each stranger has in common, shape (n_strangers, n_features).

    Parameters
    ----------
    clips
        Segments of calm speech; those of a recording are of one stranger, but where the speaker is
        known.
    rows
        Of the segments, shape (n_clips, n_features).
    deviations
        Which features are deviations, shape (n_features,).
    least
        Number of strangers that are needed.

    Raises
    ------
    DatasetError
        If there are fewer.
    """
    sources = [clip.voice or str(clip.path) for clip in clips]
    strangers = list(split_by(np.array(sources, str)))
    if len(strangers) < least:
        raise DatasetError(
            f"calm speech: that of {format_count(len(strangers), 'recording')} (or speaker, where "
            f"that is known); expected {least} or more: fewer do not tell how voices and rooms "
            "differ"
        )
    straight = straighten(rows, deviations)
    return np.stack([straight[own].mean(axis=0) for own in strangers])


def straighten(rows: RealArray, deviations: Mask) -> FloatArray:
    """Return rows in which deviations are logarithms, so that what is added is a ratio.

    Parameters
    ----------
    rows
        Shape (n_rows, n_features).
    deviations
        Which features are deviations, shape (n_features,).
    """
    straight = np.array(rows, np.float32)
    straight[:, deviations] = np.log(np.maximum(straight[:, deviations], LEAST_DEVIATION))
    return straight
