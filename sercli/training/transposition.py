"""Transposition: features of clips as if strangers had said them in other rooms.

Features of a speaker's calm speech describe the voice, the room and the microphone; features of
other speech of the speaker differ from them by the emotion. So the difference between a clip and
its speaker's calm clips, added to a stranger's calm speech, approximates the features of the same
emotion from that stranger. Only calm speech of strangers is needed, which is available anywhere,
unlike acted emotions.

The features are those of the SVM, or statistics of a frozen encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import FloatArray, IntArray, RealArray, split_by
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import class_indices
from sercli.errors import ConfigError, DatasetError
from sercli.labels import CALM
from sercli.text import format_count

# Range of the factor of the difference from calm speech: people show emotions more or less
# strongly.
CONTRAST = (0.7, 1.2)
# Fewer strangers do not show how voices and rooms differ.
MIN_STRANGERS = 6
# Minimum of standard deviations before their logarithm is taken.
LEAST_DEVIATION = 1e-3
# Appended to seeds, so that the draws differ from those of a batch.
_DRAWS = 2

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Transposition:
    """Transposition of the rows of clips to strangers.

    Parameters
    ----------
    strangers
        Mean calm speech of each stranger, from `find_strangers`, shape (n_strangers, n_features).
    calm
        Mean calm speech of each speaker of the clips, straightened like `strangers`, shape
        (n_speakers, n_features).
    speakers
        Index of each clip's speaker in `calm`, shape (n_clips,).
    names
        Names of the speakers of the clips, shape (n_speakers,).
    deviations
        Mask of the features that are standard deviations, shape (n_features,).
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
        everybody: FloatArray,
    ) -> "Transposition":
        """Create a transposition by averaging the calm clips of each speaker.

        Parameters
        ----------
        clips
            Clips to transpose.
        labels
            Labels of the clips, among them the calm one.
        rows
            Features of the unchanged clips, shape (n_clips, n_features).
        strangers, deviations
            As for the class.
        everybody
            Mean calm speech of the training clips, from `average_calm`, for speakers without calm
            clips.

        Raises
        ------
        ConfigError
            If no label is calm.
        """
        calm = _find_calm(clips, labels)
        # All unknown speakers count as one, with the name "". The same name in another corpus is
        # another speaker, or at least another room.
        found = [(clip.voice, clip.corpus) if clip.voice else ("", "") for clip in clips]
        everyone = sorted({*found})
        index = {one: number for number, one in enumerate(everyone)}
        speakers = np.array([index[one] for one in found], np.intp)
        straight = straighten(rows, deviations)
        own = [mine[calm[mine]] for mine in split_by(speakers)]
        means = [straight[mine].mean(axis=0) if len(mine) else everybody for mine in own]
        return cls(strangers, np.stack(means), speakers, [name for name, _ in everyone], deviations)

    def draw(
        self, rows: FloatArray, clips: IntArray, seed: Sequence[int], share: float
    ) -> FloatArray:
        """Return rows of which some are moved a random part of the way to a random stranger.

        Their difference from their speaker's calm speech is scaled by a factor drawn from
        `CONTRAST`.

        Parameters
        ----------
        rows
            Features, shape (n_rows, n_features).
        clips
            Index of the clip of each row, shape (n_rows,). Rows with an index beyond the clips, of
            unlabelled segments, are left unchanged.
        seed
            Seed of all draws.
        share
            Share of the rows that are moved, in ``[0, 1]``.
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
        """Return the rows of all clips moved to strangers, one stranger per speaker.

        Parameters
        ----------
        rows
            Features of each clip, shape (n_clips, n_features).
        """
        # Chosen by the speaker's name, so as not to depend on the other speakers.
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
        """Return rows moved by the share `way`, shape (n_rows or 1, 1), towards strangers."""
        calm = self.calm[self.speakers[clips]]
        emotion = straighten(rows, self.deviations) - calm
        moved = calm + way * (self.strangers[strangers] - calm) + contrast * emotion
        moved[:, self.deviations] = np.exp(moved[:, self.deviations])
        return moved


def average_calm(
    clips: Sequence[Clip], labels: Sequence[str], rows: RealArray, deviations: Mask
) -> FloatArray:
    """Return the mean of all calm clips, straightened, shape (n_features,).

    Parameters
    ----------
    clips
        Training clips.
    labels
        Labels of the clips, among them the calm one.
    rows
        Features of the unchanged clips, shape (n_clips, n_features).
    deviations
        Mask of the features that are standard deviations, shape (n_features,).

    Raises
    ------
    ConfigError
        If no label is calm.
    DatasetError
        If no clip is calm.
    """
    calm = _find_calm(clips, labels)
    if not calm.any():
        raise DatasetError(
            f"no clip is {CALM}, so clips cannot be transposed to other voices; expected "
            f"{CALM} clips of every speaker"
        )
    mean: FloatArray = straighten(rows[calm], deviations).mean(axis=0)
    return mean


def check_calm(labels: Sequence[str]) -> None:
    """Raise if no label is calm.

    Parameters
    ----------
    labels
        Labels of the clips to be transposed.

    Raises
    ------
    ConfigError
        If `CALM` is not among them.
    """
    if CALM not in labels:
        raise ConfigError(
            f"transposing clips to other voices needs {CALM} clips; the labels are "
            f"{', '.join(labels)}; expected {CALM} among them"
        )


def _find_calm(clips: Sequence[Clip], labels: Sequence[str]) -> Mask:
    """Return the mask of the calm clips; raise if no label is calm."""
    check_calm(labels)
    calm: Mask = np.array(class_indices(clips, labels)) == labels.index(CALM)
    return calm


def split_strangers(clips: Sequence[Clip], n_folds: int) -> list[IntArray]:
    """Return the indices of the segments of each stranger.

    Parameters
    ----------
    clips
        Segments of calm speech; if the speaker of a segment is unknown, its recording counts as
        one stranger.
    n_folds
        Number of folds among which the strangers are divided.

    Raises
    ------
    DatasetError
        If there are fewer than `MIN_STRANGERS` or `n_folds` strangers.
    """
    sources = [clip.voice or str(clip.path) for clip in clips]
    strangers = list(split_by(np.array(sources, str)))
    least = max(MIN_STRANGERS, n_folds)
    if len(strangers) < least:
        raise DatasetError(
            f"calm speech: found {format_count(len(strangers), 'recording')} (or speakers, where "
            f"they are known); expected {least} or more: fewer do not show how voices and rooms "
            "differ"
        )
    return strangers


def find_strangers(
    clips: Sequence[Clip], rows: RealArray, deviations: Mask, n_folds: int
) -> FloatArray:
    """Return the mean calm speech of each stranger, shape (n_strangers, n_features).

    Parameters
    ----------
    clips, n_folds
        As for `split_strangers`.
    rows
        Features of the segments, shape (n_clips, n_features).
    deviations
        Mask of the features that are standard deviations, shape (n_features,).

    Raises
    ------
    DatasetError
        If there are too few strangers.
    """
    straight = straighten(rows, deviations)
    strangers = split_strangers(clips, n_folds)
    return np.stack([straight[own].mean(axis=0) for own in strangers])


def straighten(rows: RealArray, deviations: Mask) -> FloatArray:
    """Return rows with logarithms of the standard deviations, so that differences are log ratios.

    Parameters
    ----------
    rows
        Features, shape (n_rows, n_features).
    deviations
        Mask of the features that are standard deviations, shape (n_features,).
    """
    straight = np.array(rows, np.float32)
    straight[:, deviations] = np.log(np.maximum(straight[:, deviations], LEAST_DEVIATION))
    return straight
