"""Versions of a clip for training: unchanged and augmented."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self
from zlib import crc32

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio.augment import Utterance, vary
from sercli.datasets.clip import Clip
from sercli.features.vector import extract_features
from sercli.speech.segmentation import find_speech


class Partners(Mapping[Clip, Sequence[int]]):
    """Indices of the other clips of each clip's speaker and emotion, found when needed.

    Only clips of the same corpus are surely of one speaker: others may have speakers of the same
    name. A clip of an unknown speaker has none.

    Parameters
    ----------
    pool
        All training clips.
    """

    def __init__(self, pool: Sequence[Clip]) -> None:
        self._pool = pool
        self._alike: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        for index, clip in enumerate(pool):
            if clip.speaker is not None:
                self._alike[clip.corpus, clip.speaker, clip.emotion].append(index)

    def __getitem__(self, clip: Clip) -> list[int]:
        """Return the indices in the pool."""
        return [index for index in self.find_alike(clip) if self._pool[index] != clip]

    def find_alike(self, clip: Clip) -> list[int]:
        """Return the indices of a clip's partners and of the clip itself."""
        if clip.speaker is None:
            return []
        return self._alike[clip.corpus, clip.speaker, clip.emotion]

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._pool)

    def __len__(self) -> int:
        return len(self._pool)


@dataclass(frozen=True)
class Versions:
    """Extractor of the features of several versions of a clip.

    Parameters
    ----------
    names
        Kind of each version: ``"whole"`` (unchanged) or ``"varied"`` (augmented).
    partners
        Indices in `waveforms` of what may be joined with a clip, by clip; see `Partners`.
    waveforms
        Waveforms of all training clips at 16 kHz, which are joined with others or talk behind them.
    band_limit
        Upper frequency limit of the audio, in Hz.
    seed
        Seed that decides all draws, together with the name of a clip.
    """

    names: tuple[str, ...]
    partners: Mapping[Clip, Sequence[int]]
    waveforms: Sequence[FloatArray]
    band_limit: float
    seed: int

    def narrow(self, clips: Sequence[Clip]) -> Self:
        """Return an extractor for some of the clips, which knows the partners of these alone."""
        return replace(self, partners={clip: self.partners[clip] for clip in clips})

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

    def _vary(self, clip: Clip, utterance: Utterance, rng: np.random.Generator) -> FloatArray:
        partners = self.partners[clip]

        def find_partner() -> Utterance:
            if not partners:
                return utterance
            return find_utterance(self.waveforms[partners[int(rng.integers(len(partners)))]])

        return vary(utterance, find_partner, self.waveforms, rng)


def find_utterance(waveform: FloatArray) -> Utterance:
    """Return a waveform at 16 kHz with the bounds of its speech; those of the waveform if none.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    """
    spans = find_speech([waveform])
    start, end = (spans[0].start, spans[-1].end) if spans else (0, len(waveform))
    return Utterance(waveform, start, end)
