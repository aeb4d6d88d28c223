"""Tests of decoding clips: whole files, and stretches, of which no recording is held whole."""

import gc
import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from clips import load_clip
from conftest import MakeWav
from numpy.typing import NDArray

from sercli.audio.reading import AudioFile
from sercli.datasets import Clip
from sercli.datasets.decoding import (
    AudioHash,
    decode_clip,
    hash_audio,
    order_by_source,
)
from sercli.datasets.extraction import extract_clip_features
from sercli.datasets.notes import Notes
from sercli.errors import AudioError
from sercli.evaluation.talkers import Pool
from sercli.training.cache import cache_clips

FloatArray = NDArray[np.float32]
Integers = NDArray[np.int16]

# Out of order, inside each other, twice, a little over the end; far over it, and after it.
HEARD = ((3.0, 4.5), (0.25, 6.0), (0.25, 6.0), (1.0, 1.5), (8.5, 10.1), (5.9, 6.1))
TIMES = (*HEARD, (9.5, 11.0), (12.0, 13.0))


def make_clips(path: Path) -> list[Clip]:
    return [
        Clip(path, "fear", name=str(i), start=start, end=end)
        for i, (start, end) in enumerate(TIMES)
    ]


@pytest.fixture(params=[16_000, 22_050])
def recording(request: pytest.FixtureRequest, tmp_path: Path, rng: np.random.Generator) -> Path:
    """Ten seconds of two channels, each with noise of its own."""
    path = tmp_path / "recording.flac"
    sf.write(path, rng.uniform(-0.5, 0.5, (10 * request.param, 2)), request.param)
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sercli.audio.sndfile.BLOCK_SIZE", 5_000)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("ordered", [True, False])
def test_stretches_are_cut_from_the_whole(recording: Path, ordered: bool) -> None:
    whole, sample_rate = load_clip(make_clip(recording)), sf.info(recording).samplerate
    samples = sf.read(recording, dtype="float32", always_2d=True)[0].mean(axis=1)
    clips = make_clips(recording)
    for index in order_by_source(clips) if ordered else reversed(range(len(clips))):
        clip = clips[index]
        assert clip.end is not None
        if index < len(HEARD):
            found = decode_clip(clip)
            span = slice(round(clip.start * 16_000), round(clip.end * 16_000))
            np.testing.assert_allclose(found.waveform, whole[span], atol=1e-6)
            own = slice(round(clip.start * sample_rate), round(clip.end * sample_rate))
            assert found.audio_hash == hash_audio(samples[own])
        else:
            expected = {9.5: "from 9.5 to 11 s", 12.0: "from 12 s on"}[clip.start]
            with pytest.raises(AudioError, match=f"ends at 10.000 s; expected a clip {expected}"):
                decode_clip(clip)


@pytest.mark.usefixtures("small_blocks")
def test_each_channel_has_stretches_of_its_own(recording: Path, tmp_path: Path) -> None:
    (first, *_) = make_clips(recording)
    clips = [replace(first, channel=channel) for channel in (0, 1, None)]
    expected = [decode_clip(clip) for clip in clips]
    assert len({one.audio_hash for one in expected}) == 3
    for turn in ("new", "known"):
        cached = cache_clips(clips, tmp_path / "cache", jobs=1)
        assert list(cached.hashes) == [one.audio_hash for one in expected], turn
        for index, one in enumerate(expected):
            np.testing.assert_allclose(cached.utterance(index).waveform, one.waveform, atol=1e-4)
    failed = cache_clips([first, replace(first, channel=2)], tmp_path / "cache", jobs=1).failed
    assert list(failed) == [f"{recording}#3-4.5@2"]
    assert "has 2 channels; expected a channel 2" in failed[f"{recording}#3-4.5@2"]


