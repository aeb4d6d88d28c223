"""Log-mel spectra, their cepstra and the shape of the spectrum, for all frames at once.

All levels are relative to the signal's own energy-weighted level, so that gain and added silence
do not affect them.
"""

from functools import cache, lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from sercli.arrays import FloatArray

BANDS: Final = 32
CEPSTRA: Final = 16
LOW_HZ: Final = 60.0  # above mains hum and a constant offset
HIGH_HZ: Final = 3800.0
FLOOR_DB: Final = -35.0  # below the level of the signal: above the noise of most rooms
ANALYSIS_RATE: Final = 8000  # Hz; nothing is lost below half of it
HOP: Final = 80  # samples at ANALYSIS_RATE: 10 ms
WINDOW: Final = 256  # 32 ms
FRAME_RATE: Final = ANALYSIS_RATE / HOP  # Hz
MAX_DECAY_DB: Final = 2.0  # per hop: a room that takes 0.3 s to lose 60 dB
SHAPE_FLOOR: Final = 1e-3  # share of the signal's level, spread over the bins: about -36 dB
EDGES_HZ: Final = (60.0, 250.0, 500.0, 1000.0, 1500.0, 2500.0, 3800.0)
CONTRAST_EDGES_HZ: Final = (60.0, 250.0, 500.0, 1000.0, 2000.0, 3800.0)
CONTRAST_SHARE: Final = 0.2  # share of a band's bins that are its peaks, and that are its valleys
ROLLOFF_SHARES: Final = (0.25, 0.5, 0.85, 0.95)
SLOPE_BANDS_HZ: Final = ((60.0, 500.0), (500.0, 1500.0), (1500.0, 3600.0))
ALPHA_SPLIT_HZ: Final = 1000.0
HAMMARBERG_SPLIT_HZ: Final = 2000.0
DECIBEL: Final = float(10.0 / np.log(10.0))  # per unit of the natural logarithm of a power
TINY: Final = 1e-20  # keeps digital silence finite; far below any signal of unit power


@lru_cache(maxsize=4)
def hann(length: int) -> FloatArray:
    """Return a Hann window without the zeros at its ends, shape (length,)."""
    window: FloatArray = np.hanning(length + 2)[1:-1].astype(np.float32)
    return window


def power_spectrum(frames: FloatArray, size: int, *, is_centred: bool = False) -> FloatArray:
    """Return Hann-windowed power spectra, padded to `size`: (T, window) to (T, size // 2 + 1).

    If `is_centred`, they are those of the frames without their means.

    For frames this short, two matrix products are faster than NumPy's FFT. Since the window is
    symmetric, cosines need only the sums, and sines the differences, of samples that are equally
    far from the middle of a frame.
    """
    half = frames.shape[1] // 2
    cosines, sines = _half_transform(half, size, is_centred=is_centred)
    before, after = frames[:, half - 1 :: -1], frames[:, half:]
    power: FloatArray = np.matmul(after + before, cosines)
    other = np.matmul(after - before, sines)
    power *= power
    other *= other
    power += other
    return power


