import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from conftest import MakeWav
from numpy.typing import NDArray

from sercli.audio.reading import AudioFile
from sercli.datasets import Clip
from sercli.datasets.extraction import (
    CLIPS_PER_TASK,
    extract_clip_features,
)
from sercli.errors import DatasetError

FloatArray = NDArray[np.float32]


def make_clip(path: Path, start: float = 0.0, end: float | None = None) -> Clip:
    return Clip(path, "anger", "ann", name=path.stem, start=start, end=end)


def measure(clip: Clip, waveform: FloatArray) -> FloatArray:
    return np.array([[len(waveform), waveform.max()]], np.float32)


def write_ramp(path: Path, n_samples: int, sample_rate: int) -> None:
    """Write samples of which each tells its place."""
    sf.write(path, np.arange(n_samples, dtype=np.int16), sample_rate)


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


def tell_process(clip: Clip, waveform: FloatArray) -> list[FloatArray]:
    return [np.array([os.getpid(), len(waveform)])]


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_without_streams_clips_are_decoded_here(
    name: str, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [make_clip(make_wav(duration=0.1))] * (CLIPS_PER_TASK + 1)
    monkeypatch.setattr(sys, name, None)
    for embed in (None, np.array):
        found = extract_clip_features(clips, tell_process, embed=embed, jobs=2)
        assert np.vstack(found.features).tolist() == [[os.getpid(), 1_600]] * len(clips)


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
    monkeypatch.setattr("sercli.datasets.extraction.CLIPS_PER_TASK", 2)
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
