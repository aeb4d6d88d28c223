"""Learning from another model: what it said of clips while they were held out of it."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from sercli.datasets.clip import Clip
from sercli.errors import ConfigError, ModelError
from sercli.evaluation.leaks import TrainingManifest
from sercli.labels import EMOTIONS
from sercli.registry.catalogue import shipped_folder
from sercli.registry.store import load_model
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.config import NeuralConfig
from sercli.training.networks.targets import make_targets
from sercli.training.teachers import Teacher, encode_held_out, read_held_out

BACKWARDS = EMOTIONS[::-1]


@pytest.fixture
def cached(tmp_path: Path) -> CachedClips:
    rng = np.random.default_rng(0)
    clips = []
    for index in range(3):
        path = tmp_path / f"{index}.wav"
        sf.write(path, rng.normal(0, 0.1, 9_000 + 500 * index), 16_000)
        clips.append(Clip(path, "fear", speaker=f"s{index}", name=path.stem))
    return cache_clips(clips, tmp_path / "cache", jobs=1)


def make_teacher(cached: CachedClips, known: dict[str, np.ndarray]) -> Teacher:
    """Return the shipped SVM as if it had been trained on the first two clips."""
    manifest = TrainingManifest.from_clips(cached.clips[:2], cached.hashes[:2])
    return Teacher(load_model("svm"), known, manifest)


def test_clips_that_were_held_out_are_not_classified_again(cached: CachedClips) -> None:
    held_out = np.array([0.1, 0.2, 0.3, 0.25, 0.05, 0.1])
    teacher = make_teacher(cached, {cached.hashes[0]: held_out})
    found = teacher.classify(cached, BACKWARDS)
    np.testing.assert_allclose(found[0], held_out[::-1])
    waveforms = [cached.utterance(index).waveform for index in range(3)]
    expected = teacher.classifier.predict_proba(waveforms)[:, ::-1]
    np.testing.assert_allclose(found[1:], expected[1:], atol=1e-6)
    assert np.abs(found[0] - expected[0]).max() > 0.05
    assert teacher.count_learned(cached) == 1  # the second clip: nothing was kept of it
    np.testing.assert_array_equal(teacher.classify(cached.take([2, 0]), BACKWARDS), found[[2, 0]])
    with pytest.raises(
        ConfigError, match=r"the teacher svm has the labels anger, .*; expected joy, fear"
    ):
        teacher.classify(cached, ("joy", "fear"))


def test_of_long_clips_a_teacher_says_the_mean_of_equal_parts(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    # Its halves are heard otherwise.
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, 40 * 16_000)
    samples[20 * 16_000 :] = np.cumsum(samples[20 * 16_000 :]) / 100
    sf.write(path, samples, 16_000)
    cached = cache_clips([Clip(path, "fear", "s")], tmp_path / "cache", jobs=1)
    teacher = make_teacher(cached, {})
    halves = teacher.classifier.predict_proba(np.split(cached.utterance(0).waveform, 2))
    assert np.abs(halves[0] - halves[1]).max() > 0.01
    found = teacher.classify(cached, teacher.labels)
    np.testing.assert_allclose(found, halves.mean(axis=0, keepdims=True), atol=1e-6)


def test_a_teacher_knows_none_of_those_who_are_scored(cached: CachedClips) -> None:
    teacher = make_teacher(cached, {})
    teacher.refuse_held_out(cached.clips[2:])
    with pytest.raises(ConfigError, match=r"was trained on 1 of the speakers .* such as /s1;"):
        teacher.refuse_held_out(cached.clips[1:])


def test_a_teacher_whose_manifest_was_altered(tmp_path: Path) -> None:
    folder = tmp_path / "svm"
    shutil.copytree(shipped_folder() / "svm", folder)
    assert Teacher.load(folder).manifest == TrainingManifest.read(folder)
    manifest = folder / "manifest.csv"
    lines = manifest.read_text(encoding="utf-8").splitlines(keepends=True)
    manifest.write_text("".join(lines[:-100]), encoding="utf-8")
    with pytest.raises(ModelError, match=r"manifest\.csv is not the one that the model was saved"):
        Teacher.load(folder)


def test_targets_are_shared_with_the_teacher() -> None:
    clips = [Clip(Path("a"), "fear", name="a")]
    config = NeuralConfig(label_smoothing=0.3, teacher_weight=0.25)
    taught = np.array([[0.5, 0.3, 0.2]])
    labels = ("anger", "fear", "sadness")
    found = make_targets(clips, labels, config, taught=taught)
    np.testing.assert_allclose(found, [[0.2, 0.675, 0.125]], rtol=1e-6)


def test_what_was_held_out_is_kept(tmp_path: Path) -> None:
    rows = np.array([[1.23456e-7, 1 - 1.23456e-7], [1 / 3, 2 / 3]])
    (tmp_path / "model").mkdir()
    encoded = encode_held_out(["bb", "aa"], ("anger", "fear"), rows)
    (tmp_path / "model" / "held_out.csv").write_bytes(encoded)
    with (tmp_path / "model" / "held_out.csv").open(encoding="utf-8") as file:
        assert list(csv.reader(file)) == [
            ["audio", "prob_anger", "prob_fear"],
            ["aa", "0.3333", "0.6667"],
            ["bb", "1.235e-07", "1"],
        ]
    found = read_held_out(tmp_path / "model", ("anger", "fear"))
    np.testing.assert_allclose(found["aa"], rows[1], atol=1e-4)
    assert sum(found["aa"]) == pytest.approx(1, abs=1e-12)
    assert read_held_out(tmp_path, ("anger", "fear")) == {}
    header = "audio,prob_anger,prob_fear\n"
    rows_told = ("x,1", "x,-1,3", "x,inf,1", "x,nan,1", "x,0,0")
    for content in ("", "audio,prob_fear\n", *(f"{header}{row}\n" for row in rows_told)):
        (tmp_path / "held_out.csv").write_text(content)
        with pytest.raises(ModelError, match="expected a CSV file with the columns audio, prob_a"):
            read_held_out(tmp_path, ("anger", "fear"))


def test_a_teacher_tells_what_it_was_trained_on(tmp_path: Path) -> None:
    for name in ("model.json", "weights.safetensors", "adapter.safetensors"):
        source = load_model("svm").folder
        assert source is not None
        (tmp_path / name).write_bytes((source / name).read_bytes())
    with pytest.raises(ModelError, match="has no manifest of its training data"):
        Teacher.load(tmp_path)
    teacher = Teacher.load("svm")
    assert teacher.name == "svm"
    assert teacher.manifest.explain_unknown() is None


def test_clips_are_classified_some_at_a_time(
    cached: CachedClips, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = make_teacher(cached, {}).classify(cached, BACKWARDS)
    monkeypatch.setattr("sercli.training.teachers.CLIPS_AT_ONCE", 2)
    found = make_teacher(cached, {}).classify(cached, BACKWARDS)
    np.testing.assert_allclose(found, expected, atol=1e-4)
