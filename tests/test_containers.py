"""Files of which libsndfile would read but a part: all of it, at its time, or what is not heard."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from sercli.audio.containers import (
    MAX_AHEAD,
    MAX_BETWEEN,
    _count_opus,
    find_mp3_end,
    is_followed,
    is_mp3,
    is_whole_ogg,
    read_mp3_index,
)
from sercli.audio.decoders import open_decoder
from sercli.audio.reading import AudioFile, load_audio
from sercli.errors import AudioError

RATE = 48_000


def name_decoder(path: Path) -> str:
    with path.open("rb", buffering=0) as file:
        decoder = open_decoder(file)
        decoder.close()
    return type(decoder).__name__


def write(path: Path, codec: str, pauses: tuple[int, ...] = (), **options: Any) -> NDArray[Any]:
    """Write four seconds of noise that ends loud, with pauses before some seconds; return it."""
    waveform = np.random.default_rng(0).normal(0, 0.01, (4, RATE)).astype(np.float32)
    waveform[3] *= 20
    with av.open(path, "w", **options) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        resampler = av.AudioResampler(stream.format, "mono", RATE, frame_size=stream.frame_size)
        for second, samples in enumerate(waveform):
            frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            frame.sample_rate = RATE
            frame.pts = (second + sum(pause for pause in pauses[: second + 1])) * RATE
            for converted in resampler.resample(frame):
                for packet in stream.encode(converted):
                    container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return waveform.ravel()


def write_mp3(path: Path, *, index: bool) -> None:
    options = {"write_xing": str(int(index)), "id3v2_version": "0"}
    write(path, "libmp3lame", format="mp3", container_options=options)


def find_loud(path: Path) -> list[float]:
    """Return when it becomes loud, in seconds."""
    waveform = load_audio(path)
    tenths = np.abs(waveform[: len(waveform) // 1_600 * 1_600]).reshape(-1, 1_600)
    begins = np.diff((tenths.mean(axis=1) > 0.05).astype(int)) == 1
    times: list[float] = (np.flatnonzero(begins) * 0.1 + 0.1).tolist()
    return times


def tag(size: int) -> bytes:
    sizes = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + sizes + bytes(size)


def test_an_mp3_with_an_index(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, index=True)
    content = path.read_bytes()
    with path.open("rb", buffering=0) as file:
        index = read_mp3_index(file)
        assert index is not None
        assert index.n_samples == pytest.approx(4 * RATE, abs=3 * 1_152)
        assert index.n_bytes == pytest.approx(path.stat().st_size - index.start, abs=2_000)
        assert is_mp3(file)
    assert name_decoder(path) == "FfmpegDecoder"
    assert find_loud(path) == pytest.approx([3.0], abs=0.11)
    # Cut off, it is told.
    path.write_bytes(tag(300) + content[: len(content) // 2])
    with pytest.raises(
        AudioError, match=r"stops at [12]\.\d* s of the [34]\.\d* s that the header"
    ):
        load_audio(path)
    # Another behind it is heard, too.
    path.write_bytes(tag(300) + content + content)
    assert find_loud(path) == pytest.approx([3.0, 7.0], abs=0.11)


def ape(n_bytes: int, *, has_header: bool) -> bytes:
    """An APE tag with an item of so many random bytes, such as a picture."""
    name = b"Cover Art (Front)\0"
    body = struct.pack("<2I", n_bytes, 0) + name + np.random.default_rng(0).bytes(n_bytes)

    def end(kind: int) -> bytes:
        flags = (1 << 31 if has_header else 0) | kind
        return b"APETAGEX" + struct.pack("<4I8x", 2_000, len(body) + 32, 1, flags)

    return (end(1 << 29) if has_header else b"") + body + end(0)


ID3V1 = b"TAG" + bytes(range(125))
LYRICS = b"LYRICSBEGINLYR00005hello"


@pytest.mark.parametrize(
    "tags",
    [
        (ID3V1,),
        (ape(40_000, has_header=True),),
        (ape(40_000, has_header=False), ID3V1),
        (LYRICS + f"{len(LYRICS):06}LYRICS200".encode(), ID3V1),
        (ape(9, has_header=True), LYRICS + f"{len(LYRICS):06}LYRICS200".encode()),
    ],
)
def test_tags_after_an_mp3_are_no_sound_and_no_damage(
    tmp_path: Path, tags: tuple[bytes, ...]
) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, index=False)
    content, waveform = path.read_bytes(), load_audio(path)
    path.write_bytes(content + b"".join(tags))
    with path.open("rb", buffering=0) as file:
        assert find_mp3_end(file) == len(content)
    np.testing.assert_array_equal(load_audio(path), waveform)
    with AudioFile(path) as audio:
        assert sum(map(len, audio.blocks())) == pytest.approx(4 * RATE, abs=3 * 1_152)
        assert not audio.warnings


@pytest.mark.parametrize("tail", [b"999999LYRICS200", ape(9, has_header=True)[-32:], b"TAG", b""])
def test_what_is_no_whole_tag_belongs_to_an_mp3(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(b"\xff\xfb" + tail)
    with path.open("rb", buffering=0) as file:
        assert find_mp3_end(file) == 2 + len(tail)


@pytest.mark.parametrize("n_tags", [0, 500, 300_000])
def test_an_mp3_without_an_index(tmp_path: Path, n_tags: int) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, index=False)
    path.write_bytes((tag(n_tags) if n_tags else b"") + path.read_bytes())
    assert name_decoder(path) == "FfmpegDecoder"
    assert len(load_audio(path)) == pytest.approx(4 * 16_000, abs=2_000)
    assert find_loud(path) == pytest.approx([3.0], abs=0.11)


def test_an_mp3_whose_first_frame_is_smaller_than_others(tmp_path: Path) -> None:
    """By it, libsndfile would take the file for a third as long as it is."""
    path = tmp_path / "a.mp3"
    noise = np.random.default_rng(0).normal(0, 0.2, 60 * 44_100).astype(np.float32)
    noise[:44_100] = 0
    sf.write(path, noise, 44_100, compression_level=0.5, bitrate_mode="VARIABLE")
    content = path.read_bytes()
    with path.open("rb", buffering=0) as file:
        assert read_mp3_index(file) is not None
    place = max(content.find(b"Xing"), content.find(b"Info"))
    path.write_bytes(content[:place] + bytes(120) + content[place + 120 :])
    assert abs(sf.info(path).duration - 60) > 5
    with path.open("rb", buffering=0) as file:
        assert read_mp3_index(file) is None
    assert len(load_audio(path)) == pytest.approx(60 * 16_000, abs=2_000)


def test_an_index_of_a_low_sample_rate_has_frames_of_half_the_size(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    noise = np.random.default_rng(0).normal(0, 0.1, 10 * 22_050).astype(np.float32)
    sf.write(path, noise, 22_050, bitrate_mode="VARIABLE", compression_level=0.5)
    with path.open("rb", buffering=0) as file:
        index = read_mp3_index(file)
    assert index is not None
    assert index.n_samples == pytest.approx(10 * 22_050, abs=4 * 576)


def test_an_index_without_a_size_or_a_length(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, index=True)
    content = bytearray(path.read_bytes())
    place = max(content.find(b"Xing"), content.find(b"Info"))
    content[place + 7] &= ~2  # what follows the number of frames is something else now
    path.write_bytes(content)
    with path.open("rb", buffering=0) as file:
        index = read_mp3_index(file)
    assert index is not None
    assert index.n_bytes is None
    content[place + 7] &= ~1  # nor is there a number of frames
    content[place + 8 : place + 12] = (1_000_000).to_bytes(4, "big")
    path.write_bytes(content)
    with path.open("rb", buffering=0) as file:
        assert read_mp3_index(file) is None
    assert len(load_audio(path)) == pytest.approx(4 * 16_000, abs=2_000)


def test_a_tag_may_have_a_footer() -> None:
    size = bytes((0, 0, 0, 5))
    content = b"ID3\4\0\x10" + size + bytes(5) + b"3DI\4\0\x10" + size + b"\xff\xfb\x90\0"
    assert is_mp3(io.BytesIO(content))


@pytest.mark.parametrize(
    ("packet", "n_samples"),
    [
        (bytes([3 << 3]), 2_880),  # SILK, 60 ms
        (bytes([13 << 3]), 960),  # hybrid, 20 ms
        (bytes([31 << 3 | 2]), 2 * 960),  # two frames of different sizes
        (bytes([28 << 3 | 3, 48]), 48 * 120),  # 48 frames of 2.5 ms
    ],
)
def test_samples_of_an_opus_packet(packet: bytes, n_samples: int) -> None:
    assert _count_opus(np.array([len(packet)], np.uint8), packet) == n_samples


def test_damage_within_an_mp3_is_told_and_what_follows_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The decoder within libsndfile prints on standard error, and stops at the larger damage."""
    path = tmp_path / "a.mp3"
    write_mp3(path, index=True)
    content = path.read_bytes()
    middle = len(content) // 2
    for damage in (bytes(300), b"junk" * 750):
        path.write_bytes(content[:middle] + damage + content[middle + 300 :])
        with AudioFile(path) as audio:
            waveform = np.concatenate([*audio.blocks()])
            assert len(waveform) == pytest.approx(4 * RATE, abs=4 * 1_152)
            assert audio.warnings == ("1 damaged packet left out",)
        assert find_loud(path) == pytest.approx([3.0], abs=0.11)
    assert capfd.readouterr() == ("", "")


