import numpy as np
import pytest
from numpy.typing import NDArray

from sercli.audio import codecs
from sercli.audio.filters import telephone_band
from sercli.errors import ConfigError
from sercli.evaluation.stress import (
    DEFAULT_CONDITIONS,
    apply_condition,
    condition_rng,
    known_conditions,
    needs_talkers,
    parse_conditions,
)

RATE = 16_000

FloatArray = NDArray[np.float32]


@pytest.fixture
def clip(speech: FloatArray) -> FloatArray:
    """Half a second of silence, then 1.5 s of speech."""
    return np.concatenate((np.zeros(RATE // 2, np.float32), speech[RATE : RATE * 5 // 2]))


@pytest.fixture
def talkers(speech: FloatArray) -> list[FloatArray]:
    return [speech[start * RATE : (start + 2) * RATE] for start in range(1, 7)]


def apply(waveform: FloatArray, condition: str, talkers: list[FloatArray]) -> FloatArray:
    return apply_condition(waveform, condition, condition_rng(0, condition, "clip"), talkers)


def power(waveform: FloatArray) -> float:
    return float(np.mean(waveform.astype(np.float64) ** 2))


def active_power(waveform: FloatArray) -> float:
    """Mean of the frames of 20 ms within 25 dB of the loudest."""
    frames = waveform[: len(waveform) // 320 * 320].reshape(-1, 320).astype(np.float64)
    powers = np.mean(frames**2, axis=1)
    return float(powers[powers >= powers.max() * 10**-2.5].mean())


def band_power(waveform: FloatArray, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(waveform)) ** 2
    frequencies = np.fft.rfftfreq(len(waveform), 1 / RATE)
    return float(spectrum[(frequencies >= low) & (frequencies < high)].mean())


def test_clean_is_an_unchanged_copy(clip: FloatArray) -> None:
    result = apply(clip, "clean", [])
    np.testing.assert_array_equal(result, clip)
    assert not np.shares_memory(result, clip)


@pytest.mark.parametrize("kind", ["noise", "pink", "babble"])
@pytest.mark.parametrize("snr", [20, 0, -5])
def test_noise_lies_below_the_active_speech(
    clip: FloatArray, talkers: list[FloatArray], kind: str, snr: int
) -> None:
    # Adding silence must not change the noise's level, as it would change the mean's.
    for waveform in (clip, np.concatenate((clip, np.zeros(2 * RATE, np.float32)))):
        noise = apply(waveform, f"{kind}{snr}", talkers) - waveform
        ratio = 10 * np.log10(active_power(waveform) / active_power(noise))
        assert ratio == pytest.approx(snr, abs=0.1)


def test_noises_have_their_colours(clip: FloatArray, talkers: list[FloatArray]) -> None:
    falls = {}
    for kind in ("noise", "pink", "babble"):
        noise = apply(clip, f"{kind}0", talkers) - clip
        falls[kind] = 10 * np.log10(band_power(noise, 200, 400) / band_power(noise, 3_200, 6_400))
    assert falls["noise"] == pytest.approx(0, abs=1)
    assert falls["pink"] == pytest.approx(12, abs=1)  # 3 dB for each of four octaves
    assert falls["babble"] > 15


@pytest.mark.parametrize("condition", ["phone", "gsm", "amr"])
def test_lines_let_their_band_through(rng: np.random.Generator, condition: str) -> None:
    if condition not in known_conditions():
        pytest.skip(f"no codec for {condition} in this build of FFmpeg")
    noise = 0.1 * rng.standard_normal(4 * RATE).astype(np.float32)
    result = apply(noise, condition, [])
    # What is left outside are the errors of the codec; above its 4 kHz there is nothing.
    floor = {"phone": 1e-3, "gsm": 0.1, "amr": 0.1}[condition]
    inside = band_power(result, 400, 3_200)
    assert band_power(result, 20, 200) < floor * inside
    assert band_power(result, 3_600, 4_000) < floor * inside
    assert band_power(result, 4_200, 8_000) < 1e-8 * inside
    if condition == "phone":
        assert inside == pytest.approx(band_power(noise, 400, 3_200), rel=0.01)


def test_phone_is_quantised_behind_the_band(clip: FloatArray) -> None:
    line = telephone_band(clip)
    result = apply(clip, "phone", [])
    error = 10 * np.log10(power(line) / power(result - line))
    assert 30 < error < 42  # the steps of µ-law are 38 dB below speech


def test_room_has_its_decay_and_as_much_tail_as_direct_sound() -> None:
    click = np.eye(1, RATE, 0, dtype=np.float32)[0]
    response = apply(click, "reverb", [])
    assert response[0] == pytest.approx(1, abs=1e-4)
    tail = response[1 : RATE // 2]
    assert power(tail) * len(tail) == pytest.approx(1, rel=0.05)
    early, late = power(tail[:800]), power(tail[3_200:4_000])  # 0.2 s apart
    assert 10 * np.log10(early / late) == pytest.approx(24, abs=1.5)


@pytest.mark.parametrize("condition", ["mp3", "opus"])
def test_files_are_lossy(clip: FloatArray, condition: str) -> None:
    result = apply(clip, condition, [])
    np.testing.assert_array_equal(result, codecs.encode_decode(clip, condition))
    assert 0.9 < np.corrcoef(result, clip)[0, 1] < 0.999


def test_clip_cuts_at_12_db_below_the_peak(clip: FloatArray) -> None:
    limit = np.abs(clip).max() * 0.251188643
    result = apply(clip, "clip", [])
    cut = np.abs(clip) > limit
    assert 0.01 < cut.mean() < 0.5
    np.testing.assert_array_equal(result[~cut], clip[~cut])
    np.testing.assert_allclose(result[cut], np.sign(clip[cut]) * limit, rtol=1e-6)


def test_gain_is_linear_and_does_not_clip(clip: FloatArray) -> None:
    np.testing.assert_array_equal(apply(clip, "gain-20", []), clip * np.float32(0.1))
    np.testing.assert_array_equal(apply(clip, "gain+20", []), clip * np.float32(10))
    assert np.abs(apply(clip, "gain+20", [])).max() > 1


@pytest.mark.parametrize("condition", ["noise10", "pink10", "babble10", "reverb"])
def test_draws_are_of_the_seed_the_condition_and_the_clip(
    clip: FloatArray, talkers: list[FloatArray], condition: str
) -> None:
    def draw(seed: int, name: str) -> FloatArray:
        return apply_condition(clip, condition, condition_rng(seed, condition, name), talkers)

    first = draw(0, "a.wav")
    np.testing.assert_array_equal(draw(0, "a.wav"), first)
    assert np.any(draw(1, "a.wav") != first)
    assert np.any(draw(0, "b.wav") != first)


def test_rng_depends_on_each_part_and_not_on_how_a_level_is_written() -> None:
    def draw(seed: int, condition: str, name: str) -> float:
        return condition_rng(seed, condition, name).random()

    parts = [
        (0, "noise10", "a"),
        (1, "noise10", "a"),
        (0, "noise20", "a"),
        (0, "noise10", "\udce9"),
    ]
    assert len({draw(*part) for part in parts}) == len(parts)
    assert draw(0, "noise10.0", "a") == draw(0, "noise10", "a")
    # Python's own hash of a text would be another in every process.
    expected = np.random.default_rng([7, 4_235_686_354, 3_904_355_907]).random()
    assert draw(7, "noise10", "a") == expected


@pytest.mark.parametrize("condition", [*DEFAULT_CONDITIONS, "gsm", "amr", "opus", "pink0"])
def test_every_condition_takes_short_and_silent_clips(
    speech: FloatArray, talkers: list[FloatArray], condition: str
) -> None:
    if condition in codecs.CODECS and condition not in known_conditions():
        pytest.skip(f"no codec for {condition} in this build of FFmpeg")
    silence = np.zeros(RATE // 10, np.float32)
    short = speech[24_000 : 24_000 + RATE // 10]
    for waveform in (short, silence, short[:1], short[:0]):
        result = apply(waveform, condition, talkers)
        assert result.dtype == np.float32
        assert result.shape == waveform.shape
        assert result is not waveform
        assert np.all(np.isfinite(result))
    assert np.abs(apply(silence, condition, talkers)).max() < 1e-3
    assert np.abs(apply(short, condition, talkers)).max() > 1e-3


def test_parse_keeps_the_order_and_writes_levels_in_one_way() -> None:
    text = " noise10,clean ,noise10.0,gain6,gain-0,pink-5,babble+2.5,noise010, clean"
    expected = ("noise10", "clean", "gain+6", "gain+0", "pink-5", "babble2.5")
    assert parse_conditions(text) == expected
    assert parse_conditions(",".join(expected)) == expected
    assert parse_conditions(",".join(DEFAULT_CONDITIONS)) == DEFAULT_CONDITIONS


@pytest.mark.parametrize("text", ["hall", "", "clean,", "noise", "phone3", "Noise10", "noise1e1"])
def test_unknown_condition_tells_which_there_are(text: str) -> None:
    part = text.removeprefix("clean,")
    with pytest.raises(
        ConfigError, match=f"unknown condition '{part}'; there are clean, phone, .*noise<dB>, pink"
    ):
        parse_conditions(text)


def test_levels_at_the_ends_of_their_range_are_within() -> None:
    names = ("noise-20", "pink60", "babble60", "gain-80", "gain+40")
    assert parse_conditions(",".join(names)) == names


def test_only_babble_needs_talkers() -> None:
    names = (*DEFAULT_CONDITIONS, "pink5", "babble-5")
    assert [name for name in names if needs_talkers(name)] == ["babble10", "babble-5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("noise61", "'noise61': found 61 dB; expected -20 to 60"),
        ("babble-21", "'babble-21': found -21 dB; expected -20 to 60"),
        ("gain+41", r"'gain\+41': found 41 dB; expected -80 to 40"),
    ],
)
def test_levels_have_a_range(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_conditions(text)


def test_condition_without_its_codec_is_refused_when_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    absent = codecs._FfmpegCodec("libnothing", "amrnb", 8_000, "s16", 12_200, {}, 0)
    monkeypatch.setitem(codecs._CODECS, "amr", absent)
    assert "amr" not in known_conditions()
    assert "gsm" in known_conditions()
    with pytest.raises(
        ConfigError, match=r"condition 'amr' needs a codec .* clean, phone, gsm, rev"
    ):
        parse_conditions("clean,amr")


def test_babble_needs_somebody(clip: FloatArray) -> None:
    with pytest.raises(
        ConfigError, match="'babble10' needs speech of other clips for babble; found none"
    ):
        apply(clip, "babble10", [])
