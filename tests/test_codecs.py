import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from scipy.signal.windows import tukey

from sercli.audio import codecs
from sercli.audio.codecs import CODECS, codec_available, encode_decode
from sercli.errors import ConfigError

RATE = 16_000

FloatArray = NDArray[np.float32]


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if not codec_available(name):
        pytest.skip(f"no {name} in this build of FFmpeg")
    return name


def find_lag(first: FloatArray, second: FloatArray) -> int:
    """Samples by which the second is late: the peak of the cross-correlation."""
    size = 1 << (2 * len(first)).bit_length()
    product = np.fft.rfft(second, size) * np.conj(np.fft.rfft(first, size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return peak - size if peak > size // 2 else peak


def correlate(first: FloatArray, second: FloatArray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def test_codecs_of_libsndfile_are_always_at_hand() -> None:
    assert all(codec_available(name) for name in ("mulaw", "gsm"))
    assert not codec_available("morse")


def test_result_is_aligned_like_the_input_and_not_the_input(
    codec: str, speech: FloatArray, capfd: pytest.CaptureFixture[str]
) -> None:
    waveform = speech[RATE : 3 * RATE + 77]
    result = encode_decode(waveform, codec)
    assert result.dtype == np.float32
    assert result.shape == waveform.shape
    assert abs(find_lag(waveform, result)) <= 4
    # The end comes out, too: it is not lost in the codec's delay.
    assert abs(find_lag(waveform[-4_000:], result[-4_000:])) <= 4
    assert correlate(waveform, result) > 0.8
    error = result - waveform
    assert np.mean(error**2) > 1e-4 * np.mean(waveform**2)  # less than 40 dB
    np.testing.assert_array_equal(encode_decode(waveform, codec), result)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["mulaw", "gsm", "amr"])
def test_telephone_codecs_are_narrow(name: str, rng: np.random.Generator) -> None:
    if not codec_available(name):
        pytest.skip(f"no {name} in this build of FFmpeg")
    noise = 0.1 * rng.standard_normal(RATE).astype(np.float32)
    # The window: the abrupt edges of the noise click, and resampling leaves some of that.
    power = np.abs(np.fft.rfft(encode_decode(noise, name) * np.hanning(RATE))) ** 2
    assert power[4_300:].sum() < 1e-6 * power.sum()


# Values of 14 bits and what the table of ITU-T G.711 for µ-law decodes them to.
@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        (0.5, 0),
        (1.5, 2),
        (30, 30),
        (32, 33),
        (34, 33),
        (36, 37),
        (94, 93),
        (96, 99),
        (500, 495),
        (512, 527),
        (4_000, 3_999),
        (8_100, 8_031),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_mulaw_has_the_levels_of_the_standard(value: float, decoded: int, sign: int) -> None:
    # A slow rise to a constant, on which resampling has no effect.
    constant = (sign * value / 8_192 * tukey(4_000, 0.5)).astype(np.float32)
    result = encode_decode(constant, "mulaw") * 8_192
    np.testing.assert_allclose(result[1_600:2_400], sign * decoded, atol=0.02 + 1e-4 * value)


def test_steps_of_mulaw_follow_the_level(speech: FloatArray) -> None:
    loud = speech[RATE : 3 * RATE] / np.abs(speech).max()
    # What the band of 8 kHz leaves of it, without steps.
    narrow = soxr.resample(soxr.resample(loud, 16_000, 8_000), 8_000, 16_000)[: len(loud)]
    for gain in (0.05, 1.0):
        error = encode_decode(gain * loud, "mulaw") - gain * narrow
        # A law with equal steps would lose 26 dB with the soft sound.
        assert 10 * np.log10(np.mean((gain * loud) ** 2) / np.mean(error**2)) > 28


def test_louder_than_full_scale_is_neither_clipped_nor_wrapped(
    codec: str, speech: FloatArray
) -> None:
    waveform = 5 * speech[RATE : 3 * RATE] / np.abs(speech[RATE : 3 * RATE]).max()
    result = encode_decode(waveform, codec)
    assert correlate(waveform, result) > 0.8
    assert np.abs(result).max() > 3
    assert np.sum(result**2) / np.sum(waveform**2) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("n_samples", [0, 1, 2, 159, 1_600])
def test_short_and_silent(codec: str, speech: FloatArray, n_samples: int) -> None:
    for waveform in (speech[24_000 : 24_000 + n_samples], np.zeros(n_samples, np.float32)):
        result = encode_decode(waveform, codec)
        assert result.shape == waveform.shape
        assert result.dtype == np.float32
        assert np.all(np.isfinite(result))
    assert not n_samples or np.abs(result).max() < 1e-3  # of silence
    if n_samples == 1_600:
        assert correlate(speech[24_000:25_600], encode_decode(speech[24_000:25_600], codec)) > 0.7


def test_unknown_codec_tells_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"codec 'morse' does not exist; .*mulaw, gsm"):
        encode_decode(np.zeros(9, np.float32), "morse")


def test_codec_that_ffmpeg_was_built_without(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = codecs._FfmpegCodec("libnothing", "amrnb", 8_000, "s16", 12_200, {}, 0)
    monkeypatch.setitem(codecs._CODECS, "amr", absent)
    assert not codec_available("amr")
    with pytest.raises(
        ConfigError, match="codec 'amr' is in none of the installed libraries"
    ) as error:
        encode_decode(np.zeros(9, np.float32), "amr")
    at_hand = str(error.value).partition("choose one of ")[2].split(", ")
    assert at_hand[:2] == ["mulaw", "gsm"]
    assert "amr" not in at_hand
