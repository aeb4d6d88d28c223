"""The cache of decoded audio, and what training draws from it."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from clips import load_clip
from scipy.stats import binom

from sercli.arrays import FloatArray
from sercli.audio import SAMPLE_RATE, codecs
from sercli.audio.augment import Utterance
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import decode_clip
from sercli.errors import DatasetError, OutputError
from sercli.training import cache as caching
from sercli.training.cache import CachedClips, cache_clips, find_bounds
from sercli.training.config import NeuralConfig
from sercli.training.networks import batches as drawing
from sercli.training.networks.batches import Augmenter, ClipBatches, TrainingBatches
from sercli.training.networks.loop import TrainingBatch
from sercli.training.networks.targets import find_vote_shares, make_targets
from sercli.training.partners import Partners

EMOTIONS = ("anger", "fear", "sadness")
CLASSES = np.array([0] * 5 + [1] * 2 + [2])


@pytest.fixture
def clips(tmp_path: Path) -> list[Clip]:
    """Five clips of anger, two of fear, one of sadness; one is hardly to be heard."""
    made = []
    for index, emotion in enumerate(["anger"] * 5 + ["fear"] * 2 + ["sadness"]):
        time = np.arange(12_000 + 1_000 * index) / SAMPLE_RATE
        tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * index) * time)
        tone *= 1e-4 if index == 3 else 1
        path = tmp_path / "corpus" / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        sf.write(path, tone.astype(np.float32), SAMPLE_RATE, subtype="FLOAT")
        made.append(Clip(path, emotion, speaker=str(index % 2), name=path.stem))
    return made


@pytest.fixture
def cached(clips: list[Clip], tmp_path: Path) -> CachedClips:
    return cache_clips(clips, tmp_path / "cache", jobs=1)


def batches(cached: CachedClips, *, threads: int = 1, **changes: object) -> TrainingBatches:
    values = {"batch_size": 3, "seed": 5, "max_crop": 0.5} | changes
    config = NeuralConfig(**values)  # type: ignore[arg-type]
    targets = np.zeros((len(cached), 2), np.float32)
    targets[:, 0] = np.arange(len(cached))  # tells which clip it is
    return TrainingBatches(cached, targets, CLASSES, config, threads=threads)


def equal(first: list[TrainingBatch], second: list[TrainingBatch]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(a.equal(b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_another_stage_has_draws_of_its_own(cached: CachedClips) -> None:
    drawn: list[list[float]] = []

    class Spy(ClipBatches):
        def make(self, draws: Any) -> Any:
            drawn[-1] += [rng.random() for _, rng in draws]

    config = NeuralConfig(batch_size=3, seed=5)
    for stage in (0, 0, 1):
        drawn.append([])
        for epoch in range(3):
            list(Spy(CLASSES, config, 1, stage)(epoch))
    # Versions of clips for a head are drawn so; the first number is 1.
    versions = {
        np.random.default_rng([5, number, i]).random() for number in (1, 2) for i in range(8)
    }
    assert drawn[0] == drawn[1]
    assert {*drawn[0]} & versions
    assert not {*drawn[2]} & ({*drawn[0]} | versions)


def test_cache_gives_what_decoding_gives(clips: list[Clip], cached: CachedClips) -> None:
    assert cached.clips == tuple(clips)
    assert cached.duration == pytest.approx(sum(12_000 + 1_000 * i for i in range(8)) / SAMPLE_RATE)
    for index, clip in enumerate(clips):
        waveform = cached.utterance(index).waveform
        expected = decode_clip(clip)
        np.testing.assert_allclose(waveform, expected.waveform, atol=0.3 / 32_767)
        assert cached.hashes[index] == expected.audio_hash
    assert cached.take([4, 2]).clips == (clips[4], clips[2])
    assert cached.take([4, 2]).hashes == (cached.hashes[4], cached.hashes[2])
    assert 2 * cached.duration * SAMPLE_RATE < cached.n_bytes < 2.5 * cached.duration * SAMPLE_RATE


def test_cache_knows_where_somebody_speaks(tmp_path: Path) -> None:
    path = Path(__file__).parent.parent / "examples" / "call.wav"
    clip = Clip(path, "anger", name="call", start=0.0, end=4.0)
    cached = cache_clips([clip], tmp_path / "cache", jobs=1)
    start, end = find_bounds(load_clip(clip))
    assert cached.utterance(0)[1:] == (start, end)
    assert 0 <= start < end <= len(cached.utterance(0).waveform) == 4 * SAMPLE_RATE


def test_cache_decodes_nothing_twice(
    clips: list[Clip], cached: CachedClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def decode(clip: Clip) -> object:
        decoded.append(clip.name)
        return decode_clip(clip)

    monkeypatch.setattr(caching, "decode_clip", decode)
    folder = tmp_path / "cache"
    renamed = replace(clips[0], path=tmp_path / "renamed.wav")
    os.rename(clips[0].path, renamed.path)
    again = cache_clips([renamed, *clips[1:]], folder, jobs=1)
    assert decoded == []
    assert again.entries == cached.entries
    # Another stretch, a changed recording and a damaged file are other audio.
    sf.write(clips[1].path, np.full(9_000, 0.1, np.float32), SAMPLE_RATE)
    damaged = cached.entries[2].path
    damaged.write_bytes(damaged.read_bytes()[:-100])
    third = replace(clips[4], end=0.5)
    found = cache_clips([renamed, clips[1], clips[2], third], folder, jobs=1)
    assert decoded == ["1", "2", "4"]
    cache_clips([third], folder, jobs=1)
    assert decoded == ["1", "2", "4"]
    assert [entry.n_samples for entry in found.entries] == [12_000, 9_000, 14_000, 8_000]
    assert (folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f0688")


def test_cache_tells_what_fails(clips: list[Clip], tmp_path: Path) -> None:
    clips[1].path.write_text("no audio")
    os.unlink(clips[2].path)
    cached = cache_clips(clips, tmp_path / "cache", jobs=1)
    assert len(cached) == 6
    assert set(cached.failed) == {clips[1].place, clips[2].place}
    with pytest.raises(
        DatasetError, match=r"none of 2 clips could be decoded; the first: .*1\.wav"
    ):
        cache_clips(clips[1:3], tmp_path / "cache", jobs=1)
    with pytest.raises(OutputError, match=r"the cache cannot be created.*name another folder"):
        cache_clips(clips, clips[0].path / "inside", jobs=1)


def test_classes_are_drawn_equally_often() -> None:
    drawn = drawing.draw_order(CLASSES, 5, 0)
    # Three of each of three classes; a clip comes again only when all others were heard.
    assert sorted(index for index, _ in drawn if index >= 5) in (
        [5, 5, 6, 7, 7, 7],
        [5, 6, 6, 7, 7, 7],
    )
    assert sum(index < 5 for index, _ in drawn) == len({i for i, _ in drawn if i < 5}) == 3
    assert sorted(turn for index, turn in drawn if index == 7) == [0, 1, 2]
    received = {i for epoch in range(10) for i, _ in drawing.draw_order(CLASSES, 5, epoch)}
    assert received == set(range(8))  # nothing is left out for ever
    assert drawing.draw_order(CLASSES, 5, 1) != drawn
    # Labels come in any order: each is about as often the first.
    firsts = [CLASSES[drawing.draw_order(CLASSES, 5, epoch)[0][0]] for epoch in range(90)]
    assert np.bincount(firsts, minlength=3).min() > 15


def test_clips_without_a_label_are_drawn_as_one_label_more() -> None:
    classes = np.concatenate((CLASSES, [drawing.NO_LABEL] * 40))
    assert drawing.count_draws(CLASSES) == 8
    assert drawing.count_draws(classes) == 8 + 3
    drawn = [classes[index] for index, _ in drawing.draw_order(classes, 5, 0)]
    assert [drawn.count(label) for label in (-1, 0, 1, 2)] == [3] * 4


def test_batches_are_the_same_on_any_number_of_threads(cached: CachedClips) -> None:
    expected = list(batches(cached)(2))
    assert len(expected) == len(batches(cached)) == 2
    assert equal(list(batches(cached, threads=2)(2)), expected)
    assert not equal(list(batches(cached)(3)), expected)
    assert not equal(list(batches(cached, seed=6)(2)), expected)
    for waveforms, lengths, _ in expected:
        assert waveforms.isfinite().all()
        assert 0 < int(lengths.max()) == waveforms.shape[1] <= 8_000


def test_a_clip_does_not_sound_the_same_twice_in_an_epoch(cached: CachedClips) -> None:
    (batch,) = batches(cached, batch_size=8, clean_share=0.0)(0)
    ways = batch.waveforms[batch.targets[:, 0] == 7]
    assert len(ways) >= 2
    assert not ways[0].equal(ways[1])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_clean_clips_are_whole_or_only_speech(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    def change(waveform: FloatArray, _: np.random.Generator) -> FloatArray:
        return -waveform

    monkeypatch.setattr(drawing, "draw_voice", change)
    made = batches(cached, clean_share=1.0, voice_share=share, max_crop=5.0)
    for waveforms, lengths, targets in made(0):
        for waveform, length, target in zip(waveforms, lengths, targets, strict=True):
            whole, start, end = cached.utterance(int(target[0]))
            received = waveform[: int(length)].numpy() * (1 - 2 * share)
            assert np.array_equal(received, whole) or np.array_equal(received, whole[start:end])


def check_shares(counts: dict[str, int], shares: dict[str, float]) -> None:
    """Assert that each share of the draws, which are fixed by their seeds, is likely."""
    n_draws = sum(counts.values())
    for name, share in shares.items():
        low, high = binom.interval(0.9999, n_draws, share)
        assert low <= counts[name] <= high, name
    assert counts.keys() == shares.keys()


def test_a_share_of_clips_stays_clean_half_of_them_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(__file__).parent.parent / "examples" / "call.wav"
    clips = [Clip(path, "anger", name="call", start=0.0, end=4.0)]
    cached = cache_clips(clips, tmp_path / "cache", jobs=1)
    whole, start, end = cached.utterance(0)
    # The same clip is heard 1,000 times; what is no speech tells whole clips from their speech.
    assert end - start < len(whole)
    monkeypatch.setattr(CachedClips, "utterance", lambda *_: Utterance(whole, start, end))
    monkeypatch.setattr(drawing, "draw_voice", lambda waveform, _: -waveform)
    monkeypatch.setattr(Augmenter, "augment", lambda *_: np.zeros(1, np.float32))
    config = NeuralConfig(clean_share=0.4, voice_share=0.7)
    made = Augmenter(cached, config)
    ways = {
        "whole": whole,
        "speech": whole[start:end],
        "whole in another voice": -whole,
        "speech in another voice": -whole[start:end],
        "augmented": np.zeros(1, np.float32),
    }
    counts = dict.fromkeys(ways, 0)
    for seed in range(1_000):
        received = made.draw(0, np.random.default_rng(seed))
        (way,) = (name for name, expected in ways.items() if np.array_equal(received, expected))
        counts[way] += 1
    shares = [0.4 * 0.5 * 0.3] * 2 + [0.4 * 0.5 * 0.7] * 2 + [0.6]
    check_shares(counts, dict(zip(ways, shares, strict=True)))


def test_a_clip_is_joined_with_its_voice_and_emotion(
    clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips[5:7] = [replace(clip, speaker=None) for clip in clips[5:7]]
    cached = cache_clips(clips, tmp_path / "cache", jobs=1)
    monkeypatch.setattr(drawing, "vary", lambda _, find_partner, *__: find_partner().waveform)
    monkeypatch.setattr(drawing, "CODEC_PROBABILITY", 0.0)
    made = Augmenter(cached, NeuralConfig())
    number_of = {12_000 + 1_000 * index: index for index in range(8)}
    partners = [
        {number_of[len(made.augment(index, np.random.default_rng(seed)))] for seed in range(60)}
        for index in range(8)
    ]
    # Two clips of fear whose speakers are unknown may be of two people.
    assert partners == [{0, 2, 4}, {1, 3}] * 2 + [{0, 2, 4}, {5}, {6}, {7}]


def test_long_clips_are_cropped_anywhere(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    ramp = np.arange(12_000, dtype=np.float32)
    monkeypatch.setattr(Augmenter, "draw", lambda *_: ramp)
    pieces = [
        piece
        for epoch in range(10)
        for batch in batches(cached, max_crop=0.5)(epoch)
        for piece in batch.waveforms
    ]
    assert all(piece.equal(piece[0] + piece.new_tensor(ramp[:8_000])) for piece in pieces)
    starts = [piece[0].item() for piece in pieces]
    assert min(starts) < 500
    assert max(starts) > 3_500


def test_a_tenth_goes_through_codecs_by_their_weights(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "codec_available", lambda _: True)
    monkeypatch.setattr(drawing, "record", lambda waveform, *_: waveform - 1)
    names = list(drawing.CODECS)
    monkeypatch.setattr(drawing, "transmit", lambda _, codec, __: np.array([names.index(codec)]))
    made, counts = Augmenter(cached, NeuralConfig()), dict.fromkeys(("none", *names), 0)
    for seed in range(3_000):
        (index,) = made.record(np.array([0], np.float32), np.random.default_rng(seed))
        counts["none" if index < 0 else names[int(index)]] += 1
    shares = {"none": 0.9, "mulaw": 1 / 70, "gsm": 2 / 70, "amr": 2 / 70}
    check_shares(counts, {**shares, "mp3": 1 / 70, "opus": 1 / 70})


@pytest.mark.parametrize("codec", drawing.CODECS)
def test_codecs_of_lines_keep_the_band_of_a_line(
    cached: CachedClips,
    monkeypatch: pytest.MonkeyPatch,
    rng: np.random.Generator,
    codec: str,
) -> None:
    received: list[FloatArray] = []
    monkeypatch.setattr(codecs, "encode_decode", lambda waveform, _: received.append(waveform))
    monkeypatch.setattr(drawing, "codec_available", lambda name: name == codec)
    monkeypatch.setattr(drawing, "record", lambda waveform, *_: waveform)
    monkeypatch.setattr(drawing, "CODEC_PROBABILITY", 1.0)
    noise = rng.standard_normal(4 * SAMPLE_RATE).astype(np.float32)
    Augmenter(cached, NeuralConfig()).record(noise, rng)
    before, after = (np.abs(np.fft.rfft(waveform)) ** 2 for waveform in (noise, received[0]))
    # Bins of a quarter of a hertz: below, within and above the band.
    gains = [
        after[part].sum() / before[part].sum()
        for part in (slice(400, 900), slice(1_600, 13_000), slice(14_400, 32_000))
    ]
    is_line = codec in ("mulaw", "gsm", "amr")
    expected = [0, 1, 0] if is_line else [1, 1, 1]
    np.testing.assert_allclose(np.array(gains) / gains[1], expected, atol=0.02)
    assert np.abs(received[0]).max() == pytest.approx(0.5)


def test_codecs_change_the_sound(cached: CachedClips, monkeypatch: pytest.MonkeyPatch) -> None:
    through: list[str] = []

    def encode(waveform: FloatArray, codec: str) -> FloatArray:
        assert np.abs(waveform).max() == pytest.approx(0.5)
        through.append(codec)
        return waveform

    monkeypatch.setattr(codecs, "encode_decode", encode)
    monkeypatch.setattr(drawing, "codec_available", lambda name: name != "amr")
    monkeypatch.setattr(drawing, "CODEC_PROBABILITY", 1.0)
    made = batches(cached, clean_share=0.0)
    for epoch in range(8):
        list(made(epoch))
    assert set(through) == {"mulaw", "gsm", "mp3", "opus"}
    assert len(through) == 8 * 6


def test_an_error_on_a_thread_reaches_the_caller(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = batches(cached, threads=2)
    monkeypatch.setattr(made, "make", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(made(0))


def test_targets() -> None:
    clips = [Clip(Path(name), label, name=name) for name, label in (("a", "fear"), ("b", "anger"))]
    config = NeuralConfig(label_smoothing=0.3)
    smoothed = [[0.1, 0.8, 0.1], [0.8, 0.1, 0.1]]
    np.testing.assert_allclose(make_targets(clips, EMOTIONS, config), smoothed, rtol=1e-6)
    votes = {"a": {"fear": 1, "sadness": 3, "joy": 9}, "b": {"anger": 0, "joy": 2}}
    shares = find_vote_shares(clips, EMOTIONS, votes)
    for clip, row in zip(clips, shares, strict=True):
        counts = np.array([votes.get(clip.name, {}).get(label, 0) for label in EMOTIONS])
        np.testing.assert_allclose(row * max(counts.sum(), 1), counts, rtol=1e-6)


def test_clips_are_joined_with_those_of_their_speaker_alone(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two tables name a speaker alike; who is unknown may be anybody.
    who = [("ab"[i % 2], None if i == 4 else "03") for i in range(len(cached))]
    pool = tuple(
        replace(clip, corpus=corpus, speaker=speaker, namespace="table")
        for clip, (corpus, speaker) in zip(cached.clips, who, strict=True)
    )
    joined: set[int] = set()

    def vary(utterance: Utterance, find_partner: Callable[[], Utterance], *_: Any) -> FloatArray:
        joined.update(len(find_partner().waveform) // 1_000 - 12 for _ in range(40))
        return utterance.waveform

    monkeypatch.setattr(drawing, "vary", vary)
    found = Augmenter(replace(cached, clips=pool), NeuralConfig())
    partners = Partners(pool)
    for index, expected in ((0, {0, 2}), (1, {1, 3}), (4, {4}), (5, {5}), (7, {7})):
        joined.clear()
        found.augment(index, np.random.default_rng(index))
        assert joined == expected
        assert partners.find_alike(index) == sorted(expected)
        assert {*partners.find_others(index)} == (expected - {index} or {index})
