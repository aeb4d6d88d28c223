"""Versions of a clip for training: unchanged and augmented."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from zlib import crc32

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio.augment import Utterance, vary
from sercli.datasets.base import Clip
from sercli.features.vector import extract_features
from sercli.speech.segmentation import find_speech
from sercli.speech.vad import shared_detector


@dataclass(frozen=True)
class Versions:
    """Extractor of the features of several versions of a clip.

    Parameters
    ----------
    names
        Kind of each version: ``"whole"`` (unchanged) or ``"varied"`` (augmented).
    pool
        All clips that are learned from: what is joined with one, and who talks behind it.
    waveforms
        Of the pool, at 16 kHz.
    band_limit
        Upper frequency limit of the audio, in Hz.
    seed
        Seed that decides all draws, together with the name of a clip.
    """

    names: tuple[str, ...]
    pool: tuple[Clip, ...]
    waveforms: Sequence[FloatArray]
    band_limit: float
    seed: int

    def __call__(self, clip: Clip, waveform: FloatArray) -> FloatArray:
        """Return the features of a clip's versions, shape (n_versions, n_features).

        Parameters
        ----------
        clip
            The clip.
        waveform
            Its waveform at 16 kHz, shape (n_samples,).
        """
        rng = np.random.default_rng([self.seed, crc32(clip.name.encode(errors="surrogateescape"))])
        utterance = find_utterance(waveform)
        versions = [
            waveform if name == "whole" else self._vary(clip, utterance, rng) for name in self.names
        ]
        return np.stack([extract_features(version, self.band_limit) for version in versions])

    @cached_property
    def _alike(self) -> dict[tuple[str | None, str], list[int]]:
        """The pool by speaker and emotion: looked for once, not for each clip."""
        groups: dict[tuple[str | None, str], list[int]] = {}
        for index, clip in enumerate(self.pool):
            groups.setdefault((clip.voice, clip.emotion), []).append(index)
        return groups

    def _vary(self, clip: Clip, utterance: Utterance, rng: np.random.Generator) -> FloatArray:
        alike = self._alike.get((clip.voice, clip.emotion), ())
        others = [index for index in alike if self.pool[index] != clip]

        def find_partner() -> Utterance:
            if not others:
                return utterance
            return find_utterance(self.waveforms[others[rng.integers(len(others))]])

        return vary(utterance, find_partner, self.waveforms, rng)


def find_utterance(waveform: FloatArray) -> Utterance:
    """Return a waveform at 16 kHz with the bounds of its speech; those of the waveform if none.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    """
    spans = find_speech([waveform], shared_detector())
    start, end = (spans[0].start, spans[-1].end) if spans else (0, len(waveform))
    return Utterance(waveform, start, end)
