"""Filters without delay, made in the spectrum."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sercli.audio import SAMPLE_RATE

FloatArray = NDArray[np.float32]

# Of a band limit passes whole; the rest is the filter's flank.
PASS_SHARE = 0.9
# Silence behind the signal while it is filtered: outlasts the ringing of a flank.
PADDING_S = 0.125

# The edges of a segment fade in and out: an abrupt edge of a high sound clicks at all frequencies.
FADE_S = 0.008

# Of a telephone line: blocked below the first, whole between the second and the third, blocked
# above the last, in Hz. The band of ITU-T G.712 is 300 to 3,400 Hz.
TELEPHONE_BAND = (250.0, 350.0, 3300.0, 3500.0)


def limit_band(waveform: FloatArray, limit: float) -> FloatArray:
    """Take away everything from a frequency on.

    Parameters
    ----------
    waveform
        At 16 kHz, shape (n_samples,).
    limit
        In Hz; the gain is 1 up to 90 % of it and falls as a raised cosine to exactly 0.

    Returns
    -------
    ndarray of float32, shape (n_samples,)
    """
    return _filter(waveform, _limit_gains(_find_size(waveform), limit))


def telephone_band(waveform: FloatArray) -> FloatArray:
    """Return what a telephone line lets through, `TELEPHONE_BAND`.

    Parameters
    ----------
    waveform
        At 16 kHz, shape (n_samples,).

    Returns
    -------
    ndarray of float32, shape (n_samples,)
    """
    return _filter(waveform, _telephone_gains(_find_size(waveform)))


def _find_size(waveform: FloatArray) -> int:
    """Return the size of the transform: one of few, so that gains are of use again."""
    # Zeros at the end keep the filter from wrapping one edge round to the other.
    padded = len(waveform) + int(PADDING_S * SAMPLE_RATE)
    return 1 << (padded - 1).bit_length()


@lru_cache(maxsize=16)
def _limit_gains(size: int, limit: float) -> FloatArray:
    flank = (np.fft.rfftfreq(size, 1 / SAMPLE_RATE) / limit - PASS_SHARE) / (1 - PASS_SHARE)
    return np.asarray(0.5 + 0.5 * np.cos(np.pi * np.clip(flank, 0, 1)), np.float32)


@lru_cache(maxsize=8)
def _telephone_gains(size: int) -> FloatArray:
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    return np.asarray(np.interp(frequencies, TELEPHONE_BAND, (0, 1, 1, 0)), np.float32)


def _filter(waveform: FloatArray, gains: FloatArray) -> FloatArray:
    size = 2 * (len(gains) - 1)
    spectrum = np.fft.rfft(_fade(waveform), size)
    filtered = np.fft.irfft(spectrum * gains, size)[: len(waveform)]
    return filtered.astype(np.float32, copy=False)


def _fade(waveform: FloatArray) -> FloatArray:
    n_faded = min(int(FADE_S * SAMPLE_RATE), len(waveform) // 2)
    ramp = np.sin(np.linspace(0, np.pi / 2, n_faded, endpoint=False, dtype=np.float32)) ** 2
    faded = waveform.copy()
    faded[:n_faded] *= ramp
    faded[len(waveform) - n_faded :] *= ramp[::-1]
    return faded
