"""Pitch, voicing strength and harmonic levels, for all frames at once.

The tracker is the windowed, window-corrected autocorrelation of Boersma (1993), with his octave
cost. In place of his path search (a loop over frames) it makes two passes, the second in a range
set by the quartiles of the first, as De Looze and Hirst (2008) do, so that every step is an array
operation.
"""

from dataclasses import dataclass
from functools import cache, lru_cache, reduce
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import FloatArray
from sercli.features import spectral
from sercli.features.spectral import ANALYSIS_RATE, TINY
from sercli.features.summaries import find_quantiles

BoolArray = NDArray[np.bool_]

MIN_PITCH_HZ: Final = 65.0
MAX_PITCH_HZ: Final = 600.0
PITCH_WINDOW_SECONDS: Final = 0.048  # three periods at the lowest pitch
FFT_SIZE: Final = 512  # window and longest lag, so correlations do not wrap around
# The autocorrelation uses the band below 2 kHz: there, voices are periodic, peaks are wide enough
# for parabolic interpolation, and telephones carry enough of it.
PERIODIC_BAND_HZ: Final = (1500.0, 2000.0)  # full weight below the first, none above the second
OCTAVE_COST: Final = 0.02  # strength per octave, against sub-harmonics
RANGE_COST: Final = 0.4  # strength per octave outside the speaker's range
RANGE_FACTORS: Final = (0.75, 1.6)  # times the lower and the upper quartile of the first pass
RANGE_STRENGTH: Final = 0.6  # least strength of frames that count for the quartiles
VOICED_STRENGTH: Final = 0.5  # least strength of voiced frames
MIN_VOICED_FRAMES: Final = 3
STRENGTH_LIMITS: Final = (0.01, 0.999)  # -20 dB to 30 dB of harmonics to noise
HARMONICS: Final = 8
FORMANT_BANDS_HZ: Final = ((300.0, 1000.0), (1000.0, 2000.0), (2000.0, 3500.0))
RELATIVE_FLOOR: Final = 1e-4  # relative to the signal's highest energy or strongest bin


@dataclass(frozen=True)
class PitchTrack:
    """Pitch of each of T frames.

    Attributes
    ----------
    hertz : FloatArray, shape (T,)
        Best pitch candidate in Hz, also of unvoiced frames.
    strength : FloatArray, shape (T,)
        Autocorrelation at that pitch, 0 to 1.
    voiced : NDArray[np.bool_], shape (T,)
        Whether the frame is voiced.
    power : FloatArray, shape (T, FFT_SIZE // 2 + 1)
        Power spectrum of the pitch window.
    """

    hertz: FloatArray
    strength: FloatArray
    voiced: BoolArray
    power: FloatArray


def track_pitch(frames: FloatArray, active: BoolArray) -> PitchTrack:
    """Return the pitch track of a signal.

    Parameters
    ----------
    frames : FloatArray, shape (T, window)
        Overlapping windows of the signal, which has unit power overall.
    active : NDArray[np.bool_], shape (T,)
        Frames that may be voiced.

    Returns
    -------
    PitchTrack
    """
    power = spectral.power_spectrum(frames, FFT_SIZE, is_centred=True)
    correlator = _create_correlator(frames.shape[1])
    lags, correlation = correlator.lags, _normalised_autocorrelation(power, correlator)
    inner = correlation[:, 1:-1]
    slope = (inner < correlation[:, :-2]) | (inner < correlation[:, 2:])
    octaves = np.log2(ANALYSIS_RATE / lags)
    score = inner + OCTAVE_COST * (octaves - octaves[0])
    # The penalty makes a lag that is not a peak lose to every lag that is one.
    score -= np.float32(2.0) * slope
    hertz, strength = _refine(correlation, lags, score.argmax(axis=1))
    sure = active & (strength > RANGE_STRENGTH)
    if np.count_nonzero(sure) >= MIN_VOICED_FRAMES:
        quartiles = find_quantiles(np.sort(hertz[sure]), (0.25, 0.75))
        low, high = np.log2(quartiles * np.array(RANGE_FACTORS, np.float32))
        outside = np.maximum(0.0, low - octaves) + np.maximum(0.0, octaves - high)
        score -= RANGE_COST * outside
        hertz, strength = _refine(correlation, lags, score.argmax(axis=1))
    return PitchTrack(hertz, strength, active & (strength > VOICED_STRENGTH), power)


class _Correlator(NamedTuple):
    """Maps power spectra to autocorrelations, for only the relevant bins and lags."""

    lags: FloatArray  # (lags,): those of the pitch range
    scale: FloatArray  # (bins,): weights whose product with the power is the energy
    inverse: FloatArray  # (bins, lags + 2): inverse transform, with one more lag at each end
    own: FloatArray  # (lags + 2,): normalised autocorrelation of the window


