from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from sercli.audio.filters import limit_band, telephone_band
from sercli.features import spectral, summaries
from sercli.features.vector import extract_features, extract_rows, feature_names

RATE = 16_000

Wave = NDArray[np.float32]


def tone(frequency: float, duration: float = 1.0) -> NDArray[np.float32]:
    time = np.arange(round(duration * RATE)) / RATE
    return np.sin(2 * np.pi * frequency * time).astype(np.float32)


def voice(pitch: float, duration: float = 1.0) -> NDArray[np.float32]:
    """Harmonics that fall by 6 dB an octave, up to 3.5 kHz."""
    partials = [tone(pitch * n, duration) / n for n in range(1, int(3_500 / pitch))]
    result: NDArray[np.float32] = np.sum(partials, axis=0).astype(np.float32) / 10
    return result


def feature(waveform: NDArray[np.float32], name: str) -> float:
    return float(extract_features(waveform)[feature_names().index(name)])


def level(waveform: NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(waveform[1_600:-1_600] ** 2)))


@pytest.mark.parametrize(
    ("frequency", "gain"),
    [
        (100, 1),
        (3_500, 1),
        (3_600, 1),
        (3_700, (1 + np.sqrt(0.5)) / 2),
        (3_800, 0.5),
        (3_900, (1 - np.sqrt(0.5)) / 2),
        (4_010, 0),
        (7_000, 0),
    ],
)
def test_band_limit(frequency: float, gain: float) -> None:
    wave = tone(frequency)
    assert level(limit_band(wave, 4_000)) / level(wave) == pytest.approx(gain, abs=0.01)


@pytest.mark.parametrize(
    ("frequency", "gain"),
    [
        (50, 0),
        (240, 0),
        (275, 0.25),
        (325, 0.75),
        (400, 1),
        (3_200, 1),
        (3_350, 0.75),
        (3_450, 0.25),
        (3_550, 0),
        (6_000, 0),
    ],
)
def test_telephone_band(frequency: float, gain: float) -> None:
    wave = tone(frequency)
    assert level(telephone_band(wave)) / level(wave) == pytest.approx(gain, abs=0.01)


def test_filters_do_not_delay() -> None:
    wave = tone(1_000)
    np.testing.assert_allclose(limit_band(wave, 4_000)[400:-400], wave[400:-400], atol=1e-3)


@pytest.mark.parametrize("limit", [lambda wave: limit_band(wave, 4_000), telephone_band])
def test_filters_fade_edges_and_do_not_wrap_them_around(limit: Callable[[Wave], Wave]) -> None:
    # Both edges rise within 8 ms; the rest passes.
    wave, ramp = tone(1_000), np.sin(np.linspace(0, np.pi / 2, 128, endpoint=False)) ** 2
    expected = np.concatenate((ramp * wave[:128], wave[128:-128], ramp[::-1] * wave[-128:]))
    np.testing.assert_allclose(limit(wave), expected, atol=1e-3)
    # Of an abrupt edge of a sound that is cut off, no click is left.
    assert np.abs(limit(tone(7_000))).max() < 1e-4
    # Where the band begins or ends, filters ring after the end, but not at the start.
    for edge in (300, 3_800):
        late = np.concatenate((np.zeros(2**14 - 4_000, np.float32), tone(edge, 0.25)))
        assert np.abs(limit(late)[:2_000]).max() < 1e-4


def test_filters_keep_the_length_of_anything() -> None:
    for n_samples in (1, 2, 15, 16_001):
        assert limit_band(np.ones(n_samples, np.float32), 4_000).shape == (n_samples,)


@pytest.mark.parametrize("limit", [4_000, 2_500])
def test_band_limit_at_half_the_rate_is_every_other_sample(
    limit: float, rng: np.random.Generator
) -> None:
    for n_samples in (1, 2, 4_000, 16_001):
        wave = rng.standard_normal(n_samples).astype(np.float32)
        halved = limit_band(wave, limit, 8_000)
        np.testing.assert_allclose(halved, limit_band(wave, limit)[::2], atol=1e-5)


def test_names_are_unique_and_match() -> None:
    names = feature_names()
    assert len(set(names)) == len(names) == len(extract_features(voice(120)))


@pytest.mark.parametrize("pitch", [80.0, 120.0, 220.0, 400.0])
def test_pitch_is_in_semitones_above_100_hz(pitch: float) -> None:
    expected = 12 * np.log2(pitch / 100)
    name = "voiced.quantile50.pitch_semitones"
    assert feature(voice(pitch), name) == pytest.approx(expected, abs=0.15)


def test_brighter_sound_has_a_higher_centroid() -> None:
    name = "active.mean.centroid_khz"
    assert feature(tone(500), name) == pytest.approx(0.5, abs=0.05)
    assert feature(tone(2_500), name) == pytest.approx(2.5, abs=0.05)


