"""Speech that is resynthesised with another prosody."""

import sys
from dataclasses import astuple

import numpy as np
import pytest
import pyworld
from numpy.typing import NDArray

from sercli.audio import prosody as prosodies
from sercli.audio.prosody import Prosody, Voice
from sercli.errors import ConfigError

RATE = 16_000
Waveform = NDArray[np.float32]


def make(prosody: Prosody, waveform: Waveform, seed: int = 0) -> Waveform:
    return Voice(waveform).resynthesise(prosody, np.random.default_rng(seed))


@pytest.fixture(scope="module")
def vowel() -> Waveform:
    """Two seconds of a buzz whose pitch swings around 150 Hz, with three resonances."""
    times = np.arange(2 * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(150 * np.exp(0.1 * np.sin(2 * np.pi * 1.5 * times))) / RATE
    buzz = np.zeros(len(times))
    for harmonic in range(1, 40):
        frequency = 150 * harmonic
        gain = sum(1 / (1 + ((frequency - f) / 150) ** 2) for f in (600, 1_200, 2_600)) + 0.05
        buzz += gain * np.cos(harmonic * phase)
    return (0.02 * buzz).astype(np.float32)


def find_pitch(waveform: Waveform) -> NDArray[np.float64]:
    """Return the logarithm of the pitch of the voiced frames, without those at the ends."""
    samples = waveform.astype(np.float64)
    rough, times = pyworld.dio(samples, RATE, frame_period=5.0)
    pitch: NDArray[np.float64] = pyworld.stonemask(samples, rough, times, RATE)[20:-20]
    return np.log(pitch[pitch > 0])


def find_level(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))


def find_band(waveform: Waveform, low: float, high: float) -> float:
    """Return the power of a band in dB."""
    power = np.abs(np.fft.rfft(waveform)) ** 2
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return 10 * float(np.log10(power[(low <= frequencies) & (frequencies < high)].sum()))


def test_without_changes_speech_stays(vowel: Waveform, speech: Waveform) -> None:
    for waveform in (vowel, speech[: 3 * RATE + 7]):
        made = make(Prosody(), waveform)
        assert made.dtype == np.float32
        assert made.shape == waveform.shape
        assert find_level(made) == pytest.approx(find_level(waveform), rel=1e-4)
        before, after = np.median(find_pitch(waveform)), np.median(find_pitch(made))
        assert after == pytest.approx(before, abs=0.02)
        for low in (200, 500, 1_000, 2_000):
            change = find_band(made, low, 2 * low) - find_band(waveform, low, 2 * low)
            assert abs(change) < 2, (low, change)


def test_the_pitch_is_changed(vowel: Waveform) -> None:
    pitch = find_pitch(vowel)
    assert np.std(pitch) == pytest.approx(0.1 / np.sqrt(2), rel=0.05)
    for shift in (0.8, 2.0):
        made = find_pitch(make(Prosody(shift=shift), vowel))
        assert np.median(made) - np.median(pitch) == pytest.approx(np.log(shift), abs=0.02)
        assert np.std(made) == pytest.approx(np.std(pitch), rel=0.1)
    for span in (0.4, 2.0):
        made = find_pitch(make(Prosody(span=span), vowel))
        assert np.std(made) / np.std(pitch) == pytest.approx(span, rel=0.1)
        assert np.mean(made) == pytest.approx(np.mean(pitch), abs=0.02)
    made = find_pitch(make(Prosody(span=0.01, slope=0.5), vowel))
    assert made[-1] - made[0] == pytest.approx(0.5 * 361 / 401, rel=0.05)
    assert np.mean(made) == pytest.approx(np.mean(pitch), abs=0.02)


def test_noise_of_the_pitch_is_drawn() -> None:
    pitch = np.r_[np.zeros(500), np.full(20_000, 150.0)]
    for changes, deviation in (
        (Prosody(jitter=0.06), 0.06 / 3**0.5),
        (Prosody(roughness=0.2), 0.2),
    ):
        made = prosodies._change_pitch(pitch, changes, np.random.default_rng(1))
        assert not made[:500].any()
        assert np.std(np.log(made[500:])) == pytest.approx(deviation, rel=0.03)
    extreme = prosodies._change_pitch(pitch, Prosody(roughness=3), np.random.default_rng(1))
    assert (extreme[500:].min(), extreme.max()) == (40, 900)


def test_the_tempo_is_changed(vowel: Waveform) -> None:
    for tempo in (0.7, 1.4):
        made = make(Prosody(tempo=tempo), vowel[:-5])
        assert len(made) == round((len(vowel) - 5) / tempo)
        assert np.median(find_pitch(made)) == pytest.approx(np.median(find_pitch(vowel)), abs=0.02)
        assert find_level(made) == pytest.approx(find_level(vowel[:-5]), rel=1e-4)


def test_the_spectrum_is_tilted(vowel: Waveform) -> None:
    # Bands of a harmonic or two, an octave apart, and one below which nothing is tilted.
    before, after = (make(Prosody(tilt=tilt), vowel) for tilt in (0, 6))
    changes = [
        find_band(after, f * 0.97, f * 1.03) - find_band(before, f * 0.97, f * 1.03)
        for f in (150, 300, 800, 1_600, 3_200)
    ]
    np.testing.assert_allclose(np.diff(changes), [0, 6, 6, 6], atol=0.7)


