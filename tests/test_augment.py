from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from sercli.audio import augment
from sercli.audio.augment import Utterance

RATE = 16_000

# How often each part of a clip is drawn, and each change of it.
SHARES = {
    "join": 0.25,
    "crop": 0.2,
    "whole": 0.275,
    "speech": 0.275,
    "voice": 0.7,
    "room": 0.25,
    "equaliser": 0.5,
    "white": 0.125,
    "pink": 0.125,
    "brown": 0.125,
    "babble": 0.125,
    "telephone": 1 / 3,
}
# Least and most of what is drawn for it.
RANGES = {
    "join": (0.1, 0.4),
    "crop": (1.0, 2.5),
    "octaves": (-0.25, 0.25),
    "duration": (0.15, 0.6),
    "direct": (0.0, 15.0),
    "snr": (5.0, 40.0),
}


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
    # What is too low to be heard is white, or it would be nearly all of the power.
    low, high = (
        10 * np.log10(spectrum[(frequencies >= start) & (frequencies < 2 * start)].mean())
        for start in (10, 24)
    )
    assert low == pytest.approx(high, abs=1.2)


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


def test_equaliser_is_a_tilt_and_a_line_with_three_to_five_bends() -> None:
    # As long as a transform, so that the response is neither cut nor padded.
    click = np.eye(1, 2**14, 2**13, dtype=np.float32)[0]
    frequencies = np.fft.rfftfreq(2**14, 1 / RATE)
    counts = []
    for seed in range(50):
        gains = np.abs(np.fft.rfft(augment.equalise(click, np.random.default_rng(seed))))
        found = 20 * np.log10(gains)
        # The same draws: the slope in dB per octave, the number of bends, and their gains.
        rng = np.random.default_rng(seed)
        slope, n_bends = rng.uniform(-6, 6), int(rng.integers(3, 6))
        bends = rng.uniform(-6, 6, n_bends)
        counts.append(n_bends)
        for place, bend in zip(np.geomspace(60, 8_000, n_bends), bends, strict=True):
            tilt = np.clip(slope * np.log2(place / 1_000), -15, 15)
            # 60 Hz lies between two frequencies of the transform.
            assert np.interp(place, frequencies, found) == pytest.approx(tilt + bend, abs=0.1)
        assert np.abs(found[60:]).max() <= 15 + 6 + 0.01
    assert set(counts) == {3, 4, 5}


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


def test_every_change_comes_as_often_and_as_strongly_as_configured(
    utterance: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = dict.fromkeys((*SHARES, "noise"), 0)
    drawn: dict[str, list[float]] = {name: [] for name in RANGES}

    def watch(function: str, name: str, **drawn_at: int) -> None:
        def change(waveform: Any, *given: Any) -> Any:
            counts[name] += 1
            for what, place in drawn_at.items():
                drawn[what].append(given[place])
            return waveform

        monkeypatch.setattr(augment, function, change)

    def colour_noise(n_samples: int, colour: float, _: object) -> int:
        counts[("white", "pink", "brown")[int(colour)]] += 1
        return n_samples

    watch("join", "join", join=1)
    watch("crop", "crop", crop=0)
    watch("change_voice", "voice", octaves=0)
    watch("reverberate", "room", duration=0, direct=1)
    watch("equalise", "equaliser")
    monkeypatch.setattr(augment, "coloured_noise", colour_noise)
    watch("babble", "babble")
    watch("telephone_band", "telephone")
    watch("mix", "noise", snr=1)
    n_seeds = 1_000
    for seed in range(n_seeds):
        n_joined, n_cropped = counts["join"], counts["crop"]
        part = augment.vary(utterance, lambda: utterance, [], np.random.default_rng(seed))
        if counts["join"] > n_joined:
            continue
        is_whole, is_cropped = part is utterance.waveform, counts["crop"] > n_cropped
        if not is_whole:  # cropped or not
            np.testing.assert_array_equal(part, utterance.waveform[RATE : 2 * RATE])
        assert not (is_whole and is_cropped)
        if not is_cropped:
            counts["whole" if is_whole else "speech"] += 1
    for name, share in SHARES.items():
        low, high = binom.interval(0.9999, n_seeds, share)
        assert low <= counts[name] <= high, name
    assert counts["noise"] == sum(counts[name] for name in ("white", "pink", "brown", "babble"))
    drawn["octaves"] = list(np.log2(drawn["octaves"]))
    for name, (lowest, highest) in RANGES.items():
        # No value is preferred, and the ends are nearly reached.
        values = (np.array(drawn[name]) - lowest) / (highest - lowest)
        assert 0 <= values.min() < 0.05, name
        assert 0.95 < values.max() <= 1, name
        assert values.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * len(values))), name


def test_changes_follow_each_other_as_sound_does(
    utterance: Utterance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise is not heard through the room, but over the telephone."""
    order: list[str] = []

    def watch(function: str) -> None:
        def change(waveform: Any, *_: Any) -> Any:
            order.append(function)
            return waveform

        monkeypatch.setattr(augment, function, change)

    names = ("change_voice", "reverberate", "equalise", "mix", "telephone_band")
    for name in names:
        watch(name)
    for name in ("VOICE", "ROOM", "EQUALISER", "NOISE", "TELEPHONE"):
        monkeypatch.setattr(augment, f"{name}_PROBABILITY", 1.0)
    rng = np.random.default_rng(0)
    augment.vary(utterance, lambda: utterance, [utterance.waveform], rng)
    assert order == list(names)


@pytest.mark.parametrize("kind", ["noise", "babble"])
def test_what_is_recorded_has_the_drawn_ratio(
    utterance: Utterance, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("ROOM", "EQUALISER", "TELEPHONE"):
        monkeypatch.setattr(augment, f"{name}_PROBABILITY", 0.0)
    monkeypatch.setattr(augment, "NOISE_PROBABILITY", 1.0)
    monkeypatch.setattr(augment, "SNR_DB", (12.0, 12.0))
    monkeypatch.setattr(augment, "COLOURS", (0.0, 1.0) if kind == "noise" else ())
    rng = np.random.default_rng(1)
    talkers = [
        (level * rng.standard_normal(5 * RATE)).astype(np.float32) for level in (1, 0.01, 0.1)
    ]
    received = augment.record(utterance.waveform, talkers, rng)
    added = received - utterance.waveform
    assert len(received) == 3 * RATE
    speech = power(utterance.waveform[RATE : 2 * RATE])
    assert 10 * np.log10(speech / power(added)) == pytest.approx(12, abs=0.1)


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
