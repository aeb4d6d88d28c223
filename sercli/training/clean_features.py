"""Features of unchanged clips."""

import numpy as np
from joblib import Parallel, delayed

from sercli.arrays import FloatArray
from sercli.datasets.extraction import CLIPS_PER_TASK
from sercli.features.vector import MAX_BAND_LIMIT, extract_features
from sercli.training.cache import CachedClips


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
    limit = min(band_limit, MAX_BAND_LIMIT)
    tasks = [
        range(start, min(start + CLIPS_PER_TASK, len(cached)))
        for start in range(0, len(cached), CLIPS_PER_TASK)
    ]
    parts = Parallel(n_jobs=jobs)(delayed(_extract)(cached.take(task), limit) for task in tasks)
    features: FloatArray = np.concatenate(parts)
    return features


def _extract(cached: CachedClips, band_limit: float) -> FloatArray:
    waveforms = (cached.utterance(index).waveform for index in range(len(cached)))
    return np.stack([extract_features(waveform, band_limit) for waveform in waveforms])
