"""Tests of the versions of clips that an SVM is trained on, and of what these are made with."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from clips import load_clip
from numpy.typing import NDArray

from sercli.audio.augment import Utterance
from sercli.audio.reading import AudioFile
from sercli.datasets import Clip
from sercli.features.vector import extract_features, feature_names
from sercli.training.cache import CachedClips, Entry, Talkers, cache_clips
from sercli.training.config import SvmConfig
from sercli.training.partners import Partners
from sercli.training.svm import versions
from sercli.training.svm.versions import VERSIONS, Company, extract_versions, gather_company

FloatArray = NDArray[np.float32]
CONFIG = SvmConfig(jobs=1, seed=3)


@pytest.fixture
def clips(tmp_path: Path, speech: FloatArray) -> list[Clip]:
    """Stretches of two recordings that take turns, and one that is broken."""
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
        for i in range(6)
    ]
    return [*stretches[:3], Clip(tmp_path / "c.wav", "anger", "s"), *stretches[3:]]


@pytest.fixture
def cached(clips: list[Clip], tmp_path: Path) -> CachedClips:
    return cache_clips(clips, tmp_path / "cache", jobs=1)


def test_versions_of_clips(cached: CachedClips, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sercli.datasets.extraction.CLIPS_PER_TASK", 4)
    done: list[tuple[int, int]] = []
    found = extract_versions(cached, CONFIG, lambda *counts: done.append(counts))
    assert done == [(4, 6), (6, 6)]
    assert (found.clips, found.hashes) == (cached.clips, cached.hashes)
    assert (found.failed, found.notes) == (cached.failed, cached.notes)
    assert len(found.failed) == 1
    for index, rows in enumerate(found.features):
        assert rows.shape == (4, len(feature_names()))
        waveform = cached.utterance(index).waveform
        np.testing.assert_array_equal(rows[0], extract_features(waveform))
        assert len(np.unique(rows, axis=0)) == 4
    other = extract_versions(cached, replace(CONFIG, seed=2))
    for one, another in zip(found.features, other.features, strict=True):
        np.testing.assert_array_equal(one[0], another[0])
        assert not (one[1:] == another[1:]).all(axis=1).any()


def test_versions_are_the_same_in_any_number_of_processes(cached: CachedClips) -> None:
    one, two = (extract_versions(cached, replace(CONFIG, jobs=jobs)) for jobs in (1, 2))
    np.testing.assert_array_equal(np.stack(one.features), np.stack(two.features))


def test_nothing_that_is_in_the_cache_is_decoded(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        pytest.fail("a recording was opened")

    monkeypatch.setattr(AudioFile, "__init__", refuse)
    assert len(extract_versions(cached, CONFIG).features) == 6


def test_a_clip_is_joined_with_another_of_its_voice_and_emotion(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds: list[tuple[str, str | None]] = [("anger", "a")] * 3
    kinds += [("fear", "a"), ("anger", "b")]
    kinds += [("anger", None)]
    pool = tuple(
        replace(clip, emotion=emotion, speaker=speaker)
        for clip, (emotion, speaker) in zip(cached.clips, kinds, strict=True)
    )
    partners: list[FloatArray] = []

    def vary(
        utterance: Utterance, find_partner: Any, talkers: Talkers, rng: np.random.Generator
    ) -> FloatArray:
        partners.extend(find_partner().waveform for _ in range(3))
        return utterance.waveform

    monkeypatch.setattr(versions, "vary", vary)
    monkeypatch.setattr(versions, "extract_features", lambda one, _: one[:1])
    pooled = replace(cached, clips=pool)
    for index, expected in enumerate(({1, 2}, {0, 2}, {0, 1}, {3}, {4}, {5})):
        partners.clear()
        for seed in range(5):
            gather_company(pooled, Partners(pool), index, seed).extract()
        lengths = [len(load_clip(cached.clips[i])) for i in expected]
        assert {len(one) for one in partners} == {*lengths}


def test_anybody_may_talk_in_the_background(cached: CachedClips) -> None:
    partners = Partners(cached.clips)
    heard = [gather_company(cached, partners, 0, seed).talkers for seed in range(9)]
    assert {one for talkers in heard for one in talkers} == {*cached.entries}
    assert len({*heard}) == 9


def test_processes_get_no_more_of_many_clips_than_of_few(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    def measure(_: object, some: list[Company]) -> list[FloatArray]:
        sent.append(len(pickle.dumps(some)))
        return [np.zeros((len(VERSIONS), 1), np.float32)] * len(some)

    def send(n_clips: int) -> int:
        """Return the most bytes that a task takes."""
        sent.clear()
        some = cached.take([0] * n_clips)
        clips = tuple(replace(clip, name=str(i)) for i, clip in enumerate(some.clips))
        entries = tuple(replace_path(some.entries[0], i) for i in range(n_clips))
        extract_versions(CachedClips(clips, entries, {}), CONFIG)
        return max(sent)

    def replace_path(entry: Entry, number: int) -> Entry:
        return entry._replace(path=Path(f"/cache/{number:032}"))

    monkeypatch.setattr("sercli.datasets.extraction._run", measure)
    # Whom a clip is combined with is drawn from all clips, and some are drawn twice from few.
    few = send(1_000)
    assert few < 30_000
    assert send(10_000) < 1.5 * few


def test_of_long_clips_the_speech_is_heard_in_the_background(
    tmp_path: Path, speech: FloatArray
) -> None:
    late = np.concatenate((np.zeros(35 * 16_000, np.float32), speech))
    sf.write(tmp_path / "late.flac", late, 16_000)
    sf.write(tmp_path / "short.flac", late[30 * 16_000 : 45 * 16_000], 16_000)
    clips = [Clip(tmp_path / name, "anger", "s") for name in ("late.flac", "short.flac")]
    cached = cache_clips(clips, tmp_path / "cache", jobs=1)
    late, short = Talkers(cached.entries)
    start = cached.entries[0].start
    assert 34 * 16_000 < start < 37 * 16_000
    np.testing.assert_array_equal(late, cached.utterance(0).waveform[start:][: 30 * 16_000])
    np.testing.assert_array_equal(short, cached.utterance(1).waveform)  # silence and all
