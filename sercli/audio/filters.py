"""Zero-phase filters, applied in the frequency domain."""

from functools import lru_cache

import numpy as np

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE

# Share of the band below a limit that passes unchanged; the rest is the transition band.
PASS_SHARE = 0.9
# Silence after the signal during filtering, longer than the ringing of a transition band.
PADDING_S = 0.125
# Sizes of an FFT, in 32nds of a power of 2: the smaller their prime factors, the faster it is.
FAST_SIZES = (18, 20, 24, 25, 27, 30, 32)

# Fade at both edges of a segment: an abrupt edge of a high sound clicks at all frequencies.
FADE_S = 0.008

# Band of a telephone line in Hz: blocked below the first, unchanged between the second and the
# third, blocked above the last. The band of ITU-T G.712 is 300 to 3,400 Hz.
TELEPHONE_BAND = (250.0, 350.0, 3300.0, 3500.0)


def limit_band(waveform: FloatArray, limit: float, sample_rate: int = SAMPLE_RATE) -> FloatArray:
    """Apply a low-pass filter.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).
    limit
        Cutoff in Hz: the gain is 1 up to 90 % of it and falls as a raised cosine to exactly 0 at
        it.
    sample_rate
        Sample rate of the result in Hz: 16 kHz, or 8 kHz for a limit of at most 4 kHz.

    Returns
    -------
    ndarray of float32, shape (n_samples,), or half of that, rounded up, at 8 kHz
    """
    step = SAMPLE_RATE // sample_rate
    size = _find_size(waveform)
    # Only the part of the spectrum that the sample rate of the result has is transformed back.
    # NumPy computes in single precision only where it divides by the size.
    spectrum = np.fft.rfft(_fade(waveform), size, norm="forward")[: size // (2 * step) + 1]
    flank = _find_flank(limit, size, len(spectrum))
    spectrum[len(spectrum) - len(flank) :] *= flank
    n_samples = -(-len(waveform) // step)
    filtered = np.fft.irfft(spectrum, size // step)[:n_samples] * (size / step)
    return filtered.astype(np.float32, copy=False)


@lru_cache(maxsize=32)
def _find_flank(limit: float, size: int, n_bins: int) -> FloatArray:
    """Return the gains of the last of `n_bins` bins of an FFT, from where they begin to fall."""
    first = int(PASS_SHARE * limit * size / SAMPLE_RATE)
    position = np.arange(first, n_bins) * (SAMPLE_RATE / size / limit)
    flank = np.clip((position - PASS_SHARE) / (1 - PASS_SHARE), 0, 1)
    gains: FloatArray = (0.5 + 0.5 * np.cos(np.pi * flank)).astype(np.float32)
    return gains


def telephone_band(waveform: FloatArray) -> FloatArray:
    """Limit a waveform to the band of a telephone line, `TELEPHONE_BAND`.

    Parameters
    ----------
    waveform
        Waveform at 16 kHz, shape (n_samples,).

    Returns
    -------
    ndarray of float32, shape (n_samples,)
    """
    size = _find_size(waveform)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    gains = np.interp(frequencies, TELEPHONE_BAND, (0, 1, 1, 0)).astype(np.float32)
    spectrum = np.fft.rfft(_fade(waveform), size) * gains
    filtered = np.fft.irfft(spectrum, size)[: len(waveform)]
    return filtered.astype(np.float32, copy=False)


def _find_size(waveform: FloatArray) -> int:
    """Return the size of an FFT that is fast, as is that of half the size."""
    # Zeros at the end keep the filter from wrapping one edge around to the other.
    padded = len(waveform) + int(PADDING_S * SAMPLE_RATE)
    unit = (1 << (padded - 1).bit_length()) // FAST_SIZES[-1]
    return next(unit * size for size in FAST_SIZES if unit * size >= padded)


@lru_cache(maxsize=16)
def _find_ramp(n_faded: int) -> FloatArray:
    line = np.linspace(0, np.pi / 2, n_faded, endpoint=False, dtype=np.float32)
    return np.sin(line) ** 2


def _fade(waveform: FloatArray) -> FloatArray:
    n_faded = min(int(FADE_S * SAMPLE_RATE), len(waveform) // 2)
    ramp = _find_ramp(n_faded)
    faded = waveform.copy()
    faded[:n_faded] *= ramp
    faded[len(waveform) - n_faded :] *= ramp[::-1]
    return faded
