"""Fixed-length feature vector of a segment of speech, from the band below 4 kHz.

Frame descriptors (cepstra, spectral shape and contrast, harmonics, pitch) are summarised by
statistics over the active and the voiced frames, by modulation spectra, and by one covariance
between descriptors. Every level is relative to the signal's own, so gain has no effect, and
silence at the edges is ignored.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sercli.arrays import DoubleArray, FloatArray
from sercli.audio import SAMPLE_RATE
from sercli.audio.filters import limit_band
from sercli.features import pitch, spectral, summaries
from sercli.features.spectral import ANALYSIS_RATE, FRAME_RATE, HOP, WINDOW
from sercli.features.summaries import Block

# Name of this exact definition of the features, which a model requires.
FEATURE_SET: Final = "spectral-1"
MAX_BAND_LIMIT: Final = ANALYSIS_RATE / 2  # Hz
PITCH_WINDOW: Final = int(pitch.PITCH_WINDOW_SECONDS * ANALYSIS_RATE)
GATE_DB: Final = -25.0  # quieter frames are pauses or background
MIN_FRAMES: Final = 3  # a region with fewer is replaced by the active frames
LEVEL_MODULATION_FLOOR: Final = 1e-2  # squared dB
ENVELOPE_MODULATION_FLOOR: Final = 1e-5
ENVELOPE_POWER: Final = 0.25  # compression between loudness and amplitude
LEVEL_BANDS: Final = 8
ENVELOPE_BANDS: Final = 16
COVARIANCE_CEPSTRA: Final = 10
# Typical standard deviations: cepstra, their slopes, level (dB), pitch (semitones), tilt (dB),
# strength.
COVARIANCE_SCALES: Final = (
    *(10.0,) * COVARIANCE_CEPSTRA,
    *(3.0,) * COVARIANCE_CEPSTRA,
    *(10.0, 6.0, 10.0, 1.0 / 3.0),
)
COVARIANCE_FLOOR: Final = 0.02  # variance of noise added to each scaled descriptor
PITCH_REFERENCE_HZ: Final = 100.0
UNVOICED_SEMITONES: Final = 10.0  # pitch of segments without voiced frames: about 178 Hz
MAX_PITCH_STEP: Final = 3.0  # semitones per frame; more is an octave error
SYLLABLE_PEAK_DB: Final = -15.0
SYLLABLE_SMOOTHING: Final = 7  # frames


class Frames(NamedTuple):
    """Descriptors of T frames, see `_describe_frames`."""

    mel: FloatArray  # (T, 32), power relative to the signal's level
    log_mel: FloatArray  # (T, 32), dB
    cepstra: FloatArray  # (T, 16)
    shape: FloatArray  # (T, 22)
    contrast: FloatArray  # (T, 10)
    harmonics: FloatArray  # (T, 16), dB
    noise: FloatArray  # (T, 1), dB
    level: FloatArray  # (T, 1), dB
    semitones: FloatArray  # (T,), above 100 Hz; the median where unvoiced
    strength: FloatArray  # (T,)
    active: NDArray[np.bool_]  # (T,)
    voiced: NDArray[np.bool_]  # (T,)
    span: slice  # from the first to the last active frame


def extract_features(waveform: FloatArray, band_limit: float = MAX_BAND_LIMIT) -> FloatArray:
    """Return the feature vector of a segment.

    Parameters
    ----------
    waveform : FloatArray, shape (n_samples,)
        Mono, at 16 kHz, any gain, finite.
    band_limit : float
        Frequency in Hz, at most `MAX_BAND_LIMIT`, above which audio is removed.

    Returns
    -------
    FloatArray, shape (len(feature_names()),)
        Always finite.
    """
    return np.concatenate([block.values.ravel() for block in _blocks(waveform, band_limit)])


def extract_rows(waveforms: Sequence[FloatArray], band_limit: float) -> FloatArray:
    """Return the feature vectors of segments, shape (n_segments, len(feature_names())).

    Parameters
    ----------
    waveforms : Sequence[FloatArray]
        Segments, each as for `extract_features`.
    band_limit : float
        As for `extract_features`.
    """
    return np.stack([extract_features(waveform, band_limit) for waveform in waveforms])


@cache
def feature_names() -> tuple[str, ...]:
    """Return the name of every feature of `extract_features`, in order."""
    blocks = _blocks(np.zeros(SAMPLE_RATE, dtype=np.float32), MAX_BAND_LIMIT)
    return tuple(
        f"{block.source}.{row}.{column}"
        for block in blocks
        for row in block.rows
        for column in block.columns
    )


def _blocks(waveform: FloatArray, band_limit: float) -> list[Block]:
    """Return all features, in order."""
    frames = _describe_frames(_normalise(waveform, band_limit))
    shape = (*spectral.shape_names(), *spectral.contrast_names())
    cepstra = _numbered("cepstrum", spectral.CEPSTRA)
    mel = _numbered("mel", spectral.BANDS)
    static = np.concatenate(
        (frames.cepstra, frames.shape, frames.contrast, frames.noise, frames.level), axis=1
    )
    static_names = (*cepstra, *shape, "harmonics_to_noise_db", "level_db")
    change = summaries.slopes(
        np.concatenate((frames.cepstra, frames.log_mel, frames.shape, frames.level), 1)
    )
    change_names = (*cepstra, *mel, *spectral.shape_names(), "level_db")
    voiced = np.concatenate((static, frames.harmonics), axis=1)
    bend = summaries.slopes(change[:, : spectral.CEPSTRA])
    active, voiced_or_active = frames.active, _or_active(frames.voiced, frames.active)
    return [
        summaries.statistics("active", static_names, static[active]),
        summaries.statistics(
            "voiced", (*static_names, *pitch.harmonic_names()), voiced[voiced_or_active]
        ),
        summaries.statistics("change", change_names, change[active]),
        summaries.statistics("bend", cepstra, bend[active]),
        *_modulation_blocks(frames, cepstra),
        *_pitch_blocks(frames),
        _timing_block(frames),
        _covariance_block(frames, change),
    ]


def _normalise(waveform: FloatArray, band_limit: float) -> FloatArray:
    """Band-limit, halve the rate, scale to unit power; pad to at least one pitch window."""
    # A constant offset would be a step, and so a click, at the border to the padding.
    centred = waveform - waveform.mean()
    limited = limit_band(centred, band_limit, ANALYSIS_RATE)
    padded = np.zeros(max(PITCH_WINDOW, len(limited)), np.float32)
    padded[: len(limited)] = limited
    precise = padded.astype(np.float64)
    power = precise @ precise / len(precise)
    return padded / np.float32(np.sqrt(power)) if power > 0.0 else padded


def _cut(signal: FloatArray) -> FloatArray:
    """Return overlapping pitch windows centred on every `HOP`-th sample (a view)."""
    padded = np.zeros(len(signal) + PITCH_WINDOW, np.float32)
    padded[PITCH_WINDOW // 2 :][: len(signal)] = signal
    return np.lib.stride_tricks.sliding_window_view(padded, PITCH_WINDOW)[::HOP]


def _describe_frames(signal: FloatArray) -> Frames:
    """Return the descriptors of every frame."""
    windows = _cut(signal)
    margin = (PITCH_WINDOW - WINDOW) // 2
    power = spectral.power_spectrum(windows[:, margin : margin + WINDOW], WINDOW)
    power = spectral.limit_decay(power)
    mel: FloatArray = power @ spectral.mel_filters()
    energy = mel.sum(axis=1)
    reference = spectral.reference_level(energy)
    level = spectral.decibels(energy, reference)
    active = level > GATE_DB
    if np.count_nonzero(active) < MIN_FRAMES:
        loudest = int(level.argmax())
        active[max(0, loudest - 1) : loudest + 2] = True
    track = pitch.track_pitch(windows, active)
    semitones = 12.0 * np.log2(track.hertz / PITCH_REFERENCE_HZ)
    voiced = semitones[track.voiced]
    middle = summaries.median(voiced) if len(voiced) else UNVOICED_SEMITONES
    edges = np.flatnonzero(active)
    log_mel = spectral.decibels(mel * np.float32(spectral.BANDS), reference)
    return Frames(
        mel=mel * np.float32(spectral.BANDS / reference),
        log_mel=log_mel,
        cepstra=spectral.cepstra(log_mel),
        shape=spectral.spectral_shape(power, reference),
        contrast=spectral.spectral_contrast(power, reference),
        harmonics=pitch.harmonic_levels(track),
        noise=pitch.harmonics_to_noise(track),
        level=level[:, None],
        semitones=np.where(track.voiced, semitones, middle).astype(np.float32),
        strength=track.strength,
        active=active,
        voiced=track.voiced,
        span=slice(int(edges[0]), int(edges[-1]) + 1),
    )


@cache
def _numbered(name: str, count: int) -> tuple[str, ...]:
    """Return the names of `count` columns: ``name0``, ``name1``, ..."""
    return tuple(f"{name}{number}" for number in range(count))


def _or_active(region: NDArray[np.bool_], active: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a region, or the active frames if it is too small for statistics."""
    return region if np.count_nonzero(region) >= MIN_FRAMES else active


