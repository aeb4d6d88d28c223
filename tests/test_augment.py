from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from sercli.audio import augment
from sercli.audio.augment import Utterance

RATE = 16_000


@pytest.fixture
def utterance(rng: np.random.Generator) -> Utterance:
    waveform = 0.001 * rng.standard_normal(3 * RATE).astype(np.float32)
    waveform[RATE : 2 * RATE] += 0.1 * rng.standard_normal(RATE).astype(np.float32)
    return Utterance(waveform, RATE, 2 * RATE)


def power(waveform: NDArray[np.float32]) -> float:
    return float(np.mean(waveform.astype(np.float64) ** 2))


@pytest.mark.parametrize("snr", [0.0, 20.0])
def test_noise_is_as_far_below_the_speech_as_asked(
    utterance: Utterance, rng: np.random.Generator, snr: float
) -> None:
    noise = rng.standard_normal(3 * RATE).astype(np.float32)
    added = augment.mix(utterance.waveform, noise, snr) - utterance.waveform
    # The level of the speech is that of its active frames, not of the clip with its silence.
    speech = power(utterance.waveform[RATE : 2 * RATE])
    assert 10 * np.log10(speech / power(added)) == pytest.approx(snr, abs=0.1)


@pytest.mark.parametrize(("colour", "slope"), [(0.0, 0.0), (1.0, -3.01), (2.0, -6.02)])
def test_colour_is_a_slope_in_db_per_octave(
    rng: np.random.Generator, colour: float, slope: float
) -> None:
    noise = augment.coloured_noise(2**18, colour, rng)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    frequencies = np.fft.rfftfreq(len(noise), 1 / RATE)
    octaves = [
        10 * np.log10(spectrum[(frequencies >= low) & (frequencies < 2 * low)].mean())
        for low in (250, 500, 1_000, 2_000)
    ]
    assert np.polyfit(range(4), octaves, 1)[0] == pytest.approx(slope, abs=0.3)


def test_reverberation_decays_by_60_db_in_its_time(rng: np.random.Generator) -> None:
    click = np.eye(1, RATE, 0, dtype=np.float32)[0]
    response = augment.reverberate(click, 0.5, 6.0, rng)
    assert response[0] == pytest.approx(1, abs=1e-4)
    tail = response[1 : RATE // 2]
    assert 10 * np.log10(power(tail) * len(tail)) == pytest.approx(-6, abs=0.3)
    early, late = power(tail[:800]), power(tail[3_200:4_000])  # 0.2 s apart
    assert 10 * np.log10(early / late) == pytest.approx(0.2 / 0.5 * 60, abs=1.5)
    assert np.abs(response[RATE // 2 + 1 :]).max() < 1e-4


def test_join_keeps_the_background_in_the_pause(utterance: Utterance) -> None:
    joined = augment.join(utterance, utterance, 0.25)
    assert len(joined) == 2.25 * RATE
    np.testing.assert_array_equal(joined[: int(1.25 * RATE)], utterance.waveform[RATE:36_000])
    np.testing.assert_array_equal(joined[-RATE:], utterance.waveform[RATE : 2 * RATE])
    long = Utterance(np.ones(5 * RATE, np.float32), 0, 5 * RATE)
    assert len(augment.join(long, long, 0.1)) == 6 * RATE


def test_crops_lie_within(rng: np.random.Generator) -> None:
    ramp = np.arange(4 * RATE, dtype=np.float32)
    starts = set()
    for _ in range(50):
        piece = augment.crop(ramp, 1.5, rng)
        assert len(piece) == 1.5 * RATE
        assert np.all(np.diff(piece) == 1)
        starts.add(piece[0])
    assert len(starts) > 40
    np.testing.assert_array_equal(augment.crop(ramp, 9.0, rng), ramp)


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.19])
def test_a_changed_voice_is_faster_and_higher(factor: float) -> None:
    wave = np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE).astype(np.float32)
    changed = augment.change_voice(wave, factor)
    assert changed.dtype == np.float32
    assert len(changed) == pytest.approx(2 * RATE / factor, abs=1)
    spectrum = np.abs(np.fft.rfft(changed * np.hanning(len(changed))))
    assert np.argmax(spectrum) * RATE / len(changed) == pytest.approx(440 * factor, abs=1)


def test_equaliser_is_smooth_and_bounded(rng: np.random.Generator) -> None:
    click = np.eye(1, RATE, RATE // 2, dtype=np.float32)[0]
    for _ in range(20):
        gains = 20 * np.log10(np.abs(np.fft.rfft(augment.equalise(click, rng)))[60:7_900:10])
        assert np.abs(gains).max() < 15 + 6 + 1
        assert np.ptp(gains) > 0.5


def test_babble_is_several_voices_of_equal_level(rng: np.random.Generator) -> None:
    # Each talker is a tone of its own, however loud.
    time = np.arange(RATE) / RATE
    talkers = [
        (10.0**-n * np.sin(2 * np.pi * 100 * (n + 1) * time)).astype(np.float32) for n in range(3)
    ]
    noise = augment.babble(talkers, 2 * RATE, rng)
    assert len(noise) == 2 * RATE
    levels = np.abs(np.fft.rfft(noise))[[200, 400, 600]] / RATE  # amplitudes of the three tones
    counts = levels / np.sqrt(2)
    np.testing.assert_allclose(counts, np.round(counts), atol=0.01)
    assert counts.sum() == pytest.approx(4, abs=0.05)


def test_vary_is_reproducible_finite_and_needs_partners_only_to_join(
    utterance: Utterance,
) -> None:
    calls = 0

    def find_partner() -> Utterance:
        nonlocal calls
        calls += 1
        return utterance

    def draw(seed: int, partner: Callable[[], Utterance]) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        return augment.vary(utterance, partner, [utterance.waveform], rng)

    for seed in range(200):
        varied = draw(seed, find_partner)
        assert varied.dtype == np.float32
        assert np.all(np.isfinite(varied))
        assert 0.8 * RATE <= len(varied) <= 7.2 * RATE
        if seed < 20:
            np.testing.assert_array_equal(draw(seed, lambda: utterance), varied)
    assert 30 < calls < 70  # a quarter of the draws
