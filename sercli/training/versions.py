"""The versions of a clip that are learned from: as it is, and as other recordings might have it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sercli.audio import SAMPLE_RATE, load_audio
from sercli.augment import Utterance, vary
from sercli.datasets import Clip
from sercli.errors import AudioError
from sercli.features import extract_features
from sercli.segmentation import find_speech
from sercli.vad import SpeechDetector

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Versions:
    """Extracts features of several versions of a clip, shape (n_versions, n_features).

    Parameters
    ----------
    names
        Which versions: ``"whole"`` or ``"varied"``.
    pool
        All clips that are learned from: what is joined with one, and who talks behind it.
    band_limit
        Frequency in Hz above which nothing is heard.
    seed
        Together with the name of a clip, decides all draws.
    """

    names: tuple[str, ...]
    pool: tuple[Clip, ...]
    band_limit: float
    seed: int

    def __call__(self, clip: Clip, waveform: FloatArray) -> FloatArray:
        """Return the features of a clip's versions."""
        rng = np.random.default_rng([self.seed, crc32(clip.path.stem.encode())])
        utterance = _find_utterance(waveform)
        versions = [
            waveform if name == "whole" else self._vary(clip, utterance, rng) for name in self.names
        ]
        return np.stack([extract_features(version, self.band_limit) for version in versions])

    def _vary(self, clip: Clip, utterance: Utterance, rng: np.random.Generator) -> FloatArray:
        others = [
            other
            for other in self.pool
            if (other.speaker, other.emotion) == (clip.speaker, clip.emotion) and other != clip
        ]

        def find_partner() -> Utterance:
            if not others:
                return utterance
            return _find_utterance(_load_or_silence(others[rng.integers(len(others))]))

        return vary(utterance, find_partner, _Talkers(self.pool), rng)


class _Talkers(Sequence[FloatArray]):
    """Waveforms of clips, decoded when they are asked for."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: Any) -> Any:
        return _load_or_silence(self._clips[index])


def _load_or_silence(clip: Clip) -> FloatArray:
    """Return a clip's waveform; a clip that is broken fails by itself, not those that borrow it."""
    try:
        return load_audio(clip.path)
    except AudioError:
        return np.zeros(SAMPLE_RATE, np.float32)


def _find_utterance(waveform: FloatArray) -> Utterance:
    spans = find_speech(waveform, _detector())
    start, end = (spans[0].start, spans[-1].end) if spans else (0, len(waveform))
    return Utterance(waveform, start, end)


@cache
def _detector() -> SpeechDetector:
    return SpeechDetector()  # one per process: it cannot be handed from one to another
