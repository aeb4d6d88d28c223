import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import MakeWav
from numpy.typing import NDArray

from sercli.audio import AudioFile
from sercli.datasets import Clip
from sercli.errors import AudioError, DatasetError
from sercli.extraction import (
    CLIPS_PER_TASK,
    AudioHash,
    Waveforms,
    decode_clip,
    extract_clip_features,
    hash_audio,
    load_clip,
)

FloatArray = NDArray[np.float32]
Integers = NDArray[np.int16]


def make_clip(path: Path, start: float = 0.0, end: float | None = None) -> Clip:
    return Clip(path, "anger", "ann", name=path.stem, start=start, end=end)


def measure(clip: Clip, waveform: FloatArray) -> FloatArray:
    return np.array([[len(waveform), waveform.max()]], np.float32)


def hash_file(path: Path) -> str:
    (found,) = extract_clip_features([make_clip(path)], measure, jobs=1).hashes
    return found


def as_float(samples: Integers) -> FloatArray:
    return samples.astype(np.float32) / np.float32(32_768)


@pytest.fixture
def noise(rng: np.random.Generator) -> Integers:
    samples = rng.integers(-20_000, 20_000, 4_410, dtype=np.int16)
    samples[:2] = -32_768, 32_767
    return samples


@pytest.fixture
def reference(tmp_path: Path, noise: Integers) -> str:
    """Hash of the samples in a WAV file of 16 bits."""
    sf.write(tmp_path / "reference.wav", noise, 44_100)
    return hash_file(tmp_path / "reference.wav")


def write_ramp(path: Path, n_samples: int, sample_rate: int) -> Integers:
    """Write samples of which each tells its place."""
    ramp = np.arange(n_samples, dtype=np.int16)
    sf.write(path, ramp, sample_rate)
    return ramp


