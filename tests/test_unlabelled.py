"""Speech that nobody labelled: where it is found, what is learned of it, and what is not."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from conftest import EXAMPLES, FakeClassifier
from numpy.typing import NDArray

import sercli
from sercli.audio.prosody import Voice
from sercli.datasets.clip import Clip
from sercli.datasets.decoding import decode_clip
from sercli.errors import ConfigError, DatasetError
from sercli.evaluation.leaks import TrainingManifest, hash_speaker
from sercli.labels import EMOTIONS
from sercli.registry.store import load_model
from sercli.speech.speakers import Speakers
from sercli.training import variations
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.config import CnnConfig, NeuralConfig, SvmConfig
from sercli.training.creation import create_trainer
from sercli.training.networks import course as courses
from sercli.training.networks.batches import NO_LABEL, TrainingBatches, count_draws, draw_order
from sercli.training.networks.cnn import CnnCourse
from sercli.training.networks.material import Material
from sercli.training.networks.rows import RowBatches
from sercli.training.networks.targets import make_targets
from sercli.training.svm.trainer import SvmTrainer
from sercli.training.teachers import Teacher
from sercli.training.train_config import TrainConfig
from sercli.training.unlabelled import Unlabelled, find_unlabelled
from sercli.training.watcher import Watcher

CONFIG = NeuralConfig(batch_size=8, seed=3, max_crop=0.5, prosodies=0, device="cpu", jobs=1)
# Of examples/: those in which somebody speaks for a second or more.
SPOKEN = ("call.wav", "memo.m4a", "statement.flac")


def search(*paths: Path, cache: Path) -> Unlabelled:
    return Unlabelled(paths, cache, jobs=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def examples(cache: Path) -> Unlabelled:
    return search(EXAMPLES, cache=cache)


@pytest.fixture
def labelled(tmp_path: Path, cache: Path, rng: np.random.Generator) -> CachedClips:
    """Two clips of each emotion, but one of anger."""
    clips = []
    for index, emotion in enumerate((*EMOTIONS, *EMOTIONS[1:])):
        path = tmp_path / f"{index}.wav"
        sf.write(path, rng.normal(0, 0.1, 9_000), 16_000)
        clips.append(Clip(path, emotion, speaker=f"s{index}", name=path.stem))
    return cache_clips(clips, cache, jobs=1)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    """The shipped SVM, as if it had been trained on nobody."""
    return Teacher(load_model("svm"), {}, TrainingManifest(()))


def test_segments_are_those_that_would_be_annotated(
    examples: Unlabelled, fake_classifier: FakeClassifier
) -> None:
    results = {Path(one.path).name: one for one in sercli.annotate(EXAMPLES, fake_classifier)}
    expected = [
        (str(EXAMPLES / name), segment.start, segment.end)
        for name in SPOKEN
        for segment in results[name].segments
        if segment.end - segment.start >= 1
    ]
    found = examples.found
    assert [(str(clip.path), clip.start, clip.end) for clip in found.clips] == expected
    shorter = sum(len(one.segments) for one in results.values()) - len(expected)
    assert shorter > 0
    assert {(clip.emotion, clip.speaker, clip.voice) for clip in found.clips} == {
        ("unlabelled", None, None)
    }
    assert len({clip.name for clip in found.clips}) == len(expected)
    assert (found.failed, found.n_searched) == ({}, 4)
    duration = sum(end - start for _, start, end in expected)
    assert examples.describe() == (
        f"unlabelled: {len(expected)} segments, {duration:.1f} s of speech, in 3 of 4 recordings"
    )


def test_audio_is_what_would_be_scored(
    examples: Unlabelled, fake_classifier: FakeClassifier
) -> None:
    list(sercli.annotate(EXAMPLES, fake_classifier))
    received = [waveform for waveform in fake_classifier.received if len(waveform) >= 16_000]
    assert len(examples.cached) == len(received)
    for index in range(len(received)):
        found = examples.cached.utterance(index).waveform
        alike = [
            place
            for place, waveform in enumerate(received)
            if len(waveform) == len(found) and np.allclose(waveform, found, atol=1e-5)
        ]
        del received[alike[0]]
    assert not received


def test_recordings_have_the_hashes_of_clips(examples: Unlabelled) -> None:
    recordings = examples.found.recordings
    assert list(recordings) == [str(EXAMPLES / name) for name in SPOKEN]
    for path, audio in recordings.items():
        assert audio == decode_clip(Clip(Path(path), "fear")).audio_hash
    manifest = examples.manifest
    assert {speaker for _, speaker in manifest.rows} == {"unlabelled"}
    assert manifest.count_clips([*examples.cached.hashes, *recordings.values()]) == len(
        examples.cached
    ) + len(recordings)
    assert manifest.find_speakers([Clip(EXAMPLES, "fear", "unlabelled")]) == []


def test_speakers_may_be_known(examples: Unlabelled, cache: Path) -> None:
    speakers = Speakers.parse(r"/(call|memo)\.")
    found = Unlabelled((EXAMPLES,), cache, "calm", speakers, jobs=1)
    assert found.describe() == examples.describe().replace("unlabelled", "calm")
    assert {(clip.path.stem, clip.voice) for clip in found.found.clips} == {
        ("call", "unlabelled/call"),
        ("memo", "unlabelled/memo"),
        ("statement", None),
    }
    of = {clip.path.stem: hash_speaker(clip) or "unlabelled" for clip in found.found.clips}
    expected = {
        (audio, of[clip.path.stem])
        for clip, audio in zip(found.cached.clips, found.cached.hashes, strict=True)
    } | {(audio, of[Path(path).stem]) for path, audio in found.found.recordings.items()}
    assert set(found.manifest.rows) == expected
    assert "unlabelled" in {speaker for _, speaker in expected}


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_without_streams_speech_is_looked_for_here(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = find_unlabelled((EXAMPLES / "memo.m4a",), jobs=1)
    monkeypatch.setattr(sys, name, None)  # loky could start no process
    assert find_unlabelled((EXAMPLES / "memo.m4a",), jobs=2) == expected


def test_speakers_that_may_be_of_several_recordings_are_refused(tmp_path: Path) -> None:
    turns = tmp_path / "all.rttm"
    turns.write_text("SPEAKER call 1 0 9 <NA> <NA> ann\nSPEAKER call.wav 1 9 90 <NA> <NA> ben\n")
    with pytest.raises(ConfigError, match=r"call\.wav may be call\.wav \(line 2\) or call \(line"):
        find_unlabelled((EXAMPLES,), speakers=Speakers.parse(str(turns)), jobs=1)
    turns.write_text("SPEAKER call 1 0 99 <NA> <NA> ann\n")
    found = find_unlabelled((EXAMPLES,), speakers=Speakers.parse(str(turns)), jobs=1)
    voices = {(clip.path.stem, clip.voice) for clip in found.clips}
    assert voices == {("call", "unlabelled/call/ann"), ("memo", None), ("statement", None)}


def test_what_fails_is_told(tmp_path: Path, cache: Path) -> None:
    broken, missing = tmp_path / "broken.wav", tmp_path / "missing.wav"
    broken.write_text("no audio")
    told: list[tuple[int, int]] = []
    paths = (EXAMPLES / "statement.flac", broken, missing)
    found = find_unlabelled(paths, jobs=1, report=lambda *at: told.append(at))
    assert {clip.path.name for clip in found.clips} == {"statement.flac"}
    assert list(found.failed) == [str(broken), str(missing)]
    assert "does not exist" in found.failed[str(missing)]
    assert told == [(1, 3), (2, 3), (3, 3)]
    # Another recording behind it is not heard; nobody need speak before that.
    twice = tmp_path / "twice.wav"
    twice.write_bytes(2 * (EXAMPLES / "silence.wav").read_bytes())
    (behind,) = find_unlabelled([*paths, twice], jobs=1).notes.items()
    assert behind[0] == str(twice)
    assert behind[1].warnings[0].startswith("another recording is appended in the file")
    unlabelled = search(*paths, twice, cache=cache)
    assert unlabelled.notes == dict([behind])
    assert SvmTrainer(SvmConfig(), cache=cache, calm=unlabelled).speech == (unlabelled,)
    assert search(*paths, cache=cache).describe().endswith("in 1 of 3 recordings; 2 failed")
    with pytest.raises(
        DatasetError, match=r"no speech of 1 s or more in 1 recording for .*: .*broken\.wav: libsnd"
    ):
        _ = search(broken, cache=cache).cached
    with pytest.raises(DatasetError, match=r"in 1 recording for training .*: no speech was found"):
        _ = search(EXAMPLES / "silence.wav", cache=cache).cached


def test_what_is_scored_is_refused(
    examples: Unlabelled, cache: Path, tmp_path: Path, speech: NDArray[np.float32]
) -> None:
    # A lossless copy of a recording, and one of a segment.
    sf.write(tmp_path / "copy.wav", speech, 16_000)
    (first, *_) = (clip for clip in examples.found.clips if clip.path.name == "statement.flac")
    assert first.end is not None
    segment = speech[round(first.start * 16_000) : round(first.end * 16_000)]
    sf.write(tmp_path / "segment.wav", segment, 16_000)
    sf.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    sf.write(tmp_path / "other.wav", speech[5:], 16_000)
    stretch = Clip(EXAMPLES / "call.wav", "fear", start=0.5, end=2.0)
    fine = [Clip(tmp_path / name, "fear") for name in ("silence.wav", "other.wav")]
    examples.refuse_held_out(cache_clips(fine, cache, jobs=1))
    for name in ("copy.wav", "segment.wav"):
        clip = Clip(tmp_path / name, "fear")
        with pytest.raises(ConfigError, match=rf"{name}: is to be scored, but is also in"):
            examples.refuse_held_out(cache_clips([*fine, clip], cache, jobs=1))
    with pytest.raises(ConfigError, match=r"call\.wav#0\.5-2: is to be scored, but is also in"):
        examples.refuse_held_out(cache_clips([*fine, stretch], cache, jobs=1))


def test_a_teacher_is_needed(examples: Unlabelled) -> None:
    with pytest.raises(ConfigError, match=r"needs a teacher to label it; expected a teacher"):
        CnnCourse(CONFIG, EMOTIONS, unlabelled=examples)


def test_unlabelled_clips_are_drawn_as_often_as_those_of_a_label() -> None:
    classes = np.array([0] * 5 + [1] * 2 + [2] + [NO_LABEL] * 40)
    assert (count_draws(classes), count_draws(classes[:8])) == (11, 8)
    received: set[int] = set()
    for epoch in range(60):
        drawn = [index for index, _ in draw_order(classes, 5, epoch)]
        assert Counter(classes[drawn].tolist()) == {0: 3, 1: 3, 2: 3, NO_LABEL: 3}
        received.update(drawn)
    assert received == set(range(len(classes)))
    # They may be drawn more often: their number is rounded up.
    for ratio, n_drawn in ((2.0, 6), (1.5, 5), (0.5, 2)):
        assert count_draws(classes, ratio) == 8 + n_drawn
        drawn = [index for index, _ in draw_order(classes, 5, 0, ratio)]
        assert Counter(classes[drawn].tolist()) == {0: 3, 1: 3, 2: 3, NO_LABEL: n_drawn}
    # Few of them come again, as those of a rare label do.
    drawn = [index for index, _ in draw_order(classes[:9], 5, 0)]
    assert drawn.count(8) == 3


def test_all_labels_of_a_teacher_are_drawn_equally_often() -> None:
    # Of 40 unlabelled clips, one is said to have the label 1 and seven the label 4.
    given = [NO_LABEL] * 32 + [NO_LABEL - 4] * 7 + [NO_LABEL - 1]
    classes = np.array([0] * 5 + [1] * 2 + [2] + given)
    for ratio, n_each in ((1.0, 1), (2.0, 2), (5.0, 5)):
        assert count_draws(classes, ratio) == 8 + 3 * ratio
        drawn = [index for index, _ in draw_order(classes, 5, 0, ratio)]
        expected = {0: 3, 1: 3, 2: 3, -1: n_each, -2: n_each, -5: n_each}
        assert Counter(classes[drawn].tolist()) == expected


def test_what_a_teacher_says_is_all_that_is_learned(
    labelled: CachedClips, examples: Unlabelled, teacher: Teacher
) -> None:
    config = replace(CONFIG, perceived_weight=0.5, guide_weight=0.0)
    votes = {clip.name: {"fear": 1, "anger": 3} for clip in labelled.clips}
    course = CnnCourse(config, EMOTIONS, votes, teacher, unlabelled=examples)
    said: list[str] = []
    material = course.gather(labelled, said.append)
    n_labelled, n_unlabelled = len(labelled), len(examples.cached)
    assert said == [f"svm classifies {n_unlabelled} unlabelled segments"]
    assert material.all_clips.clips == (*labelled.clips, *examples.cached.clips)
    targets = course.find_targets(material)
    taught = teacher.classify(labelled, EMOTIONS)
    own = make_targets(labelled.clips, EMOTIONS, config, taught)
    np.testing.assert_allclose(targets[:n_labelled, :6], own, atol=1e-6)
    np.testing.assert_allclose(targets[:n_labelled, [6, 8]], [[0.75, 0.25]] * n_labelled)
    waveforms = [examples.cached.utterance(index).waveform for index in range(n_unlabelled)]
    expected = teacher.classifier.predict_proba(waveforms)
    np.testing.assert_allclose(targets[n_labelled:, :6], expected, atol=1e-6)
    assert targets.dtype == np.float32
    assert not targets[n_labelled:, 6:].any()

    draws = course.find_draws(material)
    given = NO_LABEL - expected.argmax(axis=1)
    assert draws.tolist() == [*course.find_classes(labelled), *given]
    # A seventh of what is heard is not labelled, however much there is of it.
    batches = TrainingBatches(material.all_clips, targets, draws, config)
    assert len(batches) == 13 // 8
    n_received = [0, 0]
    for epoch in range(8):
        for _, _, received in batches(epoch):
            n_received[0] += int((received[:, 6:].sum(dim=1) == 0).sum())
            n_received[1] += len(received)
    assert 0 < n_received[0] / n_received[1] < 2 / 7


def test_how_often_unlabelled_clips_are_drawn_is_set(labelled: CachedClips) -> None:
    assert [replace(CONFIG, prosodies=n).ratio_of_unlabelled for n in (0, 1, 6)] == [1, 2, 2]
    assert replace(CONFIG, unlabelled_ratio=1.5).ratio_of_unlabelled == 1.5
    with pytest.raises(ConfigError, match="ratio of unlabelled clips is 0"):
        replace(CONFIG, unlabelled_ratio=0.0)
    # Eleven labelled clips, two each of six labels.
    draws = np.array([*range(6), *range(1, 6), *[NO_LABEL] * 9])
    every = CachedClips.join((labelled, labelled.take(range(9))))
    for ratio, n_drawn in ((1.0, 2), (3.0, 6)):
        config = replace(CONFIG, batch_size=2, unlabelled_ratio=ratio)
        targets = np.eye(20, dtype=np.float32)
        batches: Any = TrainingBatches(every, targets, draws, config)
        assert len(batches) == (11 + n_drawn) // 2
        rows: Any = RowBatches([np.eye(20)[:, None]], targets, draws, config)
        assert len(rows) == (11 + n_drawn) // 2
        for some in (batches, rows):
            received = np.concatenate([batch.targets.argmax(dim=1) for batch in some(0)])
            assert n_drawn - 1 <= (received >= 11).sum() <= n_drawn


def test_versions_with_another_prosody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    analysed: list[int] = []
    resynthesise, check = Voice.resynthesise, Voice.__post_init__

    def note(self: Voice, *args: Any) -> NDArray[np.float32]:
        made.append(len(self.waveform))
        return resynthesise(self, *args)

    def note_voice(self: Voice) -> None:
        analysed.append(len(self.waveform))
        check(self)

    monkeypatch.setattr(variations, "LONGEST_S", 2.0)
    monkeypatch.setattr(Voice, "resynthesise", note)
    monkeypatch.setattr(Voice, "__post_init__", note_voice)
    told: list[tuple[int, int]] = []
    watcher = Watcher()
    monkeypatch.setattr(watcher, "vary", lambda *at: told.append(at))
    path = (EXAMPLES / "statement.flac",)

    def vary(n_versions: int, seed: int = 3) -> Unlabelled:
        return Unlabelled(
            path,
            tmp_path,
            jobs=1,
            prosodies=n_versions,
            seed=seed,
            watcher=watcher,
        )

    first = vary(3)
    segments = first.segments
    n_segments = len(segments)
    assert not made
    varied = first.cached
    assert len(varied) == 4 * n_segments
    assert varied.clips[:n_segments] == segments.clips
    assert [clip.name for clip in varied.clips[n_segments:][:4]] == [
        *(f"{segments.clips[0].name}~{number}" for number in (1, 2, 3)),
        f"{segments.clips[1].name}~1",
    ]
    assert len({clip.name for clip in varied.clips}) == len(varied)
    assert len({*varied.hashes}) == len(varied)
    assert told[-1] == (n_segments, n_segments)
    # Long segments are cut into equal pieces, each of which is analysed once.
    pieces = [
        [len(piece) for piece in np.array_split(np.empty(length), -(-length // 32_000))]
        for length in segments.lengths
    ]
    assert max(map(len, pieces)) > 1
    assert analysed == [length for some in pieces for length in some]
    assert made == [some[number % len(some)] for some in pieces for number in range(3)]
    for length, entry in zip(made, varied.entries[n_segments:], strict=True):
        assert length / 1.4 - 1 <= entry.n_samples <= length / 0.7 + 1
    # All of it is there: nothing is made, and of another number only what is new.
    made.clear()
    again = vary(3)
    with monkeypatch.context() as patch:
        patch.setattr(Voice, "__post_init__", pytest.fail)
        patch.setattr("sercli.training.cache.decode_clip", pytest.fail)
        assert again.cached.entries == varied.entries
    assert len(vary(4).cached) == 5 * n_segments
    assert len(made) == n_segments
    assert set(vary(2).cached.entries) < set(varied.entries)
    other = vary(3, seed=4).cached
    assert not {*other.hashes[n_segments:]} & {*varied.hashes}
    # What was recorded are the segments.
    assert first.facts["clips"] == n_segments
    assert first.manifest == vary(0).manifest
    assert vary(0).cached.entries == segments.entries


def test_a_teacher_labels_all_versions(
    labelled: CachedClips, cache: Path, teacher: Teacher
) -> None:
    config = replace(CONFIG, guide_weight=0.0, prosodies=2)
    speech = Unlabelled((EXAMPLES / "memo.m4a",), cache, jobs=1, prosodies=2, seed=3)
    course = CnnCourse(config, EMOTIONS, teacher=teacher, unlabelled=speech)
    said: list[str] = []
    material = course.gather(labelled, said.append)
    n_segments = len(speech.segments)
    assert said == [
        f"making 2 versions of {n_segments} unlabelled segments with other pitch, tempo and voice "
        "quality",
        f"svm classifies {3 * n_segments} unlabelled segments",
    ]
    targets = course.find_targets(material)[len(labelled) :]
    waveforms = [speech.cached.utterance(index).waveform for index in range(3 * n_segments)]
    expected = teacher.classifier.predict_proba(waveforms)
    np.testing.assert_allclose(targets, expected, atol=1e-6)
    assert len(np.unique(expected.round(3), axis=0)) == 3 * n_segments
    draws = course.find_draws(material)[len(labelled) :]
    assert draws.tolist() == (NO_LABEL - expected.argmax(axis=1)).tolist()


def test_the_vocoder_is_missed_before_anything_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyworld", None)
    monkeypatch.setattr(Teacher, "load", lambda *_: pytest.fail("went on"))
    config = TrainConfig("cnn", teacher="nobody", unlabelled=("none",), cache=tmp_path)
    with pytest.raises(ConfigError, match=r"pip install 'sercli\[prosody\]'.*--prosodies 0"):
        create_trainer(config)
    with pytest.raises(pytest.fail.Exception, match="went on"):
        create_trainer(replace(config, model=CnnConfig(prosodies=0)))


def test_what_is_held_out_are_labelled_clips(
    labelled: CachedClips, examples: Unlabelled, teacher: Teacher
) -> None:
    course = CnnCourse(CONFIG, EMOTIONS, teacher=teacher, unlabelled=examples)
    material = course.gather(labelled, lambda _: None)
    assert material.rows is not None
    assert material.unlabelled is not None
    assert material.unlabelled.rows is not None
    assert len(material.unlabelled.rows) == len(examples.cached)
    part = material.take([4, 1])
    assert (len(material), len(part)) == (11, 2)
    assert part.cached.clips == (labelled.clips[4], labelled.clips[1])
    assert part.rows is not None
    np.testing.assert_array_equal(part.rows, material.rows[[4, 1]])
    assert part.unlabelled is material.unlabelled
    assert Material(labelled).take([4]).unlabelled is None


def test_a_checkpoint_knows_what_was_not_labelled(
    labelled: CachedClips,
    examples: Unlabelled,
    teacher: Teacher,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[dict[str, Any]] = []

    def note(*_: Any, fingerprint: dict[str, Any], **__: Any) -> None:
        seen.append(fingerprint)
        raise KeyboardInterrupt

    monkeypatch.setattr(courses, "fit_network", note)
    other = search(EXAMPLES / "call.wav", cache=cache)
    varied = Unlabelled(other.paths, cache, jobs=1, prosodies=1)
    for unlabelled in (examples, examples, other, None, varied):
        n_versions = unlabelled.prosodies if unlabelled else 0
        config = replace(CONFIG, guide_weight=0.0, prosodies=n_versions)
        course = CnnCourse(config, EMOTIONS, teacher=teacher, unlabelled=unlabelled)
        with pytest.raises(KeyboardInterrupt):
            course.teach("network", course.gather(labelled, lambda _: None), tmp_path)
    assert seen[0] == seen[1]
    changed = {key for key in seen[0] if seen[0][key] != seen[2][key]}
    assert changed == {"unlabelled", "targets"}
    assert seen[3]["unlabelled"] is None
    changed = {key for key in seen[2] if seen[2][key] != seen[4][key]}
    assert changed == {"unlabelled", "targets", "prosodies"}
    assert len({one["clips"] for one in seen}) == 1


def test_what_is_scored_is_refused_through_a_link_too(
    examples: Unlabelled, cache: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.wav"
    link.symlink_to(EXAMPLES / "call.wav")
    stretch = Clip(link, "fear", start=0.5, end=2.0)
    with pytest.raises(ConfigError, match=r"link\.wav#0\.5-2: is to be scored, but is also in"):
        examples.refuse_held_out(cache_clips([stretch], cache, jobs=1))


def test_speakers_of_a_diarisation_by_channels_are_those_of_the_mix(tmp_path: Path) -> None:
    turns = tmp_path / "all.rttm"
    turns.write_text("SPEAKER call 1 90 9 <NA> <NA> ben\nSPEAKER call 2 0 90 <NA> <NA> ann\n")
    paths = (EXAMPLES / "call.wav",)
    found = find_unlabelled(paths, speakers=Speakers.parse(str(turns)), jobs=1)
    assert {clip.voice for clip in found.clips} == {"unlabelled/call/ann"}
