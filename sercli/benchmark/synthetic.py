"""Synthetic speech-like sound, close enough to a voice for a speech detector."""

import numpy as np
from scipy.signal import lfilter

from sercli.arrays import DoubleArray, FloatArray
from sercli.audio import SAMPLE_RATE

# Centre frequencies in Hz of the lower three formants of six vowels (Peterson and Barney 1952), and
# their bandwidths.
VOWELS = np.array(
    [
        (730, 1090, 2440),
        (270, 2290, 3010),
        (300, 870, 2240),
        (530, 1840, 2480),
        (570, 840, 2410),
        (660, 1720, 2410),
    ]
)
BANDWIDTHS = (80, 100, 140)
# Shortest and longest durations, in seconds, and the lowest and highest pitch of a phrase.
PHRASE_S = (1.5, 5.0)
PAUSE_S = (0.4, 1.5)
SYLLABLE_S = (0.12, 0.28)
PITCH_HZ = (90, 220)
# Relative depth of the pitch modulation of a phrase, and range of its frequency.
BEND = 0.15
BEND_HZ = (0.2, 0.6)
LOUDNESS = 0.3
HISS = 1e-3


def synthesise(seconds: float, rng: np.random.Generator) -> FloatArray:
    """Return phrases of vowels with pauses between them, at 16 kHz, shape (n_samples,).

    Parameters
    ----------
    seconds
        Total duration in seconds.
    rng
        Source of all draws.
    """
    n_samples = round(seconds * SAMPLE_RATE)
    parts: list[DoubleArray] = [np.empty(0)]
    while sum(map(len, parts)) < n_samples:
        pause = round(rng.uniform(*PAUSE_S) * SAMPLE_RATE)
        parts += [_phrase(rng), HISS * rng.standard_normal(pause)]
    return np.concatenate(parts)[:n_samples].astype(np.float32)


def _phrase(rng: np.random.Generator) -> DoubleArray:
    n_samples = round(rng.uniform(*PHRASE_S) * SAMPLE_RATE)
    time = np.arange(n_samples) / SAMPLE_RATE
    bend = np.sin(2 * np.pi * (rng.uniform(*BEND_HZ) * time + rng.random()))
    turns = np.cumsum(rng.uniform(*PITCH_HZ) * (1 + BEND * bend)) / SAMPLE_RATE
    pulses = np.diff(np.floor(turns), prepend=0)
    breath = 0.02 * rng.standard_normal(n_samples)
    source = lfilter([1], [1, -0.97], pulses) + breath
    phrase = np.zeros(n_samples)
    start = 0
    while start < n_samples:
        length = round(rng.uniform(*SYLLABLE_S) * SAMPLE_RATE)
        syllable = source[start : start + length]
        for formant, bandwidth in zip(rng.choice(VOWELS), BANDWIDTHS, strict=True):
            radius = np.exp(-np.pi * bandwidth / SAMPLE_RATE)
            turn = 2 * radius * np.cos(2 * np.pi * formant / SAMPLE_RATE)
            syllable = lfilter([1 - radius], [1, -turn, radius**2], syllable)
        envelope = np.sqrt(np.hanning(len(syllable) + 2)[1:-1])
        loudest = max(float(np.abs(syllable).max()), HISS)
        phrase[start : start + length] = LOUDNESS * syllable / loudest * envelope
        start += length
    return phrase
