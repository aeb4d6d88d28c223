"""Random groups of clips, of any size and mix of emotions, that adapters learn from."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sercli.adaptation import LEAST_PROBABILITY
from sercli.arrays import DoubleArray, IntArray
from sercli.datasets.base import Clip, class_indices
from sercli.datasets.matching import join_voices
from sercli.evaluation.mixes import draw_group
from sercli.labels import CALM

# Of the groups that are not of a single label: those with any share of the calm label. All others
# have equal shares.
ANY_SHARE: Final = 0.42
# Of the beta distribution of the share of the calm label: mostly little of it, or much.
CALM_BETA: Final = 0.7


class Examples(NamedTuple):
    """Clips that groups are drawn from.

    Parameters
    ----------
    probabilities
        Of each clip, by a model that did not learn from it, shape (n_clips, n_labels).
    classes
        Indices of the labels, shape (n_clips,).
    voices
        Speaker of each clip, shape (n_clips,).
    versions
        0 for a clip as it is; others are as other recordings might have it, shape (n_clips,).
    """

    probabilities: DoubleArray
    classes: IntArray
    voices: NDArray[np.str_]
    versions: IntArray

    @property
    def sources(self) -> IntArray:
        """Return a number for each speaker and version: a group is of one source."""
        pairs = np.stack((np.unique(self.voices, return_inverse=True)[1], self.versions))
        sources: IntArray = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()
        return sources

    @classmethod
    def gather(
        cls, clips: Sequence[Clip], labels: Sequence[str], *probabilities: DoubleArray
    ) -> Self:
        """Return the clips of which the speaker is known.

        Parameters
        ----------
        clips
            All clips.
        labels
            In the order of the probabilities.
        *probabilities
            Of all clips as they are, and of other versions of them.
        """
        n_versions = len(probabilities)
        voices = np.tile([voice or "" for voice in join_voices(clips)], n_versions)
        classes = np.tile(class_indices(clips, labels), n_versions)
        versions = np.repeat(np.arange(n_versions), len(clips))
        found = cls(np.concatenate(probabilities), classes, voices, versions)
        return found.take(np.flatnonzero(voices != ""))

    def take(self, rows: IntArray) -> Self:
        """Return some of the clips."""
        return self._replace(
            probabilities=self.probabilities[rows],
            classes=self.classes[rows],
            voices=self.voices[rows],
            versions=self.versions[rows],
        )


def draw_groups(
    classes: IntArray,
    sources: IntArray,
    labels: Sequence[str],
    single_share: float,
    rng: np.random.Generator,
    calm_share: float | None = None,
    repeated_share: float = 0.0,
) -> Iterator[IntArray]:
    """Give groups of one source without end, of any size in any mix of emotions.

    Parameters
    ----------
    classes, sources
        Of the clips.
    labels
        Of the classes.
    single_share
        Of the groups: those of a single label.
    rng
        Source of all draws.
    calm_share
        Of the groups of a single label: those that are of the calm one in any case; None: no more
        than of any other.
    repeated_share
        Of the groups for whose mix there are not clips enough: those that are as large all the
        same, by clips that come more than once.
    """
    own = [np.flatnonzero(sources == source) for source in np.unique(sources)]
    largest = max(map(len, own))
    n_labels = len(labels)
    calm = labels.index(CALM) if CALM in labels else None
    while True:
        clips = own[rng.integers(len(own))]
        size = int(np.exp(rng.uniform(0, np.log(largest + 1))))
        shares = np.full(n_labels, 1 / n_labels)
        if rng.random() < single_share:
            label = int(rng.integers(n_labels))
            if calm is not None and calm_share is not None and rng.random() < calm_share:
                label = calm
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
    """Return what a model might say of a group in a world where it leans to some labels.

    There, its segments are also more alike to it: of calm reading by strangers, what the models of
    this package say of the segments of a speaker varies by half as much as it does among clips of a
    speaker and an emotion that they know. Without that, an adapter takes whatever varies little for
    a group of a single emotion.

    Parameters
    ----------
    probabilities
        What it says in this one, shape (n_segments, n_labels).
    most
        Largest standard deviation of what is added to the logarithms, the same for all segments.
    least_contrast
        Least factor of the logarithms before, in ``(0, 1]``; it is even between that and 1.
    rng
        Source of all draws.
    """
    leaning = rng.normal(0, rng.uniform(0, most), probabilities.shape[1])
    contrast = rng.uniform(least_contrast, 1)
    odds = (probabilities + LEAST_PROBABILITY) ** contrast * np.exp(leaning)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float64)
