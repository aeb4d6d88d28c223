"""MP3 and Ogg of which libsndfile would read but a part: all of it, at its time."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile as sf
from numpy.typing import NDArray

from sercli.audio.containers import Mp3Index, is_whole_ogg
from sercli.audio.reading import AudioFile, load_audio
from sercli.errors import AudioError

RATE = 48_000


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
        index = Mp3Index.read(file)
    assert index is not None
    assert index.start == 0
    assert index.n_samples == pytest.approx(4 * RATE, abs=3 * 1_152)
    assert index.n_bytes == pytest.approx(len(content), abs=500)
    with AudioFile(path) as audio:
        assert audio.format == "MP3/MPEG_LAYER_III"
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


@pytest.mark.parametrize("n_tags", [0, 500, 300_000])
def test_an_mp3_without_an_index(tmp_path: Path, n_tags: int) -> None:
    path = tmp_path / "a.mp3"
    write_mp3(path, index=False)
    path.write_bytes((tag(n_tags) if n_tags else b"") + path.read_bytes())
    with AudioFile(path) as audio:
        assert audio.format.endswith("/mp3float")
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
        index = Mp3Index.read(file)
    assert index is not None
    place = max(content.find(b"Xing"), content.find(b"Info"))
    path.write_bytes(content[:place] + bytes(120) + content[place + 120 :])
    assert abs(sf.info(path).duration - 60) > 5
    assert len(load_audio(path)) == pytest.approx(60 * 16_000, abs=2_000)


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
    with AudioFile(path) as audio:
        assert audio.format.startswith("OGG/")
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