@pytest.mark.usefixtures("small_blocks")
def test_a_recording_that_breaks_off_has_the_stretches_before(
    recording: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocks = AudioFile.blocks

    def break_off(self: AudioFile) -> object:
        for block in blocks(self):
            if self.duration > 4.6:
                raise AudioError("recording: breaks off")
            yield block

    monkeypatch.setattr(AudioFile, "blocks", break_off)
    found = cache_clips(make_clips(recording), tmp_path / "cache", jobs=1)
    assert [clip.name for clip in found.clips] == ["0", "3"]
    assert set(found.failed.values()) == {"recording: breaks off"}
    assert len(found.failed) == 5  # two of them have one place


def test_a_recording_is_closed_when_the_next_is_opened(
    tmp_path: Path, noise: Integers, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: set[int] = set()
    open_file, close_file = AudioFile.__init__, AudioFile.close

    def count(self: AudioFile, path: Path) -> None:
        opened.add(id(self))
        open_file(self, path)

    def uncount(self: AudioFile) -> None:
        opened.discard(id(self))
        close_file(self)

    clips = []
    for number in range(3):
        path = tmp_path / f"{number}.wav"
        sf.write(path, np.resize(noise, 480_000), 16_000)
        clips.append(Clip(path, "fear", name=path.name, start=0.0, end=0.5))
    monkeypatch.setattr(AudioFile, "__init__", count)
    monkeypatch.setattr(AudioFile, "close", uncount)
    gc.disable()
    try:
        for clip in clips:
            decode_clip(clip)
            assert len(opened) == 1
    finally:
        gc.enable()


def test_each_recording_is_decoded_once(
    recording: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    open_file = AudioFile.__init__

    def count(self: AudioFile, path: Path) -> None:
        opened.append(str(path))
        open_file(self, path)

    monkeypatch.setattr(AudioFile, "__init__", count)
    monkeypatch.setattr("sercli.datasets.extraction.CLIPS_PER_TASK", 2)
    whole = Clip(recording, "fear", name="whole")
    clips = [*make_clips(recording), whole, whole]
    found = cache_clips(clips, tmp_path / "cache", jobs=1)
    assert len(opened) == 1
    assert found.clips == (*clips[:6], whole, whole)
    assert found.lengths[:3] == (24_000, 92_000, 92_000)
    assert len(cache_clips(clips[:6], tmp_path / "cache", jobs=1)) == 6
    assert len(opened) == 1
    # What lies before a clip that is asked for out of order is gone: it is decoded anew.
    decode_clip(replace(clips[0], channel=0))
    decode_clip(replace(clips[3], channel=0))
    assert len(opened) == 3
    # Nor is a recording decoded twice for who speaks behind its clips.
    talkers = Pool(clips[:6], 0).find_talkers(clips[0])
    assert [len(one) for one in talkers] == [92_000, 92_000, 8_000, 24_000, 3_200]
    assert len(opened) == 4


@pytest.fixture
def faulty(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three seconds with samples that are none, and another recording behind them."""
    path = tmp_path / "faulty.au"
    samples = rng.uniform(-0.5, 0.5, 48_000).astype(np.float32)
    samples[3_000:3_011] = samples[40_000:40_005] = np.nan
    sf.write(path, samples, 16_000, "FLOAT")
    path.write_bytes(2 * path.read_bytes())
    return path


BEHIND = "another recording is appended in the file; reading ends at 3.000 s"
INVALID = "{} samples are NaN, infinite or huge, and were set to silence"
START, LATE, REST = (0.0, 1.0), (7.0, 8.0), (2.6, None)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("times", "expected"),
    [
        # As far as it was decoded.
        ((START, (0.5, 1.5)), (25_000, (INVALID.format(11),))),
        ((START, REST, (0.5, 1.5)), (48_000, (BEHIND, INVALID.format(16)))),
        # What is not there is behind it.
        ((START, LATE), (48_000, (BEHIND, INVALID.format(16)))),
    ],
)
def test_what_is_to_be_known_of_a_recording_is_told_once(
    recording: Path,
    faulty: Path,
    times: tuple[tuple[float, float | None], ...],
    expected: tuple[int, tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("sercli.datasets.extraction.CLIPS_PER_TASK", 1)
    clips = [make_clip(recording), *(make_clip(faulty, *one) for one in times)]
    # A channel is a pass of its own, of which this does not come as far.
    clips += [replace(clips[1], channel=0), make_clip(tmp_path / "missing.wav")]
    n_failed = 1 + (LATE in times)
    notes = {str(faulty): Notes(*expected)}
    found = extract_clip_features(clips, lambda _, waveform: waveform[:1, None], jobs=1)
    assert (len(found.failed), found.notes) == (n_failed, notes)
    assert found.select([0]).notes == notes
    for turn in ("new", "known"):
        cached = cache_clips(clips, tmp_path / "cache", jobs=1)
        assert (len(cached.failed), cached.notes) == (n_failed, notes), turn
    assert cached.take([0]).notes == notes
    some = [cache_clips(clips[i : i + 2], tmp_path / "cache", jobs=1) for i in (2, 0)]
    assert type(cached).join([cached, *some]).notes == notes


def test_an_interrupted_recording_is_decoded_anew(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, blocks = make_clips(recording)[1], AudioFile.blocks
    expected = decode_clip(replace(clip, channel=1)).audio_hash

    def interrupt(self: AudioFile) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(AudioFile, "blocks", interrupt)
    with pytest.raises(KeyboardInterrupt):
        decode_clip(replace(clip, channel=0))
    monkeypatch.setattr(AudioFile, "blocks", blocks)
    assert len(decode_clip(replace(clip, channel=0)).waveform) == 92_000
    assert decode_clip(replace(clip, channel=1)).audio_hash == expected


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with sf.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(60):
            file.write(np.full(10 * 16_000, 0.1, np.float32))
    clips = [Clip(path, "fear", start=start, end=start + 2.0) for start in (5.0, 300.0, 595.0)]
    tracemalloc.start()
    found = [decode_clip(clip) for clip in clips]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(one.waveform) for one in found] == [32_000] * 3
    assert peak < 5e6  # the recording would be 38 MB


def test_a_file_that_has_changed_is_decoded_anew(tmp_path: Path) -> None:
    path = tmp_path / "take.wav"
    lengths = []
    for n_samples in (8_000, 12_000):
        sf.write(path, np.full(n_samples, 0.1), 16_000)
        cached = cache_clips([Clip(path, "fear", name="take")], tmp_path / "cache", jobs=1)
        lengths.append(len(cached.utterance(0).waveform))
    assert lengths == [8_000, 12_000]


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
    sf.write(tmp_path / "silence.wav", np.zeros((3_200, 2), np.int16), 16_000)
    message = r"silence\.wav#0\.01-0\.15: is digital silence; expected speech"
    with pytest.raises(AudioError, match=message):
        decode_clip(make_clip(tmp_path / "silence.wav", 0.01, 0.15))
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


def test_one_channel_is_read_by_itself(tmp_path: Path) -> None:
    samples = np.array([[0.5, 0.25], [-0.5, 0.0]] * 800)
    sf.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    clip = make_clip(tmp_path / "a.wav")
    for channel in (1, 0, None, 1):  # one after the other: what was loaded before is of another
        found = decode_clip(replace(clip, channel=channel))
        expected = samples.mean(axis=1) if channel is None else samples[:, channel]
        np.testing.assert_array_equal(found.waveform, expected.astype(np.float32))
        assert found.audio_hash == hash_audio(found.waveform)
    message = r"a\.wav: has 2 channels; expected a channel 2, counted from 0"
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


def test_talkers_who_cannot_be_decoded_are_silent(tmp_path: Path, make_wav: MakeWav) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_text("no sound")
    clips = [make_clip(make_wav(), 0.25, 0.5), make_clip(broken), make_clip(make_wav(), 5.0)]
    talkers = Pool(clips, 0).find_talkers(replace(clips[0], name="listener"))
    received, *silent = sorted(talkers, key=len)
    np.testing.assert_array_equal(received, load_clip(clips[0]))
    assert len(received) == 4_000
    assert len(silent) == 2
    for waveform in silent:
        assert waveform.dtype == np.float32
        np.testing.assert_array_equal(waveform, np.zeros(16_000))
