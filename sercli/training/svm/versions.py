"""Features of several versions of each training clip: unchanged and augmented."""

from collections.abc import Callable, Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio.augment import TALKERS, Utterance, vary
from sercli.datasets.extraction import ClipFeatures, run_tasks
from sercli.features.vector import MAX_BAND_LIMIT, extract_features
from sercli.training.cache import CachedClips, Entry, Talkers
from sercli.training.config import SvmConfig
from sercli.training.partners import Partners

# Training versions of each clip, without and with calm speech of strangers.
WHOLE = "whole"
VERSIONS = (WHOLE, "varied", "varied", "varied")
TRANSPOSED = "transposed"
WITH_STRANGERS = (WHOLE, "varied", "varied", TRANSPOSED)

# The telephone band ends below 4 kHz: features must be available in all recordings.
BAND_LIMIT = MAX_BAND_LIMIT


class Company(NamedTuple):
    """A clip, and the clips that its versions are combined with.

    Parameters
    ----------
    own
        The clip.
    partners
        Clips that may be joined with it.
    talkers
        Clips that may be heard in its background.
    seed
        Seed of all draws of its versions.
    """

    own: Entry
    partners: tuple[Entry, ...]
    talkers: tuple[Entry, ...]
    seed: tuple[int, ...]

    def extract(self) -> FloatArray:
        """Return the features of the clip's versions, shape (n_versions, n_features)."""
        rng = np.random.default_rng(self.seed)
        utterance = self.own.load()

        def find_partner() -> Utterance:
            return self.partners[int(rng.integers(len(self.partners)))].load()

        versions = [
            utterance.waveform
            if name == WHOLE
            else vary(utterance, find_partner, Talkers(self.talkers), rng)
            for name in VERSIONS
        ]
        return np.stack([extract_features(version, BAND_LIMIT) for version in versions])


def extract_versions(
    cached: CachedClips, config: SvmConfig, report: Callable[[int, int], None] = lambda *_: None
) -> ClipFeatures:
    """Extract the features of all versions of clips, one row per version, with several processes.

    Parameters
    ----------
    cached
        Training clips; they are also the source of background talkers in the augmentation.
    config
        Training settings, of which seed and number of processes are used.
    report
        Called with the number of clips whose features were extracted, and of all clips.

    Returns
    -------
    ClipFeatures
        The features, each of shape (n_versions, n_features).
    """
    partners = Partners(cached.clips)
    every = [gather_company(cached, partners, place, config.seed) for place in range(len(cached))]
    features: list[FloatArray] = []
    for rows in run_tasks(Company.extract, every, config.jobs):
        features += rows
        report(len(features), len(cached))
    return ClipFeatures(cached.clips, tuple(features), cached.hashes, cached.failed, cached.notes)


def gather_company(cached: CachedClips, partners: Partners, index: int, seed: int) -> Company:
    """Draw the clips that the versions of a clip are combined with.

    Only these are sent to another process, however many clips there are.

    Parameters
    ----------
    cached
        All training clips. Background talkers are drawn from all of them, also for clips that are
        scored as a fold.
    partners
        Their partners.
    index
        Index of the clip.
    seed
        Seed that decides the draw, together with the name of the clip.
    """
    name = cached.clips[index].name.encode(errors="surrogateescape")
    seeds = (seed, crc32(name))
    rng = np.random.default_rng(seeds)
    return Company(
        cached.entries[index],
        _draw(cached, partners.find_others(index), len(VERSIONS), rng),
        _draw(cached, range(len(cached)), TALKERS * len(VERSIONS), rng),
        (*seeds, 1),  # not the numbers that were just drawn
    )


def _draw(
    cached: CachedClips, indices: Sequence[int], n_draws: int, rng: np.random.Generator
) -> tuple[Entry, ...]:
    return tuple(cached.entries[indices[i]] for i in rng.integers(len(indices), size=n_draws))
