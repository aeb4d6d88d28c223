"""Filters without delay, made in the spectrum."""

from collections.abc import Callable

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

    def gain(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
        flank = (frequencies / limit - PASS_SHARE) / (1 - PASS_SHARE)
        return 0.5 + 0.5 * np.cos(np.pi * np.clip(flank, 0, 1))

    return _filter(waveform, gain)


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

    def gain(frequencies: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.interp(frequencies, TELEPHONE_BAND, (0, 1, 1, 0))

    return _filter(waveform, gain)


def _filter(
    waveform: FloatArray, gain: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> FloatArray:
    waveform = _fade(waveform)
    # Zeros at the end keep the filter from wrapping one edge round to the other.
    padded = len(waveform) + int(PADDING_S * SAMPLE_RATE)
    size = 1 << (padded - 1).bit_length()
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE).astype(np.float64)
    gains = gain(frequencies).astype(np.float32)
    filtered = np.fft.irfft(np.fft.rfft(waveform, size) * gains, size)[: len(waveform)]
    return filtered.astype(np.float32, copy=False)


def _fade(waveform: FloatArray) -> FloatArray:
    n_faded = min(int(FADE_S * SAMPLE_RATE), len(waveform) // 2)
    ramp = np.sin(np.linspace(0, np.pi / 2, n_faded, endpoint=False, dtype=np.float32)) ** 2
    faded = waveform.copy()
    faded[:n_faded] *= ramp
    faded[len(waveform) - n_faded :] *= ramp[::-1]
    return faded
