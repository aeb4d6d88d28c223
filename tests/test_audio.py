import errno
import io
import os
import re
import struct
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile as sf
from conftest import EXAMPLES, MakeWav
from numpy.typing import NDArray

from sercli.audio.reading import AudioFile, load_audio, resample_stream
from sercli.audio.sndfile import _Unwrapped
from sercli.errors import AudioError


def read_duration(path: Path) -> float:
    """Return the seconds that a header gives."""
    with av.open(path) as container:
        return (container.duration or 0) / av.time_base


def encode(
    path: Path, codec: str, waveform: np.ndarray[Any, Any], rate: int, **options: Any
) -> None:
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(waveform)]
    with av.open(path, "w", **options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 128_000
        resampler = av.AudioResampler(stream.format, layout, rate)
        frame = av.AudioFrame.from_ndarray(waveform, format="fltp", layout=layout)
        frame.sample_rate = rate
        fifo = av.AudioFifo()
        for converted in resampler.resample(frame):
            fifo.write(converted)
        size = stream.frame_size or 1024
        while piece := fifo.read(size) or fifo.read(0):
            for packet in stream.encode(piece):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def sine(duration: float, rate: int, frequency: float = 440.0) -> np.ndarray[Any, Any]:
    time = np.arange(round(duration * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def frequency_of(waveform: np.ndarray[Any, Any], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * rate / len(waveform))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "PCM_U8"}),
        ("a.wav", {"subtype": "PCM_16"}),
        ("a.wav", {"subtype": "PCM_24"}),
        ("a.wav", {"subtype": "PCM_32"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.wav", {"subtype": "DOUBLE"}),
        ("a.wav", {"subtype": "ULAW"}),
        ("a.wav", {"subtype": "ALAW"}),
        ("a.wav", {"subtype": "IMA_ADPCM"}),
        ("a.wav", {"format": "WAVEX"}),
        ("a.w64", {}),
        ("a.rf64", {"format": "RF64"}),
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {}),
        ("a.aiff", {}),
        ("a.au", {}),
        ("a.caf", {}),
        # Content decides, not the suffix.
        ("lies.wav", {"format": "AIFF"}),
        ("lies.wav", {"format": "MP3", "subtype": "MPEG_LAYER_III"}),
        ("lies.mp3", {"format": "FLAC"}),
        ("lies.raw", {"format": "WAV"}),
        ("no_suffix", {"format": "FLAC"}),
    ],
)
def test_libsndfile_formats(make_wav: MakeWav, name: str, options: dict[str, str]) -> None:
    path = make_wav(name, 1.0, 48_000, **options)
    with AudioFile(path) as audio:
        waveform = np.concatenate(list(audio.blocks()))[:, 0]
        assert audio.sample_rate == 48_000
    assert len(waveform) == pytest.approx(48_000, abs=2_048)  # ADPCM fills its last block
    inner = waveform[4800:43_200]
    assert frequency_of(inner, 48_000) == pytest.approx(440, abs=2)
    assert np.sqrt(2 * np.mean(inner**2)) == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.m4a", "aac", {"format": "ipod"}),
        ("a.mp4", "aac", {}),
        ("a.aac", "aac", {"format": "adts"}),
        ("a.webm", "libopus", {}),
        ("a.mka", "flac", {"format": "matroska"}),
        ("a.wma", "wmav2", {"format": "asf"}),
        ("a.ac3", "ac3", {}),
        ("a.wv", "wavpack", {}),
        ("lies.wav", "aac", {"format": "ipod"}),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_ffmpeg_formats(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], channels: int
) -> None:
    path = tmp_path / name
    encode(path, codec, np.tile(sine(1.0, 48_000), (channels, 1)), 48_000, **options)
    with AudioFile(path) as audio:
        waveform = np.concatenate(list(audio.blocks()))
        assert (audio.sample_rate, audio.channels) == (48_000, channels)
    assert len(waveform) == pytest.approx(48_000, abs=4_096)  # codecs fill their last frame
    for channel in waveform[4_800:43_200].T:
        assert frequency_of(channel, 48_000) == pytest.approx(440, abs=2)
        assert np.sqrt(2 * np.mean(channel**2)) == pytest.approx(0.3, abs=0.02)