@pytest.mark.parametrize(
    ("name", "subtype"),
    [
        ("a.wav", "PCM_16"),
        ("a.wav", "PCM_24"),
        ("a.wav", "PCM_32"),
        ("a.flac", "PCM_16"),
        ("a.flac", "PCM_24"),
        ("a.aiff", "PCM_16"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_hash_does_not_depend_on_the_lossless_format(
    tmp_path: Path, noise: Integers, reference: str, name: str, subtype: str, channels: int
) -> None:
    samples = np.repeat(noise[:, None], channels, axis=1)
    sf.write(tmp_path / name, samples, 44_100, subtype=subtype)
    assert hash_file(tmp_path / name) == reference


def test_hash_of_floating_point_samples(tmp_path: Path, noise: Integers, reference: str) -> None:
    sf.write(tmp_path / "a.wav", as_float(noise), 44_100, subtype="FLOAT")
    assert hash_file(tmp_path / "a.wav") == reference
    # What lies beyond full scale is cut, as it is in a file of 16 bits.
    louder = as_float(noise)
    louder[:2] = -1.5, 1.5
    assert hash_audio(louder) == reference


def test_hash_tells_other_audio(tmp_path: Path, noise: Integers, reference: str) -> None:
    # Stored manifests hold these hashes: they must not change.
    assert reference == hashlib.blake2b(noise.astype("<i2").tobytes(), digest_size=8).hexdigest()
    changed = noise.copy()
    changed[2_000] += 1
    stereo = np.stack((noise, changed[::-1]), axis=1)
    for number, samples in enumerate((changed, noise[:-1], noise[::-1], noise // 2, stereo)):
        sf.write(tmp_path / f"{number}.wav", samples, 44_100)
        assert hash_file(tmp_path / f"{number}.wav") != reference


def test_silence_has_no_hash(tmp_path: Path) -> None:
    sf.write(tmp_path / "silence.wav", np.zeros((1_600, 2), np.int16), 16_000)
    assert hash_file(tmp_path / "silence.wav") == ""
    assert hash_audio(np.empty(0, np.float32)) == ""
    # Noise of 24 bits that is less than half a step of 16 bits.
    assert hash_audio(np.full(800, 0.4 / 32_768, np.float32)) == ""
    assert hash_audio(np.full(800, 0.6 / 32_768, np.float32)) != ""


def test_hash_of_pieces(noise: Integers, reference: str) -> None:
    audio = AudioHash()
    for start, end in ((0, 0), (0, 700), (700, len(noise))):
        audio.push(as_float(noise)[start:end])
    assert audio.finish() == reference
    # Silence at the end is a part of what sounds before it.
    audio.push(np.zeros(800, np.float32))
    assert audio.finish() not in ("", reference)


def test_stretch_of_a_file_at_16_khz(tmp_path: Path) -> None:
    ramp = as_float(write_ramp(tmp_path / "ramp.wav", 16_000, 16_000))
    for start, end, first, last in (
        (0.25, 0.5, 4_000, 8_000),
        (0.0, 0.1, 0, 1_600),
        (0.75, None, 12_000, 16_000),
        (0.75, 1.02, 12_000, 16_000),
        # Rounded to the nearest sample.
        (0.10004, 0.25001, 1_601, 4_000),
    ):
        waveform = load_clip(make_clip(tmp_path / "ramp.wav", start, end))
        assert waveform.dtype == np.float32
        np.testing.assert_array_equal(waveform, ramp[first:last])


def test_stretch_of_a_file_at_another_rate(tmp_path: Path) -> None:
    ramp = as_float(write_ramp(tmp_path / "ramp.wav", 22_050, 44_100))
    clip = make_clip(tmp_path / "ramp.wav", 0.1, 0.3)
    waveform = load_clip(clip)
    # Sample by sample at 16 kHz; a shift by one would be four times the tolerance.
    expected = np.arange(1_600, 4_800) * (44_100 / 16_000) / 32_768
    np.testing.assert_allclose(waveform, expected, rtol=0, atol=2e-5)
    # The hash is that of the file's own samples.
    (found,) = extract_clip_features([clip], measure, jobs=1).hashes
    assert found == hash_audio(ramp[4_410:13_230])


def test_channels_are_averaged(tmp_path: Path) -> None:
    samples = np.array([[0.5, 0.25], [-0.5, 0.0]] * 800)
    sf.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    assert load_clip(make_clip(tmp_path / "a.wav")).tolist() == [0.375, -0.25] * 800


def test_one_channel_is_heard_by_itself(tmp_path: Path) -> None:
    samples = np.array([[0.5, 0.25], [-0.5, 0.0]] * 800)
    sf.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    clip = make_clip(tmp_path / "a.wav")
    for channel in (1, 0, None, 1):  # one after the other: what was loaded before is of another
        found = decode_clip(replace(clip, channel=channel))
        expected = samples.mean(axis=1) if channel is None else samples[:, channel]
        np.testing.assert_array_equal(found.waveform, expected.astype(np.float32))
        assert found.audio_hash == hash_audio(found.waveform)
    message = r"a\.wav: has 2 channels; expected channel 2, counted from 0, as well"
    with pytest.raises(AudioError, match=message):
        load_clip(replace(clip, channel=2))


def test_clip_that_is_too_short(make_wav: MakeWav) -> None:
    path = make_wav()
    assert len(load_clip(make_clip(path, 0.9))) == 1_600
    for start, end in ((0.95, None), (0.95, 3.0), (0.4, 0.45)):
        with pytest.raises(
            AudioError, match=r"tone\.wav: the clip lasts 0\.050 s; expected 0\.1 s or more"
        ):
            load_clip(make_clip(path, start, end))


def test_clip_of_which_much_is_missing(make_wav: MakeWav) -> None:
    path = make_wav()
    assert len(load_clip(make_clip(path, 0.19, 1.089))) == 0.81 * 16_000
    message = r"tone\.wav: ends at 1\.000 s; expected a clip from 0\.19 to 1\.091 s"
    with pytest.raises(AudioError, match=message):
        load_clip(make_clip(path, 0.19, 1.091))


@pytest.mark.parametrize("start", [1.0, 2.5])
def test_clip_beyond_the_end(make_wav: MakeWav, start: float) -> None:
    clip = make_clip(make_wav(), start, 3.0)
    with pytest.raises(
        AudioError, match=rf"tone\.wav: ends at 1\.000 s; expected a clip from {start:g} s on"
    ):
        load_clip(clip)


def test_features_come_in_the_order_of_the_clips(tmp_path: Path) -> None:
    write_ramp(tmp_path / "ramp.wav", 16_000, 16_000)
    # More than one worker takes at a time, and of different lengths.
    clips = [make_clip(tmp_path / "ramp.wav", 0.0, (50 - i) / 100) for i in range(40)]
    done: list[int] = []
    found = extract_clip_features(clips, measure, jobs=1, progress=done.append)
    assert found.clips == tuple(clips)
    lengths = [(50 - i) * 160 for i in range(40)]
    rows = [one.tolist() for one in found.features]
    assert rows == [[[n, (n - 1) / 32_768]] for n in lengths]
    assert found.failed == {}
    assert len(set(found.hashes)) == 40
    assert done == [16, 16, 8]


def test_clips_have_rows_of_their_own_number(make_wav: MakeWav) -> None:
    def count(clip: Clip, waveform: FloatArray) -> FloatArray:
        return np.full((len(clip.name), 2), len(waveform), np.float32)

    clips = [make_clip(make_wav("a.wav")), make_clip(make_wav("two.wav"), 0.5)]
    first, second = extract_clip_features(clips, count, jobs=1).features
    assert first.tolist() == [[16_000, 16_000]]
    assert second.tolist() == [[8_000, 8_000]] * 3


def cut_in_two(clip: Clip, waveform: FloatArray) -> list[FloatArray]:
    """Cut clips named ``a...`` in two."""
    return np.array_split(waveform, 2 if clip.name.startswith("a") else 1)


def measure_length(pieces: Sequence[FloatArray]) -> FloatArray:
    return np.array([[len(piece)] for piece in pieces], np.float32)


def test_pieces_of_a_task_are_embedded_together(tmp_path: Path, make_wav: MakeWav) -> None:
    (tmp_path / "broken.wav").write_text("no sound")
    clips = [
        make_clip(make_wav("a.wav")),
        make_clip(tmp_path / "broken.wav"),
        make_clip(make_wav("b.wav"), 0.5),
        make_clip(make_wav("a2.wav", 0.5)),
    ]
    batches: list[list[int]] = []

    def embed(pieces: Sequence[FloatArray]) -> FloatArray:
        batches.append([len(piece) for piece in pieces])
        return measure_length(pieces)

    found = extract_clip_features(clips, cut_in_two, embed=embed, jobs=1)
    assert batches == [[8_000, 8_000, 8_000, 4_000, 4_000]]
    assert [rows.tolist() for rows in found.features] == [
        [[8_000], [8_000]],
        [[8_000]],
        [[4_000], [4_000]],
    ]
    assert found.clips == (clips[0], *clips[2:])
    assert list(found.failed) == [str(tmp_path / "broken.wav")]
    assert found.hashes == extract_clip_features(clips, measure, jobs=1).hashes


def test_nothing_is_embedded_where_nothing_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none of 1 clips could be decoded"):
        extract_clip_features([make_clip(tmp_path / "a.wav")], cut_in_two, embed=max, jobs=1)


_decoded: list[str] = []


def count_and_cut(clip: Clip, waveform: FloatArray) -> list[FloatArray]:
    _decoded.append(clip.name)
    return [waveform]


@pytest.mark.usefixtures("eager_parallel")
def test_few_waveforms_wait_to_be_embedded(make_wav: MakeWav) -> None:
    _decoded.clear()
    clips = [make_clip(make_wav(duration=0.1))] * (10 * CLIPS_PER_TASK + 3)
    waiting: list[int] = []
    done: list[int] = []

    def embed(pieces: Sequence[FloatArray]) -> FloatArray:
        waiting.append(len(_decoded) - sum(done))
        return measure_length(pieces)

    found = extract_clip_features(clips, count_and_cut, embed=embed, jobs=2, progress=done.append)
    assert len(found.clips) == len(clips) == len(_decoded)
    assert done == [CLIPS_PER_TASK] * 10 + [3]
    # All processes have tasks to do at once, but not all tasks.
    tasks = [8, 7, 6, 5, 4, 3, 2, 1]
    assert waiting == [CLIPS_PER_TASK * n for n in tasks] + [35, 19, 3]


def test_broken_files_are_told_and_others_stay(tmp_path: Path, make_wav: MakeWav) -> None:
    good, other = make_wav("good.wav"), make_wav("other.wav", duration=0.5)
    broken, cut = tmp_path / "broken.wav", make_wav("cut.flac", duration=2.0)
    broken.write_text("no sound")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    missing, late = tmp_path / "missing.wav", make_wav("late.wav")
    clips = [*map(make_clip, (good, broken, missing, other, cut)), make_clip(late, 7.0)]
    found = extract_clip_features(clips, measure, jobs=1)
    assert found.clips == (clips[0], clips[3])
    assert [one[0, 0] for one in found.features] == [16_000, 8_000]
    assert len(found.hashes) == 2
    assert found.failed.keys() == {str(broken), str(missing), str(cut), f"{late}#7-"}
    assert "of the 2.000 s that the header promises" in found.failed[str(cut)]
    assert "libsndfile does not know the format" in found.failed[str(broken)]
    assert found.failed[str(missing)] == f"{missing}: does not exist"
    assert "ends at 1.000 s; expected a clip from 7 s on" in found.failed[f"{late}#7-"]


def test_nothing_can_be_decoded(tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / "a.wav"), make_clip(tmp_path / "b.wav")]
    with pytest.raises(
        DatasetError, match=r"^none of 2 clips could be decoded; the first: .*does not exist$"
    ):
        extract_clip_features(clips, measure, jobs=1)


def test_waveforms_are_decoded_when_asked_for(tmp_path: Path, make_wav: MakeWav) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    clips = [make_clip(make_wav(), 0.25, 0.5), make_clip(broken), make_clip(make_wav(), 5.0)]
    waveforms = Waveforms(clips)
    assert len(waveforms) == 3
    heard, *silent = waveforms
    np.testing.assert_array_equal(heard, load_clip(clips[0]))
    assert len(heard) == 4_000
    for waveform in silent:
        assert waveform.dtype == np.float32
        np.testing.assert_array_equal(waveform, np.zeros(16_000))
    with pytest.raises(IndexError):
        waveforms[3]


def test_channels_that_take_turns_are_decoded_once_each(
    make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = make_wav("call.wav", channels=2), make_wav("other.wav")
    clips = [replace(make_clip(path, i / 10, i / 10 + 0.5), channel=i % 2) for i in range(5)]
    clips.insert(3, make_clip(other))
    opened: list[str] = []
    open_file = AudioFile.__init__

    def count(self: AudioFile, path: str) -> None:
        opened.append(Path(path).name)
        open_file(self, path)

    monkeypatch.setattr(AudioFile, "__init__", count)
    monkeypatch.setattr("sercli.extraction.CLIPS_PER_TASK", 2)
    found = extract_clip_features(clips, measure, jobs=1)
    assert found.clips == tuple(clips)
    assert [len(one) for one in found.features] == [1] * 6
    assert [one[0, 0] for one in found.features] == [8_000, 8_000, 8_000, 16_000, 8_000, 8_000]
    assert opened == ["call.wav", "call.wav", "other.wav"]


def test_stretches_before_a_recording_breaks_off(make_wav: MakeWav) -> None:
    path = make_wav("cut.wav", duration=4.0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clips = [make_clip(path, 0.5, 1.0), make_clip(path, 1.5, 2.5), make_clip(path, 1.0)]
    found = extract_clip_features(clips, measure, jobs=1)
    assert [one.tolist()[0][0] for one in found.features] == [8_000]
    assert list(found.failed) == [clip.place for clip in clips[1:]]
    assert all("decoding stops at" in error for error in found.failed.values())