def test_formants_are_moved(vowel: Waveform) -> None:
    power = np.exp(Voice(vowel)._parts[1][200])
    made = prosodies._change_power(np.log(power)[None], Prosody(warp=1.25))[0]
    peak = int(power[100:250].argmax()) + 100  # the third resonance, at 2600 Hz
    assert int(made[120:300].argmax()) + 120 == pytest.approx(1.25 * peak, abs=2)
    assert made[0] == pytest.approx(power[0])


def test_energy_and_breath_are_changed() -> None:
    log_power = np.log(np.full((200, 513), 1e-4))
    log_power[:50] -= 2.0  # weaker
    log_power[50:60] -= 30.0  # a pause
    made = np.log(prosodies._change_power(log_power, Prosody(dynamics=1.5))[:, 5])
    np.testing.assert_allclose(made[[0, 55, 100]] - log_power[[0, 55, 100], 5], [-1, -6, 0])
    made = np.log(prosodies._change_power(log_power, Prosody(tremolo=0.5, tremolo_rate=4))[:, 5])
    # A fifth of a second later, 4 Hz are at 0.8 of a period; an eighth, at the half.
    gain = np.exp((made - log_power[:, 5]) / 2)
    np.testing.assert_allclose(gain[[0, 25, 40]], [1, 1, 1 + 0.5 * np.sin(1.6 * np.pi)], atol=1e-9)
    rng = np.random.default_rng(0)
    silence = Voice(np.zeros(RATE // 2, np.float32))
    assert silence.resynthesise(Prosody(breath=0.5), rng).tolist() == [0.0] * (RATE // 2)


def test_breath_makes_noise(vowel: Waveform) -> None:
    def find_noise(waveform: Waveform) -> float:
        """Return the power halfway between harmonics, relative to theirs."""
        made = make(Prosody(span=0.01), waveform)[RATE // 2 : RATE // 2 + 8_192]
        power = np.abs(np.fft.rfft(made * np.hanning(8_192))) ** 2
        at = np.arange(4, 12) * 150.0 * 8_192 / RATE
        return float(power[(at + 38).astype(int)].sum() / power.sum())

    breathy = make(Prosody(span=0.01, breath=0.6), vowel)
    assert find_noise(breathy) > 3 * find_noise(make(Prosody(span=0.01), vowel))


@pytest.mark.parametrize("n_samples", [0, 1, 79, 200, 1_600, 8_000])
def test_whatever_is_short_or_silent_is_finite(n_samples: int, speech: Waveform) -> None:
    rng = np.random.default_rng(n_samples)
    noise = rng.normal(0, 0.1, n_samples).astype(np.float32)  # nothing is voiced
    for waveform in (np.zeros(n_samples, np.float32), noise, speech[20_000 : 20_000 + n_samples]):
        prosody = Prosody.draw(rng)
        made = Voice(waveform).resynthesise(prosody, rng)
        assert len(made) == round(n_samples / prosody.tempo)
        assert np.isfinite(made).all()
        assert np.any(made) == (find_level(waveform) > 0 if n_samples else False)


def test_the_seed_decides(speech: Waveform) -> None:
    part = speech[: 2 * RATE]
    draws = [Prosody.draw(np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert draws[0] == draws[1] != draws[2]
    voice = Voice(part)
    rough = Prosody(roughness=0.2)
    first = voice.resynthesise(rough, np.random.default_rng(1))
    other = voice.resynthesise(rough, np.random.default_rng(2))
    np.testing.assert_array_equal(make(rough, part, 1), first)
    assert np.abs(other - first).max() > 0.01


def test_draws_are_in_their_ranges() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([astuple(Prosody.draw(rng)) for _ in range(2_000)])
    low, high, median = drawn.min(axis=0), drawn.max(axis=0), np.median(drawn, axis=0)
    expected = {
        "shift": (0.8, 2.2, 1.327),
        "span": (0.3, 2.5, 0.866),
        "slope": (-0.6, 0.6, 0),
        "jitter": (0, 0.08, None),
        "roughness": (0, 0.25, None),
        "tempo": (0.7, 1.4, 1.05),
        "tilt": (-6, 8, 1),
        "warp": (0.9, 1.25, 1.061),
        "breath": (0, 0.6, None),
        "dynamics": (0.4, 1.6, 1),
        "tremolo": (0, 0.5, None),
        "tremolo_rate": (4, 8, 6),
    }
    for place, (name, (least, most, middle)) in enumerate(expected.items()):
        assert name == list(Prosody.__dataclass_fields__)[place]
        width = most - least
        assert least <= low[place] < least + 0.02 * width, name
        assert most - 0.02 * width < high[place] <= most, name
        if middle is None:
            assert (drawn[:, place] == 0).mean() == pytest.approx(0.5, abs=0.05)
        else:
            assert median[place] == pytest.approx(middle, abs=0.05 * width), name


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    with pytest.raises(ConfigError, match=r"pip install 'sercli\[prosody\]'.*--prosodies 0"):
        Voice(np.zeros(10, np.float32))
