"""Features of unchanged clips."""

from functools import partial
from itertools import chain

import numpy as np

from sercli.arrays import FloatArray
from sercli.datasets.extraction import run_tasks
from sercli.features.vector import MAX_BAND_LIMIT, extract_features
from sercli.training.cache import CachedClips, Entry


def extract_clean_features(cached: CachedClips, band_limit: float, jobs: int = -1) -> FloatArray:
    """Return the features of unchanged clips, shape (n_clips, n_features).

    Parameters
    ----------
    cached
        The clips.
    band_limit
        Upper frequency limit of the audio, in Hz; at most `MAX_BAND_LIMIT` is used.
    jobs
        Number of processes; -1 for one per core.
    """
    extract = partial(_extract, band_limit=min(band_limit, MAX_BAND_LIMIT))
    return np.stack([*chain.from_iterable(run_tasks(extract, cached.entries, jobs))])


def _extract(entry: Entry, band_limit: float) -> FloatArray:
    return extract_features(entry.load().waveform, band_limit)