def _modulation_blocks(frames: Frames, cepstra: tuple[str, ...]) -> list[Block]:
    """Return modulation spectra of cepstra, levels, envelopes (Greenberg and Kingsbury 1997)."""
    trajectories = np.concatenate((frames.cepstra, frames.level), axis=1)[frames.span]
    levels = frames.log_mel[frames.span] @ spectral.band_means(LEVEL_BANDS)
    power = frames.mel[frames.span] @ spectral.band_means(ENVELOPE_BANDS)
    envelopes = power ** np.float32(ENVELOPE_POWER)
    names = (
        (*cepstra, "level_db"),
        _numbered("octave", LEVEL_BANDS),
        _numbered("envelope", ENVELOPE_BANDS),
    )
    together = np.concatenate((trajectories, levels, envelopes), axis=1)
    table = summaries.modulation(together, _modulation_floors())
    bounds = pairwise(accumulate(map(len, names), initial=0))
    return [
        Block("modulation", summaries.modulation_names(), columns, table[:, first:end])
        for columns, (first, end) in zip(names, bounds, strict=True)
    ]


@cache
def _modulation_floors() -> FloatArray:
    """Return the floor of every column whose modulation is measured."""
    floors = (LEVEL_MODULATION_FLOOR, ENVELOPE_MODULATION_FLOOR)
    counts = (spectral.CEPSTRA + 1 + LEVEL_BANDS, ENVELOPE_BANDS)
    return np.repeat(np.array(floors, np.float32), counts)


