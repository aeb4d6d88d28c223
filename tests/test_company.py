"""Tests of clips that are heard with others: decoded once for all, and gone afterwards."""

import os
import pickle
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import soundfile as sf
from clips import load_clip
from numpy.typing import NDArray

from sercli.audio.reading import AudioFile
from sercli.datasets import Clip
from sercli.datasets.decoding import Waveforms
from sercli.datasets.extraction import extract_clip_features
from sercli.errors import DatasetError, OutputError
from sercli.training.company import gather_company
from sercli.training.config import SvmConfig
from sercli.training.svm.rows import BAND_LIMIT, VERSIONS, extract_versions
from sercli.training.versions import Partners, Versions


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are."""
    folder = tmp_path / "room"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def clips(tmp_path: Path, speech: NDArray[np.float32]) -> list[Clip]:
    """Stretches of two recordings that take turns, and two clips that are broken."""
    assert len(speech) > 160_000
    for name, samples in (("a", speech[:160_000]), ("b", speech[159_999::-1])):
        sf.write(tmp_path / f"{name}.flac", samples, 16_000)
    (tmp_path / "c.wav").write_bytes(b"broken")
    stretches = [
        Clip(
            tmp_path / f"{'ab'[i % 2]}.flac",
            ("anger", "fear")[i % 4 > 1],
            "st"[i % 2],
            name=str(i),
            start=9.0 - i,
            end=10.0 - i / 2,
        )
        for i in range(10)
    ]
    late = Clip(tmp_path / "a.flac", "fear", "s", name="late", start=12.0, end=13.0)
    return [*stretches[:5], Clip(tmp_path / "c.wav", "anger", "s"), *stretches[5:], late]


@pytest.mark.parametrize("jobs", [1, 2])
def test_company_is_what_decoding_gives(room: Path, clips: list[Clip], jobs: int) -> None:
    with gather_company(clips, jobs) as company:
        assert len(company) == len(clips) == 12
        broken = (5, 11)
        silence = np.zeros(16_000, np.float32)
        expected = [silence if i in broken else load_clip(clip) for i, clip in enumerate(clips)]
        for received in (company, pickle.loads(pickle.dumps(company))):
            for index, waveform in enumerate(expected):
                np.testing.assert_array_equal(received[index], waveform)
                assert received[index].dtype == np.float32
        (folder,) = room.iterdir()
        n_samples = sum(
            len(load_clip(clip))
            for clip in clips
            if clip.path.suffix == ".flac" and clip.name != "late"
        )
        assert sum(path.stat().st_size for path in folder.iterdir()) == 4 * n_samples + 16 * 12
    assert not list(room.iterdir())


def test_of_a_long_clip_the_beginning_is_mixed_with_others(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    sf.write(tmp_path / "a.wav", rng.uniform(-0.5, 0.5, 31 * 16_000), 16_000)
    clip = Clip(tmp_path / "a.wav", "anger")
    with gather_company([clip], 1) as company:
        np.testing.assert_array_equal(company[0], load_clip(clip)[: 30 * 16_000])


def test_versions_take_two_passes_of_each_recording(
    clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: Counter[str] = Counter()
    open_file = AudioFile.__init__

    def count(self: AudioFile, path: Path) -> None:
        opened[Path(path).name] += 1
        open_file(self, path)

    monkeypatch.setattr(AudioFile, "__init__", count)
    monkeypatch.setattr("sercli.datasets.extraction.CLIPS_PER_TASK", 3)
    found = extract_versions(clips, SvmConfig(jobs=1, seed=3))
    assert opened == {"a.flac": 2, "b.flac": 2, "c.wav": 2}
    # What each is heard with is what it would be if that were decoded then.
    versions = Versions(VERSIONS, Partners(clips), Waveforms(clips), BAND_LIMIT, 3)
    expected = extract_clip_features(clips, versions, jobs=1)
    assert opened["a.flac"] > 6
    np.testing.assert_array_equal(np.stack(found.features), np.stack(expected.features))
    assert (found.clips, found.hashes) == (expected.clips, expected.hashes)
    assert list(found.failed) == [clips[5].place, clips[11].place]


def test_workers_get_no_more_of_many_clips_than_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def measure(task: list[Clip], extract: Any) -> tuple[list[str], dict[str, Any]]:
        sent.append(len(pickle.dumps((task, extract))))
        return [""] * len(task), {}

    def send(some: list[Clip]) -> int:
        """Return the bytes that the first task of ten clips takes."""
        sent.clear()
        with pytest.raises(DatasetError):  # as none was heard
            extract_versions(some, SvmConfig(jobs=1))
        return sent[len(some) // 10]  # after those that decode

    monkeypatch.setattr("sercli.datasets.extraction._extract_task", measure)
    monkeypatch.setattr("sercli.datasets.extraction.CLIPS_PER_TASK", 10)
    others = [Clip(Path(f"{i:04}"), "fear", f"speaker{i // 10}", str(i)) for i in range(2_000)]
    few, many = send(others[:20]), send(others)
    assert few < 10_000
    assert many < few + 500


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("duration", [0.11, 2.0])  # less, and more, than is kept in memory
def test_a_full_disk_is_told(
    room: Path, clips: list[Clip], duration: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = replace(clips[0], start=5.0, end=5.0 + duration)

    def open_full(_: Path, mode: str) -> IO[Any]:
        return open("/dev/full", mode)

    monkeypatch.setattr(Path, "open", open_full)
    with (
        pytest.raises(
            OutputError,
            match=f"^{room}: decoded audio.*No space left.*set TMPDIR to another folder$",
        ),
        gather_company([clip], 1),
    ):
        pytest.fail("there is no room")
    assert not list(room.iterdir())


def test_a_long_clip_is_used_from_where_somebody_speaks(
    tmp_path: Path, speech: NDArray[np.float32], room: Path
) -> None:
    late = np.concatenate((np.zeros(35 * 16_000, np.float32), speech))
    sf.write(tmp_path / "late.flac", late, 16_000)
    with gather_company([Clip(tmp_path / "late.flac", "anger", "s")], 1) as company:
        assert 5 * 16_000 < len(company[0]) <= len(speech) + 16_000
        assert np.abs(company[0][:16_000]).max() > 0.01