def split_pages(content: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(content):
        n_sizes = content[place + 26]
        size = 27 + n_sizes + sum(content[place + 27 : place + 27 + n_sizes])
        yield content[place : place + size]
        place += size


def is_whole(path: Path) -> bool:
    with path.open("rb", buffering=0) as file:
        return is_whole_ogg(file)


@pytest.mark.parametrize("codec", ["opus", "vorbis"])
def test_ogg(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "a.ogg"
    if codec == "opus":
        write(path, "libopus", format="ogg", container_options={"page_duration": "200000"})
    else:
        noise = np.random.default_rng(0).normal(0, 0.01, 4 * RATE)
        noise[3 * RATE :] *= 20
        sf.write(path, noise, RATE, format="OGG", subtype="VORBIS")
    assert is_whole(path)
    assert name_decoder(path) == "SndfileDecoder"
    content = path.read_bytes()
    pages = list(split_pages(content))
    assert len(pages) > 10
    # Another behind it.
    path.write_bytes(content + content)
    assert not is_whole(path)
    assert find_loud(path) == pytest.approx([3.0, 7.0], abs=0.11)
    # A page that was lost: what comes after it is still at its time.
    path.write_bytes(b"".join((*pages[:7], *pages[8:])))
    assert not is_whole(path)
    assert find_loud(path) == pytest.approx([3.0], abs=0.11)
    # Pages of another stream, though their numbers go on.
    others = (page[:14] + b"else" + page[18:] for page in pages[7:])
    path.write_bytes(b"".join((*pages[:7], *others)))
    assert not is_whole(path)
    # What is behind it, and no page, is for the decoders.
    path.write_bytes(content + b"TAG" + bytes(125))
    assert is_whole(path)
    path.write_bytes(content[:-10])
    assert is_whole(path)


def test_sound_that_nobody_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    write(path, "libopus", (0, 0, 0, 5), format="ogg")
    assert not is_whole(path)
    assert find_loud(path) == pytest.approx([8.0], abs=0.11)
    assert len(load_audio(path)) == pytest.approx(9 * 16_000, abs=1_000)


@pytest.mark.parametrize("frames", ["2.5", "10", "20", "60", "120"])
def test_packets_of_opus_are_as_long_as_they_say(tmp_path: Path, frames: str) -> None:
    path = tmp_path / "a.opus"
    with av.open(path, "w", format="ogg") as container:
        stream = container.add_stream(
            "libopus", rate=RATE, layout="mono", options={"frame_duration": frames}
        )
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 3 * RATE), np.float32), format="flt", layout="mono"
        )
        frame.sample_rate = RATE
        fifo = av.AudioFifo()
        fifo.write(frame)
        while piece := fifo.read(stream.frame_size):
            for packet in stream.encode(piece):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    pages = list(split_pages(path.read_bytes()))
    assert is_whole(path)
    # A second more than its packets explain, and less than there is room for.
    place = struct.unpack("<q", pages[-1][6:14])[0]
    path.write_bytes(
        b"".join(pages[:-1]) + pages[-1][:6] + struct.pack("<q", place + RATE) + pages[-1][14:]
    )
    assert len(pages) > 3
    assert not is_whole(path)