def _pitch_blocks(frames: Frames) -> list[Block]:
    """Return statistics of pitch and pitch steps, jitter and shimmer, over voiced frames."""
    voiced = frames.voiced
    pitches = frames.semitones[_or_active(voiced, frames.active)]
    both = voiced[1:] & voiced[:-1]
    steps = (frames.semitones[1:] - frames.semitones[:-1])[both]
    steps = steps[np.abs(steps) < MAX_PITCH_STEP]
    loudness = np.abs(frames.level[1:, 0] - frames.level[:-1, 0])[both]
    nothing = np.zeros(2, dtype=np.float32)
    steps = steps if len(steps) > 1 else nothing
    loudness = loudness if len(loudness) > 1 else nothing
    third = max(1, len(pitches) // 3)
    roughness = np.abs(steps[1:] - steps[:-1])
    single = {
        "jitter_median": summaries.median(roughness),
        "jitter_mean": roughness.mean(),
        "rising_share": (steps > 0.0).mean(),
        "onset_semitones": pitches[:third].mean() - pitches.mean(),
        "end_semitones": pitches[-third:].mean() - pitches.mean(),
        "shimmer_median_db": summaries.median(loudness),
        "shimmer_mean_db": loudness.mean(),
    }
    return [
        summaries.statistics("voiced", ("pitch_semitones",), pitches[:, None]),
        summaries.statistics("voiced", ("pitch_step_semitones",), steps[:, None]),
        _whole_block("voiced", single),
    ]


def _timing_block(frames: Frames) -> Block:
    """Return durations, pauses and rates of voiced runs and syllables in the active span."""
    active, voiced = frames.active[frames.span], frames.voiced[frames.span]
    level = frames.level[frames.span, 0]
    count = len(active)
    active_count, voiced_count = np.count_nonzero(active), np.count_nonzero(voiced)
    speech, rest, pauses = summaries.runs(voiced), summaries.runs(~voiced), summaries.runs(~active)
    margin = SYLLABLE_SMOOTHING // 2
    padded = np.concatenate((level[:1].repeat(margin), level, level[-1:].repeat(margin)))
    smooth = np.convolve(padded, _syllable_taper(), "valid")
    top = (smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:])
    peaks = np.count_nonzero(top & (smooth[1:-1] > SYLLABLE_PEAK_DB))
    single = {
        "log_span_frames": np.log(count),
        "log_active_frames": np.log(active_count),
        "active_share": active_count / count,
        "voiced_share": voiced_count / count,
        "voiced_share_of_active": voiced_count / active_count,
        "log_voiced_run_mean": np.log1p(speech.mean()),
        "log_voiced_run_max": np.log1p(speech.max()),
        "log_voiced_run_deviation": np.log1p(speech.std()),
        "log_unvoiced_run_mean": np.log1p(rest.mean()),
        "log_unvoiced_run_max": np.log1p(rest.max()),
        "log_pause_max": np.log1p(pauses.max()),
        "log_pause_sum": np.log1p(pauses.sum()),
        "voiced_runs_per_second": len(speech) / count * FRAME_RATE,
        "peaks_per_second": peaks / count * FRAME_RATE,
        "log_peaks": np.log1p(peaks),
    }
    return _whole_block("span", single)


