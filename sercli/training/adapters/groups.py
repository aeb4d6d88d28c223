"""Random groups of clips, of any size and mix of emotions, to train adapters on."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sercli.adaptation import LEAST_PROBABILITY
from sercli.arrays import DoubleArray, IntArray, split_by
from sercli.datasets.clip import Clip
from sercli.datasets.corpus import class_indices
from sercli.datasets.matching import join_voices
from sercli.evaluation.mixes import draw_group
from sercli.labels import CALM

# Share of groups with a random share of the calm label, among those of more than one label. The
# others have equal shares of all labels.
ANY_SHARE: Final = 0.42
# Parameter of the beta distribution of the share of the calm label: mostly low or high.
CALM_BETA: Final = 0.7


class Examples(NamedTuple):
    """Clips that groups are drawn from.

    Parameters
    ----------
    probabilities
        Held-out probabilities of each clip, shape (n_clips, n_labels).
    classes
        Indices of the labels, shape (n_clips,).
    voices
        Speaker of each clip, shape (n_clips,).
    versions
        Version of each clip: 0 for an unchanged clip, above 0 for other versions, shape (n_clips,).
    """

    probabilities: DoubleArray
    classes: IntArray
    voices: NDArray[np.str_]
    versions: IntArray

    @property
    def sources(self) -> IntArray:
        """Index of each clip's combination of speaker and version; a group is of one source."""
        pairs = np.stack((np.unique(self.voices, return_inverse=True)[1], self.versions))
        sources: IntArray = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()
        return sources

    @classmethod
    def gather(
        cls, clips: Sequence[Clip], labels: Sequence[str], *probabilities: DoubleArray
    ) -> Self:
        """Create examples from the clips of known speakers.

        Parameters
        ----------
        clips
            All clips.
        labels
            Labels, in the order of the probabilities.
        *probabilities
            Held-out probabilities of all clips, for the unchanged version and any others, each of
            shape (n_clips, n_labels).
        """
        n_versions = len(probabilities)
        voices = np.tile([voice or "" for voice in join_voices(clips)], n_versions)
        classes = np.tile(class_indices(clips, labels), n_versions)
        versions = np.repeat(np.arange(n_versions), len(clips))
        found = cls(np.concatenate(probabilities), classes, voices, versions)
        return found.take(np.flatnonzero(voices != ""))

    def take(self, rows: IntArray) -> Self:
        """Return some of the clips."""
        return self._replace(**{name: part[rows] for name, part in self._asdict().items()})


def draw_groups(
    classes: IntArray,
    sources: IntArray,
    labels: Sequence[str],
    single_share: float,
    rng: np.random.Generator,
    calm_share: float | None = None,
    repeated_share: float = 0.0,
) -> Iterator[IntArray]:
    """Yield groups endlessly, each of one source and of any size and mix of emotions.

    Parameters
    ----------
    classes, sources
        Class and source of each clip, shape (n_clips,).
    labels
        Labels, in the order of the class indices.
    single_share
        Share of the groups that have a single label.
    rng
        Random generator of all draws.
    calm_share
        Share of the groups of a single label for which the calm label is set, in addition to those
        that draw it by chance; None: the labels are equally likely.
    repeated_share
        Share of the groups with too few clips for their mix that are filled up to their size with
        repeated clips.

    Yields
    ------
    ndarray of int
        Indices of the clips of a group.
    """
    own = [*split_by(sources)]
    largest = max(map(len, own))
    n_labels = len(labels)
    calm = labels.index(CALM) if CALM in labels else None
    while True:
        clips = own[rng.integers(len(own))]
        size = int(np.exp(rng.uniform(0, np.log(largest + 1))))
        shares = np.full(n_labels, 1 / n_labels)
        present = np.unique(classes[clips])
        if rng.random() < single_share:
            label = present[rng.integers(len(present))]
            if calm is not None and calm_share is not None and rng.random() < calm_share:
                label = calm if calm in present else label
            shares = np.eye(n_labels)[label]
        elif calm is not None and rng.random() < ANY_SHARE:
            share = rng.beta(CALM_BETA, CALM_BETA)
            shares[:] = (1 - share) / (n_labels - 1)
            shares[calm] = share
        chosen = draw_group(classes[clips], shares, size, rng)
        if len(chosen):
            short = size - len(chosen)
            if repeated_share and short > 0 and rng.random() < repeated_share:
                chosen = np.append(chosen, rng.choice(chosen, short))
            yield clips[chosen]


def lean(
    probabilities: DoubleArray, most: float, least_contrast: float, rng: np.random.Generator
) -> DoubleArray:
    """Return probabilities of a group as in another domain, where the model leans to some labels.

    There the segments are also more alike to the model: in calm reading by strangers, the
    predictions of this package's models for the segments of a speaker vary half as much as those
    for the clips of one speaker and emotion in a corpus that they know. Without simulating this, an
    adapter takes any group that varies little for one of a single emotion.

    Parameters
    ----------
    probabilities
        Probabilities to change, shape (n_segments, n_labels).
    most
        Maximum standard deviation of the biases that are added to the log probabilities, the same
        for all segments of the group.
    least_contrast
        Minimum factor of the log probabilities before that, in ``(0, 1]``; the factor is drawn
        uniformly between that and 1.
    rng
        Random generator of all draws.

    Returns
    -------
    ndarray of float64, shape (n_segments, n_labels)
        The changed probabilities, rows summing to 1.
    """
    leaning = rng.normal(0, rng.uniform(0, most), probabilities.shape[1])
    contrast = rng.uniform(least_contrast, 1)
    odds = (probabilities + LEAST_PROBABILITY) ** contrast * np.exp(leaning)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)