def test_first_audio_stream_of_a_video(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        streams = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in range(2)]
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        for packet in (*video.encode(picture), *video.encode(None)):
            container.mux(packet)
        for stream, frequency in zip(streams, (440, 880), strict=True):
            samples = (sine(1.0, 16_000, frequency) * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = 16_000
            for packet in (*stream.encode(frame), *stream.encode(None)):
                container.mux(packet)
    assert frequency_of(load_audio(path), 16_000) == pytest.approx(440, abs=1)
    with AudioFile(path) as audio:
        assert audio.warnings == ("has 2 audio streams; only the first is read",)


def write_sent(path: Path, starts: Sequence[int]) -> None:
    """Write a second of a tone at each of the times."""
    with av.open(path, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        samples = (sine(1.0, 16_000) * 32_767).astype(np.int16)
        for start in starts:
            frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
            frame.sample_rate = 16_000
            frame.pts = start * 16_000
            for packet in stream.encode(frame):
                container.mux(packet)


def find_sound(path: Path) -> list[bool]:
    """Return which seconds have sound."""
    seconds = load_audio(path)
    assert len(seconds) % 16_000 == 0
    return [bool(one.max() > 0.1) for one in seconds.reshape(-1, 16_000)]


def test_a_pause_in_transmission_keeps_its_time(tmp_path: Path) -> None:
    path = tmp_path / "call.mka"
    write_sent(path, (0, 3))  # nothing was sent from second 1 to second 3
    waveform = load_audio(path)
    assert len(waveform) == pytest.approx(4 * 16_000, abs=32)
    level = [np.abs(waveform[s * 16_000 + 100 : (s + 1) * 16_000 - 100]).max() for s in range(4)]
    assert level == pytest.approx([0.3, 0, 0, 0.3], abs=0.01)
    with AudioFile(path) as audio:
        assert sum(map(len, audio.blocks())) == pytest.approx(4 * 16_000, abs=32)
        assert audio.warnings == ("1 gap became silence, 2.0 s in all",)


def test_damaged_packets_are_left_out_and_told(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.m4a"
    encode(path, "alac", sine(4.0, 48_000)[None], 48_000, format="ipod")
    content = bytearray(path.read_bytes())
    for i in rng.integers(len(content) * 2 // 5, len(content) * 3 // 5, 60):
        content[i] ^= 0x5A
    path.write_bytes(bytes(content))
    with AudioFile(path) as audio:
        waveform = np.concatenate(list(audio.blocks()))[:, 0]
        assert len(audio.warnings) == 1
        assert re.fullmatch(r"\d+ damaged packets left out", audio.warnings[0])
    # What comes behind the damage is still at its time.
    np.testing.assert_allclose(waveform[-24_000:], sine(4.0, 48_000)[-24_000:], atol=1e-3)


def write_chirp(path: Path) -> NDArray[np.float32]:
    """Write 20 s of an MP3 with an index, whose pitch tells the time; return what is decoded."""
    time = np.arange(20 * 44_100) / 44_100
    chirp = (0.3 * np.sin(2 * np.pi * (300 + 100 * time) * time)).astype(np.float32)
    encode(path, "libmp3lame", chirp[None], 44_100)
    return load_audio(path)


def test_what_comes_behind_damage_in_an_mp3_keeps_its_time(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "a.mp3"
    sound = write_chirp(path)
    content = path.read_bytes()
    start, size = len(content) // 4, len(content) // 5  # 4 s
    path.write_bytes(content[:start] + rng.bytes(size) + content[start + size :])
    with AudioFile(path) as audio:
        assert sum(map(len, audio.blocks())) == pytest.approx(20 * 44_100, abs=4_000)
        packets, gaps = audio.warnings
    assert re.fullmatch(r"\d+ damaged packets? left out; times behind them are est.*", packets)
    assert (found := re.fullmatch(r"\d+ gaps? became silence, (\d\.\d) s in all", gaps))
    assert float(found[1]) == pytest.approx(4, abs=0.3)
    waveform = load_audio(path)
    for second in (3, 11, 18):
        pitch = [frequency_of(one[second * 16_000 :][:4_000], 16_000) for one in (waveform, sound)]
        assert pitch[0] == pytest.approx(pitch[1], abs=16)


def test_what_comes_behind_damage_of_a_variable_bit_rate(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "a.mp3"
    # Little before the damage, much behind it.
    time = np.arange(20 * 44_100) / 44_100
    sound = rng.normal(0, np.where(time < 6, 0.001, 0.1)).astype(np.float32)
    sound[18 * 44_100 :] = 0
    sf.write(path, sound, 44_100, bitrate_mode="VARIABLE", compression_level=0.5)
    content = path.read_bytes()
    start, end = len(content) * 2 // 10, len(content) * 3 // 10
    path.write_bytes(content[:start] + bytes(end - start) + content[end:])
    waveform = load_audio(path)
    assert len(waveform) == pytest.approx(20 * 16_000, abs=1.5 * 16_000)
    loud = np.flatnonzero(np.abs(waveform) > 0.05)[-1] / 16_000
    assert loud == pytest.approx(18, abs=1)


def test_a_tag_between_two_mp3s_takes_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_chirp(path)
    content = path.read_bytes()
    cover = b"ID3\x03\0\0" + bytes((0, 12, 0, 0)) + bytes(12 << 14)  # a picture
    path.write_bytes(content + cover + content)
    with AudioFile(path) as audio:
        assert sum(map(len, audio.blocks())) == pytest.approx(40 * 44_100, abs=8_000)
        assert audio.warnings == ()


def test_a_film_that_breaks_off_is_known_by_the_length_of_its_sound(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    samples = (sine(8.0, 16_000) * 32_767).astype(np.int16)
    with av.open(path, "w", format="matroska") as container:
        streams = [container.add_stream("pcm_s16le", rate=16_000, layout="mono") for _ in "ab"]
        for start in range(0, 8 * 16_000, 1_600):
            for stream in streams:
                frame = av.AudioFrame.from_ndarray(
                    samples[None, start : start + 1_600], format="s16", layout="mono"
                )
                frame.sample_rate, frame.pts = 16_000, start
                container.mux(stream.encode(frame))
    assert len(load_audio(path)) == 8 * 16_000
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"stops at \d\.\d+ s of the 8\.\d+ s that the header"):
        load_audio(path)


def test_blocks_are_bounded_whatever_the_length_and_the_channels(make_wav: MakeWav) -> None:
    path = make_wav("many.wav", 4.0, 44_100, channels=8)
    with AudioFile(path) as audio:
        blocks = list(audio.blocks())
        assert audio.n_samples == 4 * 44_100
    assert max(block.size for block in blocks) <= 96_000
    assert all(block.shape[1] == 8 and block.dtype == np.float32 for block in blocks)


def test_frames_are_joined_to_blocks_of_the_same_samples(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = tmp_path / "a.m4a"
    encode(path, "aac", rng.normal(0, 0.1, (2, 200_000)).astype(np.float32), 44_100)
    with av.open(path) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    with AudioFile(path) as audio:
        blocks = [*audio.blocks()]
    assert max(frame.shape[1] for frame in frames) == 1_024
    assert [len(block) for block in blocks[:-1]] == [47 * 1_024] * 4  # of 96,000 samples or more
    assert len(blocks) == 5
    np.testing.assert_array_equal(np.concatenate(blocks), np.concatenate(frames, axis=1).T)


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_keeps_time_pitch_and_level(rng: np.random.Generator, rate: int) -> None:
    waveform = sine(3.0, rate)[:, None]
    cuts = np.sort(rng.integers(0, len(waveform), 20))
    out = np.concatenate(list(resample_stream(iter(np.split(waveform, cuts)), rate, 1)))[:, 0]
    assert len(out) == pytest.approx(3 * 16_000, abs=1)
    # Aligned in time: it equals the sine computed at the new rate.
    np.testing.assert_allclose(out[1_600:-1_600], sine(3.0, 16_000)[1_600:46_400], atol=2e-3)


def test_resampling_does_not_drift_over_ten_hours() -> None:
    rate, hours = 11_025, 10
    second = np.zeros((rate, 1), np.float32)
    last = second.copy()
    last[0] = 1.0  # a click exactly one second before the end
    n_seconds = hours * 3600
    blocks = (last if i == n_seconds - 1 else second for i in range(n_seconds))
    position, click = 0, -1
    for block in resample_stream(blocks, rate, 1):
        if len(block) and np.abs(block).max() > 0.5:
            click = position + int(np.argmax(np.abs(block)))
        position += len(block)
    assert position == pytest.approx(n_seconds * 16_000, abs=1)
    assert click == pytest.approx((n_seconds - 1) * 16_000, abs=1)


def test_resampling_limits_the_band() -> None:
    high = sine(1.0, 48_000, 9_000)[:, None]
    out = np.concatenate(list(resample_stream(iter([high]), 48_000, 1)))
    assert np.abs(out[800:-800]).max() < 1e-3


def test_load_audio_is_the_mean_of_the_channels(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    left, right = sine(1.0, 16_000, 440), sine(1.0, 16_000, 660)
    sf.write(path, np.stack((left, right), axis=1), 16_000, subtype="FLOAT")
    np.testing.assert_allclose(load_audio(path), (left + right) / 2, atol=1e-6)


def test_nan_and_infinity_become_silence_and_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    waveform = sine(1.0, 16_000)
    waveform[100:110] = np.nan
    waveform[200] = np.inf
    sf.write(path, waveform, 16_000, subtype="FLOAT")
    with AudioFile(path) as audio:
        decoded = np.concatenate(list(audio.blocks()))[:, 0]
        assert audio.warnings == ("11 samples are NaN, infinite or huge, and were set to silence",)
    assert np.all(decoded[[*range(100, 110), 200]] == 0)
    np.testing.assert_array_equal(decoded[201:], waveform[201:])


def test_a_channel_of_infinity_is_silence_beside_another(tmp_path: Path) -> None:
    path = tmp_path / "half.wav"
    sf.write(path, np.tile([np.inf, 0.1], (800, 1)), 16_000, subtype="FLOAT")
    with AudioFile(path) as audio:
        decoded = np.concatenate(list(audio.blocks()))
        assert audio.warnings == ("800 samples are NaN, infinite or huge, and were set to silence",)
    np.testing.assert_array_equal(decoded, np.tile(np.array([0, 0.1], np.float32), (800, 1)))


@pytest.mark.parametrize(("rate", "accepted"), [(999, 0), (1000, 1), (768_000, 1), (768_001, 0)])
def test_sample_rates_that_no_recording_has_are_refused(
    rate: int, accepted: int, tmp_path: Path
) -> None:
    path = tmp_path / "odd.wav"
    sf.write(path, np.full(2_000, 0.1), rate)
    if accepted:
        with AudioFile(path) as audio:
            assert audio.sample_rate == rate
    else:
        with pytest.raises(AudioError, match=f"sample rate is {rate:,} Hz"):
            AudioFile(path)


def test_a_scale_of_integers_is_told(tmp_path: Path) -> None:
    for scale, warnings in (
        (10.0, ()),
        (1e5, ("samples reach 30,000; expected a full scale of 1",)),
    ):
        path = tmp_path / "loud.wav"
        sf.write(path, scale * sine(1.0, 16_000), 16_000, subtype="FLOAT")
        with AudioFile(path) as audio:
            assert sum(len(block) for block in audio.blocks()) == 16_000
            assert audio.warnings == warnings


def test_nothing_but_nan_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "nan.wav"
    sf.write(path, np.full(8_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"nan\.wav: all 8,000 samples are NaN"):
        load_audio(path)


def test_truncated_flac_gives_what_is_there_then_fails(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * 16_000).astype(np.float32)
    sf.write(path, noise, 16_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    decoded: list[NDArray[np.float32]] = []
    with AudioFile(path) as audio:
        stream = resample_stream(audio.blocks(), audio.sample_rate, 1)
        with pytest.raises(AudioError, match=r"decoding stops at \d\.\d+ s of the 4\.000 s"):
            decoded.extend(stream)
        assert 1.5 < audio.duration < 2.1
    waveform = np.concatenate(decoded)[:, 0]
    np.testing.assert_allclose(waveform, noise[: len(waveform)], atol=1e-4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\); expected an audio or video file"),
        (b"Dear Sir or Madam,\n" * 100, "expected an audio or video file"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "expected an audio or video file"),
    ],
)
def test_what_is_no_audio(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "letter.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=rf"letter\.wav: .*{message}"):
        AudioFile(path)


def test_a_header_without_samples(make_wav: MakeWav) -> None:
    with pytest.raises(AudioError, match=r"tone\.wav: .*no samples"):
        AudioFile(make_wav(duration=0.0))


def test_damage_of_any_kind_is_an_audio_error_or_none(
    tmp_path: Path, rng: np.random.Generator, capfd: pytest.CaptureFixture[str]
) -> None:
    encode(tmp_path / "a.avi", "mp2", sine(1.0, 48_000)[None], 48_000)
    encode(tmp_path / "a.mkv", "aac", sine(1.0, 48_000)[None], 48_000)
    sources = [
        (EXAMPLES / "memo.m4a").read_bytes(),
        (EXAMPLES / "statement.flac").read_bytes()[:20_000],
        (tmp_path / "a.avi").read_bytes(),
        (tmp_path / "a.mkv").read_bytes(),
    ]
    outcomes = set()
    for trial in range(400):
        content = bytearray(sources[trial % len(sources)])
        reach = len(content) if trial % 3 else 400  # everywhere, or in the header
        for i in rng.integers(0, reach, rng.integers(1, 40)):
            content[i] = rng.integers(256)
        if trial % 5 == 0:
            del content[rng.integers(len(content)) :]
        path = tmp_path / "damaged"
        path.write_bytes(bytes(content))
        try:
            with AudioFile(path) as audio:
                for block in islice(audio.blocks(), 100):
                    assert np.all(np.isfinite(block))
            outcomes.add("decoded")
        except AudioError:
            outcomes.add("refused")
    assert outcomes == {"decoded", "refused"}
    assert capfd.readouterr().err == ""


def test_a_time_stamp_beyond_reason_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "call.mka"
    write_sent(path, (0, 100_000, 100_003))  # more than a day of nothing, and two seconds
    with AudioFile(path) as audio:
        assert sum(len(block) for block in audio.blocks()) == pytest.approx(5 * 16_000, abs=32)
        assert audio.warnings == (
            "1 gap became silence, 2.0 s in all",
            "its time stamps jump by 99999 s at 1.000 s; the times from there on do not follow "
            "the stamps",
        )


def test_what_is_behind_a_single_wrong_time_stamp_is_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "call.mka"
    write_sent(path, (0, 1, 2, 6))
    block, wrong = (b"\x81" + stamp.to_bytes(2, "big") + b"\x80" for stamp in (1_000, 20_000))
    content = path.read_bytes()
    assert content.count(block) == 1
    path.write_bytes(content.replace(block, wrong))
    assert find_sound(path) == [True] * 3 + [False] * 3 + [True]


@pytest.mark.parametrize(("start", "length"), [(1_000, 2), (100_000, 300_000)])
def test_where_time_stamps_and_header_disagree_all_is_read_and_nothing_missed(
    tmp_path: Path, start: int, length: int
) -> None:
    path = tmp_path / "call.mka"
    write_sent(path, (0, start))
    content = path.read_bytes().replace(b"DURATION", b"SOMETHIN")
    place = content.index(b"\x44\x89\x88") + 3  # the length in milliseconds
    assert struct.unpack(">d", content[place : place + 8]) == (1_000 * (start + 1),)
    path.write_bytes(content[:place] + struct.pack(">d", 1_000 * length) + content[place + 8 :])
    assert find_sound(path) == [True, True]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes on Windows")
def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="does not exist"):
        AudioFile(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match="is a directory"):
        AudioFile(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="not a regular file"):
        AudioFile(tmp_path / "pipe.wav")


class FailingFile(io.FileIO):
    """A file on a disk that fails after so many reads."""

    def __init__(self, path: str, n_reads: int) -> None:
        super().__init__(path)
        self.n_left = n_reads

    def read(self, size: int | None = -1, /) -> bytes:
        self.n_left -= 1
        if self.n_left < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(-1 if size is None else size) or b""


@pytest.mark.parametrize("name", ["call.wav", "memo.m4a", "statement.flac"])
def test_a_disk_that_fails_is_an_error_of_the_file(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FailingFile(str(EXAMPLES / name), 1000)
    monkeypatch.setattr("sercli.audio.reading._open_regular", lambda _: whole)
    load_audio(EXAMPLES / name)
    for n_reads in range(1000 - whole.n_left):
        file = FailingFile(str(EXAMPLES / name), n_reads)
        monkeypatch.setattr("sercli.audio.reading._open_regular", lambda _, file=file: file)
        with pytest.raises(AudioError, match=f"{name}: .*{os.strerror(errno.EIO)}"):
            load_audio(EXAMPLES / name)
        assert file.closed


def test_undecodable_name(make_wav: MakeWav, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    os.rename(make_wav(), name)
    assert len(load_audio(os.fsdecode(name))) == 16_000


def test_example_memo_is_aac() -> None:
    with av.open(EXAMPLES / "memo.m4a") as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    with AudioFile(EXAMPLES / "memo.m4a") as audio:
        assert audio.sample_rate == 44_100


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", None),
        ("a.aiff", None),
        ("a.au", None),
        ("a.w64", None),
        ("a.rf64", None),
        ("a.m4a", {"codec": "aac", "options": {"movflags": "faststart"}}),
        ("a.webm", {"codec": "libopus"}),
        ("a.mkv", {"codec": "aac"}),
    ],
)
def test_what_breaks_off_fails_after_what_is_there(
    tmp_path: Path, name: str, options: dict[str, Any] | None
) -> None:
    path = tmp_path / name
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, 10 * 48_000).astype(np.float32)
    if options is None:
        sf.write(path, noise, 48_000)
    else:
        encode(path, options.pop("codec"), noise[None], 48_000, **options)
    assert load_audio(path).shape[0] == pytest.approx(160_000, abs=2_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 4 // 10])
    with (
        AudioFile(path) as audio,
        pytest.raises(AudioError, match=r"stops at [34]\.\d* s of the (9\.99|10\.0)\d* s that the"),
    ):
        for _ in audio.blocks():
            pass
    assert audio.duration == pytest.approx(4, abs=0.3)


@pytest.mark.parametrize(("missing", "is_told"), [(0.3, False), (0.8, True)])
def test_a_container_that_lacks_more_than_a_packet_or_two_is_damaged(
    tmp_path: Path, missing: float, is_told: bool
) -> None:
    path = tmp_path / "a.m4a"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * 48_000).astype(np.float32)
    encode(path, "alac", noise[None], 48_000, options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * (1 - missing / 5))])
    told = pytest.raises(AudioError, match=r"stops at 4\.[12]\d* s of the 5\.\d* s")
    with AudioFile(path) as audio, told if is_told else nullcontext():
        for _ in audio.blocks():
            pass
    assert audio.duration == pytest.approx(5 - missing, abs=0.15)


def test_a_length_that_was_copied_from_a_longer_recording_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "call.mka"
    write_sent(path, (0,))
    content = path.read_bytes()
    assert content.count(b"00:00:01.0") == 1  # that of the sound, beside that of the whole
    path.write_bytes(content.replace(b"00:00:01.0", b"00:00:09.0"))
    assert find_sound(path) == [True]


@pytest.mark.parametrize("size", [0x7F000008, 0x7FFFFFFF, 0xFFFFFFFF, 4, 7])
def test_sizes_that_were_not_known_promise_nothing(make_wav: MakeWav, size: int) -> None:
    path = make_wav()
    content = path.read_bytes()
    place = content.index(b"data") + 4
    path.write_bytes(content[:place] + size.to_bytes(4, "little") + content[place + 4 :])
    assert len(load_audio(path)) == 16_000 if size > 7 else size // 2


def write_sizes(path: Path, riff: int, data: int) -> None:
    content = path.read_bytes()
    place = content.index(b"data") + 4
    sizes = riff.to_bytes(4, "little"), data.to_bytes(4, "little")
    path.write_bytes(content[:4] + sizes[0] + content[8:place] + sizes[1] + content[place + 4 :])


@pytest.mark.parametrize("size", [0x7F010000, 2_200_000_000, 3_000_000_000, 4_200_000_000])
def test_a_size_above_2_gb_promises_sound(make_wav: MakeWav, size: int) -> None:
    path = make_wav()
    write_sizes(path, size + 36, size)
    with pytest.raises(AudioError, match=rf"stops at 1\.000 s of the {size / 32_000:.3f} s that"):
        load_audio(path)


def test_a_header_may_promise_a_tenth_of_a_second_too_much(make_wav: MakeWav) -> None:
    path = make_wav()
    write_sizes(path, 36 + 35_200, 35_200)
    assert len(load_audio(path)) == 16_000
    write_sizes(path, 36 + 35_202, 35_202)
    with pytest.raises(AudioError, match=r"stops at 1\.000 s of the 1\.100 s that"):
        load_audio(path)


def test_a_header_of_64_bits_promises_any_size_but_none_that_was_not_known(
    make_wav: MakeWav,
) -> None:
    path = make_wav("a.rf64", format="RF64", subtype="PCM_16")

    def promise(n_bytes: int) -> None:
        content = bytearray(path.read_bytes())
        for place, size in ((20, n_bytes + 72), (28, n_bytes), (36, n_bytes // 2)):
            content[place : place + 8] = size.to_bytes(8, "little")
        path.write_bytes(content)

    promise(1 << 62)
    assert len(load_audio(path)) == pytest.approx(16_000, abs=100)
    promise(8_000_000_000)
    with pytest.raises(AudioError, match=r"stops at 1\.000 s of the 249252\.\d* s that the"):
        load_audio(path)


def test_a_size_beyond_32_bits_begins_again(
    make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_wav(duration=5.0)  # 160,000 bytes
    expected = load_audio(path)
    write_sizes(path, 160_036 % 65_536, 160_000 % 65_536)
    assert len(load_audio(path)) == 28_928 / 2
    monkeypatch.setattr("sercli.audio.containers.WRAP", 65_536)
    with AudioFile(path) as audio:
        found = np.concatenate([*audio.blocks()])[:, 0]
    assert np.abs(found - expected).max() < 1e-6
    assert audio.warnings == ()
    with path.open("rb") as file:  # whatever its size, libsndfile takes all of such a file
        head = _Unwrapped(file, 40).read(44)
    assert (head[4:8], head[40:]) == (b"\x08\0\0\0", bytes(4))
    assert head[:4] + head[8:40] == path.read_bytes()[:4] + path.read_bytes()[8:40]
    path.write_bytes(path.read_bytes() + bytes(2))  # no multiple
    assert len(load_audio(path)) == 28_928 / 2


@pytest.mark.parametrize("is_counted", [False, True])
def test_a_size_beyond_32_bits_may_count_the_byte_that_pads(
    make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch, is_counted: bool
) -> None:
    path = make_wav(duration=80_001 / 16_000, subtype="PCM_U8")
    expected = load_audio(path)
    n_bytes = path.stat().st_size
    assert n_bytes % 2 == 0
    write_sizes(path, (n_bytes - 8 - (not is_counted)) % 65_536, 80_001 % 65_536)
    monkeypatch.setattr("sercli.audio.containers.WRAP", 65_536)
    found = load_audio(path)
    assert len(found) - 80_001 in (0, 1)  # of sound that never ends, libsndfile takes all
    np.testing.assert_array_equal(found[:80_001], expected)


def test_what_the_header_of_a_recorder_does_not_tell_yet_is_told(make_wav: MakeWav) -> None:
    path = make_wav(duration=5.0)
    write_sizes(path, 32_036, 32_000)
    with AudioFile(path) as audio:
        assert sum(map(len, audio.blocks())) == 16_000
    assert audio.warnings == (
        "reading ends at 1.000 s, where its header tells the end, but about 4.0 s may follow; if "
        "they are sound, mend the header",
    )
    path = make_wav("tag.wav", duration=5.0)
    sound = path.read_bytes()
    # A few bytes; tags that the header does not count; or a header without a size at all.
    for head, behind in ((sound, bytes(60_000)), (sound, b"id3 " + bytes(90_000))):
        path.write_bytes(head + behind)
        with AudioFile(path) as audio:
            assert sum(map(len, audio.blocks())) == 80_000
        assert audio.warnings == ()
    write_sizes(path, 0, 160_000)
    with AudioFile(path) as audio:
        assert sum(map(len, audio.blocks())) == 80_000
    assert audio.warnings == ()


def test_what_the_header_of_64_bits_does_not_tell_yet_is_told(make_wav: MakeWav) -> None:
    path = make_wav("a.rf64", duration=10.0, format="RF64", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    for place, size in ((20, 160_096), (28, 160_000), (36, 80_000)):
        content[place : place + 8] = size.to_bytes(8, "little")
    path.write_bytes(content)
    with AudioFile(path) as audio:
        assert sum(map(len, audio.blocks())) == 80_000
    assert audio.warnings[0].startswith("reading ends at 5.000 s, where its header tells the end")
    assert "about 5.0 s may follow" in audio.warnings[0]


def test_a_flac_of_unknown_length(make_wav: MakeWav) -> None:
    path = make_wav("a.flac", duration=2.0)
    content = bytearray(path.read_bytes())
    # The last 36 bits before the checksum in the first block, as who writes into a pipe has them.
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    path.write_bytes(content)
    assert len(load_audio(path)) == 32_000


def test_what_begins_late_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "late.mka"
    with av.open(path, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for start in range(0, 48_000, 1_600):
            frame = av.AudioFrame(format="s16", layout="mono", samples=1_600)
            frame.sample_rate, frame.pts = 16_000, 80_000 + start
            for packet in stream.encode(frame):
                container.mux(packet)
    with AudioFile(path) as audio:
        assert sum(len(block) for block in audio.blocks()) == 48_000
    assert read_duration(path) == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize("late", [0.04, 0.09, 0.15])
def test_sound_that_begins_after_the_video_is_in_time(tmp_path: Path, late: float) -> None:
    path = tmp_path / "late.mkv"
    with av.open(path, "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        stream = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for packet in (*video.encode(av.VideoFrame(64, 64, "yuv420p")), *video.encode(None)):
            container.mux(packet)
        samples = np.full((1, 8_000), 8_000, np.int16)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate, frame.pts = 16_000, round(late * 16_000)
        for packet in stream.encode(frame):
            container.mux(packet)
    with AudioFile(path) as audio:
        found = np.concatenate([*audio.blocks()])[:, 0]
    assert np.flatnonzero(found)[0] / 16_000 == pytest.approx(late, abs=1e-3)
    assert len(found) / 16_000 == pytest.approx(late + 0.5, abs=1e-3)
    assert audio.warnings == ()


def test_sound_of_wma_with_video_begins_with_what_its_codec_leaves(tmp_path: Path) -> None:
    found = []
    for with_video in (False, True):
        path = tmp_path / "a.asf"
        with av.open(path, "w") as container:
            stream = container.add_stream("wmav2", rate=16_000, layout="mono", bit_rate=64_000)
            if with_video:
                video = container.add_stream("mpeg4", rate=25)
                video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
                frame = av.VideoFrame(64, 64, "yuv420p")
                for packet in (*video.encode(frame), *video.encode(None)):
                    container.mux(packet)
            for number, samples in enumerate(sine(2.048, 16_000).reshape(-1, 1, 1_024)):
                sound = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                sound.sample_rate, sound.pts = 16_000, 1_024 * number
                for packet in stream.encode(sound):
                    container.mux(packet)
            for packet in stream.encode(None):
                container.mux(packet)
        found.append(load_audio(path))
    np.testing.assert_array_equal(found[1], found[0])
    assert np.abs(found[1][:800]).max() > 0.2


def test_a_comment_that_looks_like_a_log_promises_nothing(make_wav: MakeWav) -> None:
    path = make_wav()
    comment = b"hello\n data : 99999999 (should be 1)\n\0"
    info = b"INFOICMT" + len(comment).to_bytes(4, "little") + comment
    content = path.read_bytes() + b"LIST" + len(info).to_bytes(4, "little") + info
    path.write_bytes(content[:4] + (len(content) - 8).to_bytes(4, "little") + content[8:])
    assert "\n data : 99999999 (should be 1)\n" in sf.SoundFile(path).extra_info
    assert len(load_audio(path)) == 16_000


def test_a_last_packet_that_lasts_is_no_break(tmp_path: Path) -> None:
    first, path = tmp_path / "first.m4a", tmp_path / "last.m4a"
    encode(first, "aac", sine(3.0, 16_000)[None], 16_000)
    with av.open(first) as source, av.open(path, "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        packets = [packet for packet in source.demux() if packet.size]
        packets[-1].duration = 60 * (packets[-1].duration or 0)
        for packet in packets:
            packet.stream = stream
            target.mux(packet)
    with AudioFile(path) as audio:
        assert sum(len(block) for block in audio.blocks()) == pytest.approx(48_000, abs=2_000)
    assert read_duration(path) > 6


@pytest.mark.parametrize(
    "text",
    [
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
        "m=audio 45004 RTP/AVP 0\r\n",
        f"ffconcat version 1.0\nfile {EXAMPLES / 'statement.flac'}\n",
    ],
)
def test_files_that_name_others_are_no_audio(tmp_path: Path, text: str) -> None:
    # Neither a port is opened nor another file.
    path = tmp_path / "call.wav"
    path.write_bytes(text.encode())
    with pytest.raises(AudioError, match=r"call\.wav: .*FFmpeg cannot open it"):
        AudioFile(path)