def write_tone(path: Path, seconds: float = 1.0, channels: int = 1, **options: Any) -> bytes:
    """Write noise, and return the file."""
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * 16_000), channels))
    sf.write(path, noise, 16_000, **options)
    return path.read_bytes()


def find_warnings(path: Path) -> tuple[str, ...]:
    with AudioFile(path) as audio:
        assert sum(map(len, audio.blocks())) == audio.n_samples > 0
        return audio.warnings


BEHIND = "another recording is appended in the file; reading ends at {:.3f} s"


@pytest.mark.parametrize(
    "options",
    [
        {"format": "WAV"},
        {"format": "WAV", "subtype": "PCM_U8"},
        {"format": "WAV", "subtype": "FLOAT"},
        {"format": "WAV", "subtype": "ULAW"},
        {"format": "WAV", "endian": "BIG"},
        {"format": "WAVEX"},
        {"format": "RF64"},
        {"format": "AIFF"},
        {"format": "AU"},
        {"format": "CAF"},
        {"format": "CAF", "subtype": "PCM_S8"},
        {"format": "CAF", "subtype": "ALAC_16"},
        {"format": "FLAC"},
        {"format": "FLAC", "subtype": "PCM_24"},
    ],
    ids=lambda options: "-".join(options.values()),
)
def test_recordings_that_are_put_one_behind_the_other(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    # An odd number of bytes, where samples have one.
    content = write_tone(path, 3 + 1 / 16_000, **options)
    assert find_warnings(path) == ()
    for more in (
        write_tone(other, 0.1, **options),
        write_tone(other, 20.0, channels=2, **options),
    ):
        path.write_bytes(content + more)
        with AudioFile(path) as audio:
            assert sum(map(len, audio.blocks())) == 3 * 16_000 + 1
            assert audio.warnings == (BEHIND.format(3),)
    # Tags, and what fills the file, are no recordings.
    for more in (b"TAG" + bytes(125), tag(300), bytes(4_096), b"RIFF", b"fLaC", b"\xff" * 99):
        path.write_bytes(content + more)
        assert find_warnings(path) == ()


def test_recordings_of_different_kinds_behind_each_other(tmp_path: Path) -> None:
    wav, flac, aiff, caf = (
        write_tone(tmp_path / kind, 1.0, format=kind) for kind in ("WAV", "FLAC", "AIFF", "CAF")
    )
    path = tmp_path / "both"
    for first, second in ((wav, flac), (aiff, wav), (wav, aiff), (wav, caf), (caf, flac)):
        path.write_bytes(first + second)
        assert find_warnings(path) == (BEHIND.format(1),)
    path.write_bytes(flac + tag(200_000) + flac)
    assert find_warnings(path) == (BEHIND.format(1),)
    path.write_bytes(tag(200) + flac)
    assert find_warnings(path) == ()


def caf(*chunks: bytes) -> bytes:
    """Return a CAF file of such chunks, after that which describes it."""
    return b"caff\0\1\0\0desc" + (32).to_bytes(8, "big") + bytes(32) + b"".join(chunks)


def mp4(*kinds: str, large: bool = False) -> bytes:
    """Return boxes of an MP4 file, each with 12 bytes in it."""
    size = b"\0\0\0\x01" if large else (20).to_bytes(4, "big")
    after = (28).to_bytes(8, "big") if large else b""
    return b"".join(size + kind.encode() + after + bytes(12) for kind in kinds)


def test_a_recording_that_has_another_within_or_goes_on_is_one(tmp_path: Path) -> None:
    # A FLAC file may keep the header of the WAV file that it was made of.
    flac = write_tone(tmp_path / "a.flac", format="FLAC")
    kept = b"riff" + b"RIFF\x24\x00\x01\x00WAVE" + bytes(20)
    block = b"\x02" + len(kept).to_bytes(3, "big") + kept
    (tmp_path / "a.flac").write_bytes(flac[:42] + block + flac[42:])
    assert find_warnings(tmp_path / "a.flac") == ()
    # The size of what is written to a pipe is not known, and a video may go on in a second part.
    wav = b"RIFF\x20\x00\x00\x00WAVE" + bytes(28)
    for head, expected in (
        (b"RIFF\x05\x00\x00\x00WAVE\x01" + wav, True),
        (b"RIFF\x05\x00\x00\x00WAVE\x01\x00" + wav, True),
        (b"RIFF\x06\x00\x00\x00WAVE\x01\x00\x00" + wav, False),
        (b"RIFF\xff\xff\xff\xffWAVEfmt ", False),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", False),
        (b"RIFF\x04\x00\x00\x00AVI RIFF\x20\x00\x00\x00AVIX", False),
        (b"RIFF\x04\x00\x00\x00AVI RIFF\x04\x00\x00\x00AVI " + wav, True),
        (b"RIFF\x04\x00\x00\x00AVI " + wav, True),
        *(
            (b"RF64\xff\xff\xff\xffWAVEds64\x1c\x00\x00\x00" + size.to_bytes(8, "little"), False)
            for size in (2**62, 2**63 - 1, 2**64 - 1)
        ),
        # Of CAF, chunks may follow the sound, a byte be free behind it, or its size not be known.
        (caf(b"data\0\0\0\0\0\0\0\x03abc", b"pakt" + bytes(8)) + caf(), True),
        (caf(b"data\0\0\0\0\0\0\0\x03abc\0", b"pakt" + bytes(8)) + caf(), True),
        (caf(b"data\0\0\0\0\0\0\0\x03abc\0") + wav, True),
        (caf(b"data\0\0\0\0\0\0\0\x0cabc", caf()), False),
        (caf(b"data" + b"\xff" * 8, caf()), False),
        (caf(b"data\x7f" + b"\xff" * 7, caf()), False),
        (caf(b"free" + bytes(8)), False),
        # Of MP4, a size may be in 64 bits, and 0 for all that is left.
        (mp4("ftyp", "moov", "mdat"), False),
        (mp4("ftyp", "moov", "mdat") + mp4("ftyp", "moov"), True),
        (mp4("ftyp", "moov", "mdat", large=True) + mp4("ftyp"), True),
        (mp4("ftyp", "moov") + b"\0\0\0\0mdat" + mp4("ftyp"), False),
        (mp4("ftyp", "moov") + b"\0\0\0\x14mdat" + mp4("ftyp"), False),
        (mp4("ftyp", "moov") + b"\0\0\0\x07mdat" + mp4("ftyp"), False),
    ):
        path = tmp_path / "head"
        path.write_bytes(head + bytes(100))
        with path.open("rb", buffering=0) as file:
            assert is_followed(file) == expected


def test_what_is_behind_a_long_stream_is_looked_for_where_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    content = write_tone(path, 200.0, format="FLAC")
    assert len(content) > 3 * MAX_AHEAD
    n_read = 0

    class Counted(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            nonlocal n_read
            found = super().read(-1 if size is None else size)
            n_read += len(found)
            return found

    path.write_bytes(content + bytes(3 * MAX_BETWEEN) + content)
    with Counted(path) as file:
        for place, expected in (
            (len(content), False),
            (len(content) + 3 * MAX_BETWEEN, True),
            (len(content) + 2 * MAX_BETWEEN + 100, True),
        ):
            n_read = 0
            file.seek(place)
            assert is_followed(file) == expected
            assert n_read <= MAX_AHEAD + MAX_BETWEEN + 100