@lru_cache(maxsize=4)
def _half_transform(half: int, size: int, *, is_centred: bool) -> tuple[FloatArray, FloatArray]:
    """Return windowed cosines and sines from the middle of a frame on, each (half, bins)."""
    time = np.arange(half)[:, None] + 0.5  # the middle lies between two samples
    phase = 2.0 * np.pi / size * time * np.arange(size // 2 + 1)
    window = hann(2 * half)[half:, None]
    cosines, sines = window * np.cos(phase), window * np.sin(phase)
    if is_centred:  # to take means from the cosines is to take them from the frames
        cosines -= cosines.mean(axis=0)
    return cosines.astype(np.float32), sines.astype(np.float32)


def limit_decay(power: FloatArray) -> FloatArray:
    """Limit how fast each bin falls to the decay of sound in a room.

    Recordings close to the mouth decay faster than a room allows; to a classifier trained on
    recordings of rooms, they would be unlike all training data.

    Parameters
    ----------
    power : FloatArray, shape (T, F)
        Power spectra.

    Returns
    -------
    FloatArray, shape (T, F)
    """
    per_frame = MAX_DECAY_DB / 10.0 * np.log2(10.0)
    ramp = np.arange(len(power), dtype=np.float32)[:, None] * np.float32(per_frame)
    held = np.log2(power + TINY) + ramp
    step = 1
    while step < len(held):  # doubling is twice as fast as np.maximum.accumulate
        np.maximum(held[step:], held[:-step], out=held[step:])
        step *= 2
    held -= ramp
    limited: FloatArray = np.exp2(held, out=held)
    return limited


@cache
def mel_filters() -> FloatArray:
    """Return triangular mel filters (Davis and Mermelstein 1980), each with the sum 1.

    Returns
    -------
    FloatArray, shape (WINDOW // 2 + 1, BANDS)
    """
    frequency = np.fft.rfftfreq(WINDOW, 1.0 / ANALYSIS_RATE)
    low, high = (2595.0 * np.log10(1.0 + f / 700.0) for f in (LOW_HZ, HIGH_HZ))
    edges = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    # The lowest triangles are narrower than a bin: without summing over a fine grid, some would be
    # empty.
    fine = np.arange(0.0, frequency[-1], 2.0)[:, None]
    rising = (fine - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - fine) / (edges[2:] - edges[1:-1])
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters = np.zeros((len(frequency), BANDS))
    np.add.at(filters, np.rint(fine[:, 0] / frequency[1]).astype(np.intp), triangles)
    normalised: FloatArray = (filters / filters.sum(axis=0)).astype(np.float32)
    return normalised


@cache
def band_means(count: int) -> FloatArray:
    """Return weights that map mel bands to means of neighbours, shape (BANDS, count)."""
    width = BANDS // count
    means: FloatArray = (np.repeat(np.eye(count), width, axis=0) / width).astype(np.float32)
    return means


def reference_level(energy: FloatArray) -> float:
    """Return the energy-weighted mean of the frame energies, which ignores added silence."""
    return float((energy * energy).sum() / (energy.sum() + TINY)) + TINY


def decibels(power: FloatArray, level: float) -> FloatArray:
    """Return levels in dB above `level`, with a soft floor at `FLOOR_DB`."""
    floor = 10.0 ** (FLOOR_DB / 10.0)
    relative: FloatArray = (10.0 * np.log10(power / level + floor)).astype(np.float32)
    return relative


@cache
def _cosine_basis() -> FloatArray:
    order = np.arange(CEPSTRA)
    basis = np.cos(np.pi * (np.arange(BANDS)[:, None] + 0.5) * order / BANDS)
    basis *= np.where(order == 0, np.sqrt(1.0 / BANDS), np.sqrt(2.0 / BANDS))
    return np.asarray(basis, np.float32)


def cepstra(log_mel: FloatArray) -> FloatArray:
    """Return the orthonormal cosine transform over bands: (T, BANDS) to (T, CEPSTRA)."""
    return log_mel @ _cosine_basis()


@cache
def shape_names() -> tuple[str, ...]:
    """Return the names of the columns of `spectral_shape`."""
    return (
        *("centroid_khz", "spread_khz", "skewness", "log_kurtosis", "flatness_db", "entropy"),
        *(f"rolloff{100 * share:.0f}_octaves" for share in ROLLOFF_SHARES),
        *("alpha_ratio_db", "hammarberg_db"),
        *(f"slope{low:.0f}_db_per_khz" for low, _ in SLOPE_BANDS_HZ),
        "flux",
        *(f"band{low:.0f}_db" for low in EDGES_HZ[:-1]),
    )


def spectral_shape(power: FloatArray, level: float) -> FloatArray:
    """Return moments, roll-off, tilt and change of the spectrum.

    Alpha ratio, Hammarberg index and slopes follow Eyben et al. (2016, eGeMAPS), limited to the
    band that a telephone carries; the others follow Peeters (2004).

    Parameters
    ----------
    power : FloatArray, shape (T, WINDOW // 2 + 1)
        Power spectra.
    level : float
        Reference level of the floor, see `reference_level`.

    Returns
    -------
    FloatArray, shape (T, 22)
    """
    inside = _find_bins(LOW_HZ, HIGH_HZ)
    hertz = _frequencies()[inside]
    # In Fortran order, the loops over frames are long, whatever is summed.
    power = power[:, inside].copy(order="F")
    power += np.float32(SHAPE_FLOOR * level / len(hertz))
    total = power.sum(axis=1)
    share = power / total[:, None]
    log_power = np.log(power)
    weights = _shape_weights()
    bands = DECIBEL * np.log(share @ weights.bands).T
    mean, *slopes = (log_power @ weights.slopes).T
    split = _find_bins(HAMMARBERG_SPLIT_HZ, HIGH_HZ).start - inside.start
    hammarberg = DECIBEL * (log_power[:, :split].max(axis=1) - log_power[:, split:].max(axis=1))
    tilt = (bands[-2] - bands[-1], hammarberg, *slopes)
    log_total = np.log(total)
    flatness = DECIBEL * (mean - log_total + np.float32(np.log(len(hertz))))
    entropy = log_total - _products(share, log_power)
    columns = (*_moments(share, hertz), flatness, entropy, *_rolloff(share, hertz), *tilt)
    return np.array((*columns, _flux(share), *bands[:-2]), np.float32).T


@cache
def _frequencies() -> FloatArray:
    """Return the frequencies of the bins of windows of `WINDOW` samples in Hz."""
    return np.fft.rfftfreq(WINDOW, 1.0 / ANALYSIS_RATE).astype(np.float32)


@cache
def _find_bins(low: float, high: float) -> slice:
    """Return the bins with frequencies from `low` to below `high` Hz."""
    first, end = np.searchsorted(_frequencies(), (low, high))
    return slice(int(first), int(end))


def _products(left: FloatArray, right: FloatArray) -> FloatArray:
    """Return the products of rows: (T, F) and (T, F) to (T,)."""
    products: FloatArray = np.einsum("ij,ij->i", left, right)
    return products


class _ShapeWeights(NamedTuple):
    """Matrices whose products with the spectra give several columns at once."""

    bands: FloatArray  # (F, 8): sums of the bands of EDGES_HZ, and below and above ALPHA_SPLIT_HZ
    slopes: FloatArray  # (F, 4): mean, and slopes in dB per kHz of logarithms in SLOPE_BANDS_HZ


@cache
def _shape_weights() -> _ShapeWeights:
    hertz = _frequencies()[_find_bins(LOW_HZ, HIGH_HZ)].astype(np.float64)
    edges = (*pairwise(EDGES_HZ), (LOW_HZ, ALPHA_SPLIT_HZ), (ALPHA_SPLIT_HZ, np.inf))
    bands = [(hertz >= low) & (hertz < high) for low, high in edges]
    slopes = [np.full(len(hertz), 1.0 / len(hertz))]
    for low, high in SLOPE_BANDS_HZ:
        inside = (hertz >= low) & (hertz < high)
        offset = np.where(inside, hertz - hertz[inside].mean(), 0.0) / 1000.0
        slopes.append(DECIBEL * offset / (offset @ offset))
    return _ShapeWeights(np.array(bands, np.float32).T, np.array(slopes, np.float32).T)


def _flux(share: FloatArray) -> FloatArray:
    """Return the distance between the amplitudes of a frame and those of the one before."""
    root = np.sqrt(share)
    step = root[1:] - root[:-1]
    return np.concatenate((np.zeros(1, np.float32), np.sqrt(_products(step, step))))


def _moments(share: FloatArray, hertz: FloatArray) -> tuple[FloatArray, ...]:
    """Return centroid and spread in kHz, skewness and log kurtosis."""
    centroid = share @ hertz
    offset = np.subtract(hertz, centroid[:, None], order="F")
    weighted = share * offset
    weighted *= offset
    spread = np.sqrt(weighted.sum(axis=1) + np.float32(1.0))  # at least 1 Hz
    skewness = _products(weighted, offset) / spread**3
    weighted *= offset
    kurtosis = _products(weighted, offset) / spread**4
    return centroid / 1000.0, spread / 1000.0, skewness, np.log(kurtosis + 1e-3)


def _rolloff(share: FloatArray, hertz: FloatArray) -> tuple[FloatArray, ...]:
    """Return the roll-off for each of `ROLLOFF_SHARES` of the energy, in octaves above 1 Hz."""
    cumulative = np.cumsum(share, axis=1)
    octaves = np.log2(hertz)
    below = (cumulative < part for part in ROLLOFF_SHARES)
    # There are fewer bins than a byte can count.
    return tuple(octaves[bins.view(np.uint8).sum(axis=1, dtype=np.uint8)] for bins in below)


@cache
def contrast_names() -> tuple[str, ...]:
    """Return the names of the columns of `spectral_contrast`."""
    return tuple(
        f"{kind}{low:.0f}_db" for low in CONTRAST_EDGES_HZ[:-1] for kind in ("contrast", "valley")
    )


def spectral_contrast(power: FloatArray, level: float) -> FloatArray:
    """Return the spectral contrast and the valleys of octave bands in dB (Jiang et al. 2002).

    Parameters
    ----------
    power : FloatArray, shape (T, WINDOW // 2 + 1)
        Power spectra.
    level : float
        Reference level (0 dB) of the valleys, see `reference_level`.

    Returns
    -------
    FloatArray, shape (T, 10)
        For each band its contrast (peaks over valleys) and the level of its valleys.
    """
    parts = []
    for low, high in pairwise(CONTRAST_EDGES_HZ):
        ordered = np.sort(power[:, _find_bins(low, high)], axis=1)
        count = max(1, int(CONTRAST_SHARE * ordered.shape[1]))
        parts += [ordered[:, -count:], ordered[:, :count]]
    chosen = np.concatenate(parts, axis=1)
    chosen += np.float32(level * SHAPE_FLOOR / power.shape[1])
    levels: FloatArray = np.multiply(np.log(chosen / np.float32(level)), DECIBEL)
    return levels @ _contrast_weights(tuple(part.shape[1] for part in parts))


@lru_cache(maxsize=1)
def _contrast_weights(counts: tuple[int, ...]) -> FloatArray:
    """Return a matrix that maps the levels of peaks, valleys, peaks, ... to the contrasts."""
    means = np.repeat(np.eye(len(counts)), counts, axis=0) / np.repeat(counts, counts)[:, None]
    means[:, ::2] -= means[:, 1::2]
    return np.asarray(means, np.float32)