@cache
def _syllable_taper() -> DoubleArray:
    """Return the weights with which levels are smoothed; their sum is 1."""
    taper = np.hanning(SYLLABLE_SMOOTHING + 2)[1:-1]
    weights: DoubleArray = taper / taper.sum()
    return weights


def _whole_block(source: str, values: Mapping[str, float]) -> Block:
    """Return features that have a single value for the whole segment, by their names."""
    return Block(source, ("whole",), tuple(values), np.array([[*values.values()]], np.float32))


def _covariance_block(frames: Frames, change: FloatArray) -> Block:
    """Return the matrix logarithm of the descriptors' covariance (Arsigny et al. 2006).

    The covariance is over active frames. With the logarithm, the Euclidean distance in the SVM's
    kernel is a distance between covariances. Off-diagonal entries count twice, hence the factor
    of the square root of 2.
    """
    tilt = frames.shape[:, spectral.shape_names().index("alpha_ratio_db")]
    others = np.stack((frames.level[:, 0], frames.semitones, tilt, frames.strength), axis=1)
    kept = slice(0, COVARIANCE_CEPSTRA)
    joint = np.concatenate((frames.cepstra[:, kept], change[:, kept], others), axis=1)
    scaled = joint[frames.active].astype(np.float64) / COVARIANCE_SCALES
    scaled -= scaled.mean(axis=0)
    covariance = scaled.T @ scaled / len(scaled)
    values, vectors = np.linalg.eigh(covariance + COVARIANCE_FLOOR * np.eye(len(covariance)))
    logarithm = (vectors * np.log(np.maximum(values, COVARIANCE_FLOOR))) @ vectors.T
    pairs = _covariance_pairs()
    entries = (logarithm * pairs.weights)[pairs.rows, pairs.columns]
    return Block("covariance", ("log",), pairs.names, entries[None, :].astype(np.float32))


class _CovariancePairs(NamedTuple):
    """Indices, weights and names of the upper triangle of a covariance, with its diagonal."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    weights: DoubleArray  # for the whole matrix
    names: tuple[str, ...]


@cache
def _covariance_pairs() -> _CovariancePairs:
    labels = (
        *_numbered("cepstrum", COVARIANCE_CEPSTRA),
        *_numbered("change", COVARIANCE_CEPSTRA),
        *("level", "pitch", "tilt", "strength"),
    )
    rows, columns = np.triu_indices(len(labels))
    weights = np.where(np.eye(len(labels)), 1.0, np.sqrt(2.0))
    names = tuple(f"{labels[i]}:{labels[j]}" for i, j in zip(rows, columns, strict=True))
    return _CovariancePairs(rows, columns, weights, names)
