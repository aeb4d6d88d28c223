"""Stretches of long recordings: the same audio as that of clips, and never all of it at once."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sercli.audio import AudioFile
from sercli.datasets import Clip
from sercli.errors import AudioError
from sercli.extraction import DecodedClip, decode_clip
from sercli.training import cache as caching
from sercli.training.cache import cache_clips
from sercli.training.stretches import decode_stretches

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
    monkeypatch.setattr("sercli.decoders.BLOCK_SIZE", 5_000)


@pytest.mark.usefixtures("small_blocks")
def test_stretches_are_clips(recording: Path) -> None:
    clips = make_clips(recording)
    outcomes = dict(decode_stretches(clips))
    assert sorted(outcomes) == list(range(len(clips)))
    for index, clip in enumerate(clips[: len(HEARD)]):
        found, expected = outcomes[index], decode_clip(clip)
        assert isinstance(found, DecodedClip)
        np.testing.assert_allclose(found.waveform, expected.waveform, atol=1e-6)
        assert found.audio_hash == expected.audio_hash
    assert str(outcomes[6]).endswith("ends at 10.000 s; expected a clip from 9.5 to 11 s")
    assert str(outcomes[7]).endswith("ends at 10.000 s; expected a clip from 12 s on")
    assert list(decode_stretches([])) == []


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
    assert "has 2 channels; expected channel 2" in failed[f"{recording}#3-4.5@2"]


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


def test_each_recording_is_decoded_once(
    recording: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    opened: list[str] = []
    open_file = AudioFile.__init__

    def count(self: AudioFile, path: Path) -> None:
        opened.append(str(path))
        open_file(self, path)

    monkeypatch.setattr(AudioFile, "__init__", count)
    monkeypatch.setattr(caching, "CLIPS_PER_TASK", 2)
    whole = Clip(recording, "fear", name="whole")
    clips = [*make_clips(recording), whole, whole]
    found = cache_clips(clips, tmp_path / "cache", jobs=1)
    assert len(opened) == 2  # for the stretches, and for the whole
    assert found.clips == (*clips[:6], whole, whole)
    assert found.lengths[:3] == (24_000, 92_000, 92_000)
    assert len(cache_clips(clips[:6], tmp_path / "cache", jobs=1)) == 6
    assert len(opened) == 2


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    with sf.SoundFile(path, "w", 16_000, 1) as file:
        for _ in range(60):
            file.write(np.zeros(10 * 16_000, np.float32))
    clips = [Clip(path, "fear", start=start, end=start + 2.0) for start in (5.0, 300.0, 595.0)]
    tracemalloc.start()
    outcomes = list(decode_stretches(clips))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    found = [one for _, one in outcomes if isinstance(one, DecodedClip)]
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