@lru_cache(maxsize=1)
def _create_correlator(window_length: int) -> _Correlator:
    frequency = np.fft.rfftfreq(FFT_SIZE, 1.0 / ANALYSIS_RATE)
    full, none = PERIODIC_BAND_HZ
    weight = np.clip((none - frequency) / (none - full), 0.0, 1.0)
    bins = np.arange(np.count_nonzero(frequency < none))
    lags = np.arange(int(ANALYSIS_RATE / MAX_PITCH_HZ), int(ANALYSIS_RATE / MIN_PITCH_HZ) + 2)
    around = np.arange(lags[0] - 1, lags[-1] + 2)
    scale = (np.where(bins == 0, 1.0, 2.0) * weight[bins] / FFT_SIZE).astype(np.float32)
    inverse = scale[:, None] * np.cos(2.0 * np.pi / FFT_SIZE * np.outer(bins, around))
    window = spectral.hann(window_length)
    own = np.fft.irfft(np.abs(np.fft.rfft(window, FFT_SIZE)) ** 2, FFT_SIZE)
    shares = (own[around] / own[0]).astype(np.float32)
    return _Correlator(lags.astype(np.float32), scale, inverse.astype(np.float32), shares)


def _normalised_autocorrelation(power: FloatArray, correlator: _Correlator) -> FloatArray:
    """Return the autocorrelation at all lags and one more at each end (Boersma 1993)."""
    band = power[:, : len(correlator.scale)]
    energy = band @ correlator.scale
    guarded = energy + RELATIVE_FLOOR * energy.max() + TINY
    correlation: FloatArray = band @ correlator.inverse
    correlation /= guarded[:, None]
    correlation /= correlator.own
    return correlation


def _refine(
    correlation: FloatArray, lags: FloatArray, best: NDArray[np.intp]
) -> tuple[FloatArray, FloatArray]:
    """Return pitch in Hz and strength at the top of a parabola.

    The parabola passes through the chosen lag (column ``best + 1``) and its neighbours.
    """
    place = np.arange(len(best)) * correlation.shape[1] + best
    before, at, after = (correlation.take(place + step) for step in range(3))
    bend = np.minimum(before - 2.0 * at + after, -1e-6)
    shift = (0.5 * (before - after) / bend).clip(-0.5, 0.5)
    strength = (at - 0.25 * (before - after) * shift).clip(0.0, 1.0)
    return ANALYSIS_RATE / (lags[best] + shift), strength


def harmonics_to_noise(track: PitchTrack) -> FloatArray:
    """Return the harmonics-to-noise ratio in dB (Boersma 1993), shape (T, 1)."""
    strength = np.clip(track.strength, *STRENGTH_LIMITS)
    ratio = 10.0 * np.log10(strength / (1.0 - strength))
    return ratio.astype(np.float32)[:, None]


@cache
def harmonic_names() -> tuple[str, ...]:
    """Return the names of the columns of `harmonic_levels`."""
    formants = range(1, len(FORMANT_BANDS_HZ) + 1)
    return (
        *(f"h1_h{n}" for n in range(2, HARMONICS + 1)),
        *(f"h1_a{n}" for n in formants),
        *(f"h2_a{n}" for n in formants),
        "a1_a2",
        "a1_a3",
        "a2_a3",
    )


def harmonic_levels(track: PitchTrack) -> FloatArray:
    """Return level differences in dB of harmonics and formant bands (breathy or pressed voice).

    H1-H2 and H1-A3 follow Hanson (1997), with the strongest bin of a fixed band for each formant.

    Parameters
    ----------
    track : PitchTrack
        Pitch track of the signal.

    Returns
    -------
    FloatArray, shape (T, 16)
    """
    power = track.power
    width = ANALYSIS_RATE / FFT_SIZE
    order = np.arange(1, HARMONICS + 1, dtype=np.float32)
    centre = np.rint(track.hertz[:, None] * (order / width)).astype(np.intp)
    rows = np.arange(len(power))[:, None]
    last = power.shape[1] - 1
    near = (power[rows, np.minimum(centre + step, last)] for step in (-1, 0, 1))
    # In Fortran order, maxima are taken over all frames at once.
    bands = (
        np.asfortranarray(power[:, int(f / width) : int(g / width)]) for f, g in FORMANT_BANDS_HZ
    )
    peaks = (reduce(np.maximum, near), *(band.max(axis=1, keepdims=True) for band in bands))
    floor = np.float32(RELATIVE_FLOOR * power.max() + TINY)
    level = 10.0 * np.log10(np.concatenate(peaks, axis=1) + floor)
    h, a = level[:, :HARMONICS], level[:, HARMONICS:]
    parts = (
        h[:, :1] - h[:, 1:],
        h[:, :1] - a,
        h[:, 1:2] - a,
        a[:, :1] - a[:, 1:],
        a[:, 1:2] - a[:, 2:],
    )
    return np.concatenate(parts, axis=1)