def test_noise_is_not_voiced(rng: np.random.Generator) -> None:
    noise = 0.1 * rng.standard_normal(RATE).astype(np.float32)
    assert feature(noise, "span.whole.voiced_share") < 0.05
    assert feature(voice(150), "span.whole.voiced_share") > 0.9


@pytest.mark.parametrize("gain", [0.001, 0.1, 10.0])
def test_gain_changes_nothing(speech: NDArray[np.float32], gain: float) -> None:
    segment = speech[RATE : 4 * RATE]
    expected = extract_features(segment)
    # What is left is rounding, which differs between processors; loudness would be decibels.
    np.testing.assert_allclose(extract_features(gain * segment), expected, atol=1e-2)


def test_silence_around_speech_changes_little(speech: NDArray[np.float32]) -> None:
    segment = speech[17_000:43_000]
    padded = np.pad(segment, (8_000, 8_000))
    for name, tolerance in (
        ("active.mean.cepstrum1", 0.2),  # clips of a corpus differ by 10 and more
        ("voiced.mean.pitch_semitones", 0.05),
        ("span.whole.log_span_frames", 0.05),
    ):
        assert feature(padded, name) == pytest.approx(feature(segment, name), abs=tolerance)


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(RATE, np.float32),
        np.ones(RATE, np.float32),
        np.eye(1, RATE, 500, dtype=np.float32)[0],
        np.full(1_600, 1e-20, np.float32),
        np.zeros(1_600, np.float32),
        np.ones(10, np.float32),
        tone(100, 0.1),
        tone(3_999, 0.1) * 1e6,
    ],
)
def test_anything_gives_finite_features(waveform: NDArray[np.float32]) -> None:
    features = extract_features(waveform)
    assert features.dtype == np.float32
    assert np.all(np.isfinite(features))


def test_a_segment_has_the_same_features_in_any_batch(
    speech: NDArray[np.float32], rng: np.random.Generator
) -> None:
    lengths = (1_600, 48_000, 8_000, 20_001, 48_000)
    waveforms = [speech[start : start + length] for start, length in enumerate(lengths, 16_000)]
    waveforms += [
        np.zeros(8_000, np.float32),
        tone(440),
        rng.standard_normal(99).astype(np.float32),
    ]
    alone = np.stack([extract_features(waveform) for waveform in waveforms])
    np.testing.assert_array_equal(extract_rows(waveforms, 4_000), alone)
    np.testing.assert_array_equal(extract_rows(waveforms[::-1], 4_000), alone[::-1])


@pytest.mark.parametrize(("window", "size"), [(256, 256), (384, 512)])
@pytest.mark.parametrize("is_centred", [False, True])
def test_power_spectra_are_those_of_a_windowed_fft(
    window: int, size: int, is_centred: bool, rng: np.random.Generator
) -> None:
    frames = (rng.standard_normal((7, window)) + 5).astype(np.float32)
    centred = frames - frames.mean(axis=1, keepdims=True) if is_centred else frames
    taper = np.hanning(window + 2)[1:-1]
    expected = np.abs(np.fft.rfft(centred * taper, size)) ** 2
    power = spectral.power_spectrum(frames, size, is_centred=is_centred)
    np.testing.assert_allclose(power, expected, rtol=1e-3, atol=1e-5 * expected.max())


def test_spectra_are_left_as_they_are(rng: np.random.Generator) -> None:
    for power in rng.random((2, 5, 129), np.float32), rng.random((129, 5), np.float32).T[None]:
        before = power[0].copy()
        spectral.spectral_shape(power[0], 1.0)
        spectral.spectral_contrast(power[0], 1.0)
        np.testing.assert_array_equal(power[0], before)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 11])
def test_quantiles_and_medians_are_those_of_numpy(count: int, rng: np.random.Generator) -> None:
    values = rng.standard_normal(count).astype(np.float32)
    shares = (0.0, 0.05, 0.25, 0.5, 0.95, 1.0)
    found = summaries.find_quantiles(np.sort(values), shares)
    np.testing.assert_allclose(found, np.quantile(values, shares), atol=1e-6)
    assert summaries.median(values) == pytest.approx(np.median(values), abs=1e-6)


def test_modulation_is_in_the_band_of_its_frequency() -> None:
    time = np.arange(200) / 100
    values = np.stack((np.sin(2 * np.pi * 4 * time), np.sin(2 * np.pi * 10 * time)), axis=1)
    table = summaries.modulation(values.astype(np.float32), np.array([1e-3, 1e-2], np.float32))
    edges = summaries.MODULATION_EDGES_HZ
    assert [(edges[row], edges[row + 1]) for row in table.argmax(axis=0)] == [(3, 5), (8, 12)]
    # The mean square of a sine is 1/2, of its taper 3/8; far from it, only the floor is left.
    assert np.exp(table.max(axis=0)) == pytest.approx(np.array([3 / 16, 3 / 16]), rel=0.1)
    assert np.exp(table[-1]) == pytest.approx(np.array([1e-3, 1e-2]), rel=0.05)
