"""Fusions: the weights, the mean, its members, and what they may not know."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from click.testing import CliRunner, Result
from conftest import EXAMPLES, FakeClassifier

import sercli
from sercli.audio.reading import load_audio
from sercli.calibration import Calibration
from sercli.classifiers import neural
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.fusion import LEAST, FusionClassifier, mix
from sercli.classifiers.members import read_members
from sercli.cli import main
from sercli.datasets import Clip, read_corpus
from sercli.datasets.protocols import split_by_speaker
from sercli.errors import ConfigError, DatasetError, ModelError, OutputError
from sercli.evaluation.leaks import TrainingManifest
from sercli.evaluation.metrics import unweighted_average_recall
from sercli.labels import EMOTIONS
from sercli.neural.cnn import CnnSettings
from sercli.neural.front_end import LogMelSettings
from sercli.registry.catalogue import list_models, shipped_folder
from sercli.registry.description import model_hash
from sercli.registry.store import load_model, save_model
from sercli.training.adapters.trainer import AdapterTrainer
from sercli.training.cache import CachedClips, cache_clips
from sercli.training.config import AdapterConfig, FusionConfig, NeuralConfig
from sercli.training.fusions.mixture import cross_fit, fit_mixture, fit_weights
from sercli.training.fusions.trainer import FusionTrainer
from sercli.training.networks.cnn import CnnCourse
from sercli.training.networks.trainer import NeuralTrainer
from sercli.training.run import train_on_splits
from sercli.training.teachers import Teacher, encode_held_out, read_held_out

LABELS = ("short", "long")
SVM = shipped_folder() / "svm"

# Weights and the mean.


def likelihood(weights: Any, likelihoods: Any) -> float:
    return float(np.log(np.asarray(weights) @ likelihoods).mean())


def test_members_that_know_different_clips_share_by_their_number() -> None:
    # The first alone can tell 30 clips, the second the other 10.
    likelihoods = np.full((2, 40), 1e-9)
    likelihoods[0, :30] = likelihoods[1, 30:] = 0.9
    np.testing.assert_allclose(fit_weights(likelihoods), [0.75, 0.25], atol=1e-3)


def test_no_other_weights_are_better(rng: np.random.Generator) -> None:
    likelihoods = rng.beta(2, 2, (3, 200))
    found = fit_weights(likelihoods)
    assert found.sum() == pytest.approx(1)
    assert found.min() > 0.1  # none of them is useless
    steps = np.linspace(0, 1, 41)
    others = [(a, b, 1 - a - b) for a in steps for b in steps if a + b <= 1]
    best = max(likelihood(weights, likelihoods) for weights in others)
    assert best - 1e-3 < best <= likelihood(found, likelihoods) + 2e-6


def test_a_useless_member_has_no_weight(rng: np.random.Generator) -> None:
    classes = rng.integers(0, 4, 400)
    truth = np.eye(4)[classes]

    def speak(sure: float, said: Any) -> Any:
        logits = sure * said + rng.normal(0, 1, (400, 4))
        return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)

    # The third is as sure as the others, but of anything.
    guesses = np.eye(4)[rng.integers(0, 4, 400)]
    members = np.stack([speak(2.5, truth), speak(2.5, truth), speak(2.5, guesses)])
    found = fit_mixture(members, classes)
    assert found.weights[2] < 0.02
    assert min(found.weights[:2]) > 0.3
    uars = [unweighted_average_recall(classes, one.argmax(axis=1)) for one in members]
    fused = unweighted_average_recall(classes, found.apply(members).argmax(axis=1))
    assert fused > max(uars) + 0.02


def test_clips_are_scored_by_what_others_gave(rng: np.random.Generator) -> None:
    # By the speakers "a", "b" the first member is right, by the others the second.
    groups = np.repeat(["a", "b", "c", "d"], 30)
    classes = rng.integers(0, 2, 120)
    right = np.where(np.eye(2)[classes] > 0, 0.9, 0.1)
    first = np.isin(groups, ["a", "b"])[:, None]
    members = np.stack([np.where(first, right, right[:, ::-1]), np.where(first, 0.5, right)])
    scored = cross_fit(members, classes, groups, 4)
    np.testing.assert_allclose(scored.sum(axis=1), 1)
    for group in "abcd":
        others, own = groups != group, groups == group
        without = fit_mixture(members[:, others], classes[others])
        np.testing.assert_allclose(scored[own], without.apply(members[:, own]))


def test_equal_weights_are_those_of_no_clip(rng: np.random.Generator) -> None:
    classes = rng.integers(0, 2, 90)
    right = np.where(np.eye(2)[classes] > 0, 0.9, 0.1)
    members = np.stack([right, np.full((90, 2), 0.5), right[:, ::-1]])
    assert fit_mixture(members, classes).weights[0] > 0.9
    found = fit_mixture(members, classes, equal_weights=True)
    np.testing.assert_array_equal(found.weights, np.full(3, 1 / 3))
    # Of what contradicts itself, the mean says nothing.
    np.testing.assert_allclose(found.apply(members), 0.5)
    groups = np.repeat(["a", "b", "c"], 30)
    np.testing.assert_allclose(cross_fit(members, classes, groups, 3, equal_weights=True), 0.5)


def test_the_mean_is_weighted_and_never_of_zero() -> None:
    members = np.array([[[0.6, 0.4], [1.0, 0.0]], [[0.2, 0.8], [1.0, 0.0]]])
    found = np.exp(mix(members, np.array([0.75, 0.25])))
    np.testing.assert_allclose(found, [[0.5, 0.5], [1.0, LEAST]])


# The model.


def spec(**changes: Any) -> ModelSpec:
    members = [
        {"name": "one", "sha256": "0", "weight": 0.75},
        {"name": "two", "sha256": "1", "weight": 0.25},
    ]
    calibration = Calibration("none", np.eye(2), np.zeros(2))
    values = {"calibration": calibration, "settings": {"members": members}}
    return ModelSpec(**({"family": "fusion", "labels": LABELS, **COMMON, **values} | changes))


COMMON: dict[str, Any] = {"sample_rate": 16_000, "band_limit": 4_000.0}


def make_fake(labels: tuple[str, ...] = LABELS, sure: float = 1.0) -> FakeClassifier:
    """Return one that gives the first label with the probability 1 / (1 + duration ** sure)."""
    fake = FakeClassifier()
    calibration = Calibration("none", sure * np.eye(2), np.zeros(2))
    fake.spec = replace(fake.spec, labels=labels, calibration=calibration)
    return fake


def test_labels_of_members_may_be_in_another_order() -> None:
    waveforms = [np.zeros(n, np.float32) for n in (48_000, 8_000)]
    # Of 3 s and 0.5 s: the first gives "short" 1/4 and 2/3, the second "long" 1/10 and 4/5.
    fusion = FusionClassifier(spec(), [make_fake(), make_fake(LABELS[::-1], sure=2.0)])
    expected = np.array([0.75 * 1 / 4 + 0.25 * 9 / 10, 0.75 * 2 / 3 + 0.25 * 1 / 5])
    found = fusion.predict_proba(waveforms)
    np.testing.assert_allclose(found, np.stack([expected, 1 - expected], axis=1), rtol=1e-5)
    assert fusion.extract_features(waveforms).shape == (2, 4)
    assert fusion.predict_proba([]).shape == (0, 2)
    with pytest.raises(
        ModelError, match="its member fake has the labels short, loud; expected short, long"
    ):
        FusionClassifier(spec(), [make_fake(), make_fake(("short", "loud"))])


def test_the_mean_is_calibrated() -> None:
    calibration = Calibration("temperature", 2 * np.eye(2), np.zeros(2))
    fusion = FusionClassifier(spec(calibration=calibration), [make_fake(), make_fake()])
    # The odds of 3 s, 3 to 1, are squared.
    found = fusion.predict_proba([np.zeros(48_000, np.float32)])
    np.testing.assert_allclose(found, [[0.1, 0.9]], rtol=1e-5)


PERCEIVED = Calibration("none", np.eye(2), np.zeros(2)).widen(2, 4)


def make_listening_fake(sure: float, labels: tuple[str, ...] = LABELS) -> FakeClassifier:
    """Return one that hears the first label with the probability 1 / (1 + duration ** sure)."""
    fake = make_fake(labels)
    calibration = Calibration("none", sure * np.eye(2), np.zeros(2))
    fake.spec = replace(fake.spec, perceived=calibration)
    return fake


def test_what_is_perceived_is_the_mean_of_what_members_perceive() -> None:
    waveforms = [np.zeros(48_000, np.float32), np.zeros(8_000, np.float32)]
    calibration = Calibration("temperature", 2 * np.eye(2), np.zeros(2)).widen(0, 4)
    members = [make_listening_fake(2.0), make_listening_fake(3.0, LABELS[::-1])]
    both = spec(calibration=calibration, perceived=PERCEIVED)
    fusion = FusionClassifier(both, members)
    assert fusion.extract_features(waveforms).shape == (2, 8)
    # Of 3 s, the first hears "short" with 1/10, the other "long" with 1/28; of 0.5 s, 4/5 and 8/9.
    heard = np.array([0.75 / 10 + 0.25 * 27 / 28, 0.75 * 4 / 5 + 0.25 / 9])
    expected = np.stack([heard, 1 - heard], axis=1)
    np.testing.assert_allclose(fusion.predict_proba(waveforms, "perceived"), expected, rtol=1e-5)
    # What is meant is the calibrated mean of what members mean: here squared odds.
    meant = np.array([0.75 / 4 + 0.25 * 3 / 4, 0.75 * 2 / 3 + 0.25 / 3])
    odds = (meant / (1 - meant)) ** 2
    expected = np.stack([odds / (1 + odds), 1 / (1 + odds)], axis=1)
    np.testing.assert_allclose(fusion.predict_proba(waveforms), expected, rtol=1e-5)
    with pytest.raises(ModelError, match="its member fake predicts only the intended emotion"):
        FusionClassifier(both, [members[0], make_fake()])
    with pytest.raises(ModelError, match=r"takes 2 scores, .* gives 4, one for each label and out"):
        FusionClassifier(spec(perceived=PERCEIVED), members)
    with pytest.raises(ModelError, match=r"takes 4 scores, .* gives 2, one for each label; expect"):
        FusionClassifier(spec(calibration=calibration), members)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "found 0 members of 0 names; expected two or more of different names"),
        ([{"name": "a", "sha256": "0", "weight": 1.0}], "found 1 members of 1 names"),
        ([{"name": "a", "sha256": "0", "weight": 0.5}] * 2, "found 2 members of 1 names"),
        ([{"name": "a", "weight": 0.5}] * 2, "sha256"),
        ([{"name": "a", "sha256": "0", "weight": "x"}] * 2, "found 2 members of 1 names"),
        (None, "members is None"),
    ],
)
def test_members_that_are_refused(members: Any, message: str) -> None:
    with pytest.raises(ModelError, match=f"its settings do not list its members: .*{message}"):
        read_members({"members": members})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "../one"}, "found the member '../one'"),
        ({"name": ".."}, r"found the member '\.\.'"),
        ({"name": ""}, "found the member ''"),
        ({"sha256": 1}, "found the member 'one'"),
        ({"weight": -0.5}, "the weight of one is -0.5"),
        ({"weight": 1.5}, "the weight of one is 1.5"),
        ({"weight": float("nan")}, "the weight of one is nan"),
        ({"weight": "0.5"}, "not supported"),
        ({"weight": 0.5}, "their weights sum to 0.75"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_member_that_is_refused(changes: dict[str, Any], message: str) -> None:
    good = spec().settings["members"]
    for weights in ([0.75, 0.25], [0.0, 1.0], [1 / 3, 2 / 3 + 5e-7]):
        members = [one | {"weight": weight} for one, weight in zip(good, weights, strict=True)]
        assert [member.weight for member in read_members({"members": members})] == weights
    with pytest.raises(ModelError, match=message):
        read_members({"members": [good[0] | changes, good[1]]})


# Its folder.


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's models: a copy of the shipped SVM that is less sure."""
    folder = tmp_path / "models"
    shutil.copytree(shipped_folder() / "svm", folder / "mine")
    edit(folder / "mine", flatten=0.5)
    monkeypatch.setenv("SER_MODELS", str(folder))
    return folder


def edit(folder: Path, *, flatten: float = 1.0, **changes: Any) -> None:
    path = folder / "model.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    weights = data["calibration"]["weights"]
    data["calibration"]["weights"] = (flatten * np.array(weights)).tolist()
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def save_fusion(
    folder: Path, members: Mapping[str, Path], first: float = 0.75, **more: Any
) -> Path:
    settings = more | {
        "members": [
            {"name": name, "sha256": model_hash(place), "weight": weight}
            for (name, place), weight in zip(members.items(), (first, 1 - first), strict=True)
        ]
    }
    calibration = Calibration("none", np.eye(6), np.zeros(6))
    whole = spec(labels=EMOTIONS[::-1], calibration=calibration, settings=settings)
    return save_model(
        FusionClassifier(whole, [load_model(one) for one in members.values()]), folder
    )


@pytest.fixture
def both(models: Path) -> Path:
    return save_fusion(models / "both", {"mine": models / "mine", "svm": shipped_folder() / "svm"})


def test_a_stored_fusion_is_the_mean_of_its_members(both: Path) -> None:
    waveform = load_audio(EXAMPLES / "statement.flac")
    waveforms = [waveform[16_480:44_000], waveform[49_000:88_500]]
    fusion = load_model("both")
    assert sorted(os.listdir(both)) == ["model.json"]
    assert (fusion.family, fusion.name) == ("fusion", "both")
    mine, svm = (load_model(name).predict_proba(waveforms) for name in ("mine", "svm"))
    assert np.abs(mine - svm).max() > 0.1
    expected = (0.75 * mine + 0.25 * svm)[:, ::-1]
    np.testing.assert_allclose(fusion.predict_proba(waveforms), expected, atol=LEAST)
    again = save_model(fusion, both.parent / "again")
    assert (again / "model.json").read_bytes() == (both / "model.json").read_bytes()


def test_a_member_that_was_replaced_is_refused(both: Path, models: Path) -> None:
    edit(models / "mine", flatten=2.0)
    with pytest.raises(ModelError, match=r"both: its member mine, .*mine, is not the model that"):
        load_model("both")
    shutil.rmtree(models / "mine")
    with pytest.raises(ModelError, match=r"both: model 'mine': found no model\.json in"):
        load_model("both")


def test_a_member_with_altered_weights_is_refused(both: Path, models: Path) -> None:
    (models / "mine" / "weights.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"both: .*mine: weights\.safetensors is altered"):
        load_model("both")


def test_members_are_looked_for_beside_it_first(
    both: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = Path(shutil.copytree(models, tmp_path / "elsewhere")) / "both"
    edit(models / "mine", flatten=2.0)  # of which the name would be found, too
    assert load_model(elsewhere).name == "both"
    monkeypatch.chdir(elsewhere)
    assert load_model("./").name == "both"
    shutil.copytree(elsewhere.parent / "mine", elsewhere.parent / "svm")
    with pytest.raises(ModelError, match=r"its member svm, .*elsewhere/svm, is not the model"):
        load_model(elsewhere)


def list_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_members_inside_a_fusion_go_where_it_goes(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "mine" / "notes.txt").write_text("not needed")
    members = {"mine": models / "mine", "svm": Path(shutil.copytree(SVM, tmp_path / "svm"))}
    whole = save_fusion(models / "whole", members, inside=True)
    # The adapter of a member is among its weights.
    weights = ["adapter.safetensors", "weights.safetensors"]
    needed = ["README.md", "held_out.csv", "manifest.csv", "metrics.json", "model.json", *weights]
    files = [f"{name}/{file}" for name in ("mine", "svm") for file in needed]
    assert list_files(whole) == sorted(["model.json", *files])
    waveform = [load_audio(EXAMPLES / "statement.flac")[16_480:44_000]]
    expected = load_model(whole).predict_proba(waveform)
    # Neither what it was copied from nor a model of the same name plays a part any more.
    edit(models / "mine", flatten=2.0)
    shutil.rmtree(members["svm"])
    moved = shutil.move(whole, tmp_path / "elsewhere")
    monkeypatch.setenv("SER_MODELS", str(tmp_path / "none"))
    fusion = load_model(moved)
    np.testing.assert_array_equal(fusion.predict_proba(waveform), expected)
    # Saved in its own place, and in another.
    assert list_files(save_model(fusion, moved)) == sorted(["model.json", *files])
    copy = save_model(fusion, tmp_path / "copy")
    assert list_files(copy) == sorted(["model.json", *files])
    np.testing.assert_array_equal(load_model(copy).predict_proba(waveform), expected)
    # Within another fusion.
    outer = {"copy": copy, "svm": SVM}
    nested = load_model(save_fusion(tmp_path / "nested", outer, inside=True))
    shutil.rmtree(copy)
    assert "copy/svm/weights.safetensors" in list_files(tmp_path / "nested")
    mean = 0.75 * expected + 0.25 * load_model(SVM).predict_proba(waveform)[:, ::-1]
    np.testing.assert_allclose(nested.predict_proba(waveform), mean, atol=LEAST)
    # Nothing of a member stays with the next model in its folder, but what a link leads to.
    shutil.move(tmp_path / "nested" / "svm", tmp_path / "linked")
    (tmp_path / "nested" / "svm").symlink_to(tmp_path / "linked")
    save_model(load_model(SVM), tmp_path / "nested")
    assert list_files(tmp_path / "linked") == sorted(needed)
    assert sorted(os.listdir(tmp_path / "nested")) == sorted(["model.json", *weights])


def test_what_is_in_the_way_of_a_member_stays(models: Path, tmp_path: Path) -> None:
    members = {"mine": models / "mine", "svm": SVM}
    mine = tmp_path / "whole" / "mine"
    mine.mkdir(parents=True)
    (mine / "model.json").write_text("of somebody else")
    with pytest.raises(OutputError, match=r"whole/mine: is in the way of the copy of the member"):
        save_fusion(tmp_path / "whole", members, inside=True)
    assert list_files(tmp_path / "whole") == ["mine/model.json"]
    shutil.rmtree(mine)
    mine.symlink_to(tmp_path)  # also through a link
    with pytest.raises(OutputError, match=r"whole/mine: is in the way of the copy of the member"):
        save_fusion(tmp_path / "whole", members, inside=True)
    mine.unlink()
    whole = save_fusion(tmp_path / "whole", members, inside=True)
    # A member of the fusion in the same folder is replaced, but not what no copy has.
    (models / "mine" / "metrics.json").unlink()
    (mine / "notes.txt").write_text("of the earlier one")
    edit(models / "mine", flatten=2.0)
    save_fusion(whole, members, inside=True)
    assert (mine / "model.json").read_bytes() == (models / "mine" / "model.json").read_bytes()
    weights = ["adapter.safetensors", "weights.safetensors"]
    expected = ["README.md", "held_out.csv", "manifest.csv", "model.json", *weights]
    assert list_files(mine) == sorted([*expected, "notes.txt"])


def test_copies_that_could_not_be_written_are_not_in_the_way_of_the_next(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {"mine": models / "mine", "svm": SVM}

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("sercli.files.os.fsync", fail)
        with pytest.raises(OutputError, match="cannot be written: No space left on device"):
            save_fusion(tmp_path / "whole", members, inside=True)
    assert os.listdir(tmp_path / "whole") == []
    whole = save_fusion(tmp_path / "whole", members, inside=True)
    assert sorted(os.listdir(whole)) == ["mine", "model.json", "svm"]


def test_originals_in_the_folder_of_a_fusion_are_not_taken_for_copies(
    models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "whole"
    shutil.copytree(models / "mine", folder / "mine")
    with pytest.raises(OutputError, match=r"whole/mine: is in the way of the copy of the member"):
        save_fusion(folder, {"mine": folder / "mine", "svm": SVM}, inside=True)
    assert (folder / "mine" / "model.json").is_file()


def test_members_that_would_be_lost_are_refused(both: Path, models: Path, tmp_path: Path) -> None:
    members = {"mine": models / "mine", "svm": SVM}
    whole = save_fusion(tmp_path / "whole", members, inside=True)
    before = list_files(whole)
    own, outer = (
        [Teacher(load_model(one), {}, TrainingManifest()) for one in pair]
        for pair in ((whole / "mine", whole / "svm"), (whole, both))
    )
    for inside, copied, message in (
        (own, False, r"whole: contains its member .*whole/mine, which would be replaced; expected"),
        ([own[0], outer[1]], True, r"models/both: is a fusion of members outside of its folder"),
    ):
        trainer = make_trainer(tmp_path, *inside)
        trainer = replace(trainer, config=replace(trainer.config, copy_members=copied))
        with pytest.raises(ConfigError, match=message):
            trainer.begin(whole)
    adapting = AdapterTrainer(AdapterConfig(), own[0], cache=tmp_path / "cache")
    with pytest.raises(ConfigError, match=r"whole: contains the model .*whole/mine, which would"):
        adapting.begin(whole)
    trainer = make_trainer(tmp_path, *own)
    trainer = replace(trainer, config=replace(trainer.config, copy_members=True))
    trainer.begin(whole)  # they stay
    (tmp_path / "other" / "svm").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"other/svm: is in the way of the copy of the member"):
        trainer.begin(tmp_path / "other")
    assert list_files(whole) == before


def find_fault(name: str) -> str | None:
    return next(entry.error for entry in list_models() if entry.name == name)


def test_a_member_inside_that_is_not_there_or_another(models: Path) -> None:
    members = {"mine": models / "mine", "svm": SVM}
    whole = save_fusion(models / "whole", members, inside=True)
    edit(whole / "mine", flatten=2.0)
    message = r"member mine, .*whole/mine, is not the model that it was"
    with pytest.raises(ModelError, match=message):
        load_model("whole")
    assert re.search(message, str(find_fault("whole")))
    shutil.rmtree(whole)
    save_fusion(whole, members, inside=True)
    assert find_fault("whole") is None
    (whole / "mine" / "weights.safetensors").unlink()
    assert (
        find_fault("whole") == f"{whole / 'mine'}: lacks weights.safetensors; copy the folder again"
    )
    shutil.rmtree(whole / "mine")
    with pytest.raises(ModelError, match="whole: lacks its member mine; copy the folder again"):
        load_model("whole")
    assert find_fault("whole") == f"{whole}: lacks its member mine; copy the folder again"
    edit(whole, settings={"inside": True, "members": []})
    assert "its settings do not list its members" in str(find_fault("whole"))
    edit(whole, settings={"inside": "no", "members": []})
    assert "its settings have inside 'no'; expected true or false" in str(find_fault("whole"))
    # Of one whose members are elsewhere, too.
    save_fusion(models / "both", {"mine": models / "mine", "svm": SVM})
    assert find_fault("both") is None
    shutil.rmtree(models / "mine")
    assert "both: model 'mine': found no model.json in" in str(find_fault("both"))


def test_a_fusion_has_no_weights_of_its_own(both: Path) -> None:
    edit(both, weights={"weights.safetensors": "0"})
    with pytest.raises(ModelError, match=r"lists the weights .*; expected none of a model of the"):
        load_model("both")


def test_nothing_of_an_earlier_model_stays(both: Path, models: Path) -> None:
    save_model(load_model("both"), models / "mine")
    assert "weights.safetensors" not in os.listdir(models / "mine")


def test_the_device_is_that_of_networks(
    both: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="a model of the family svm runs on the CPU"):
        load_model("both", "cuda")
    members = {name: shipped_folder() / name for name in ("svm", "cnn")}
    save_fusion(models / "mixed", members)
    with pytest.raises(ConfigError, match=r"device is 'cuda:7'; expected auto, or one of those"):
        load_model("mixed", "cuda:7")
    asked: list[str] = []

    def choose(names: str) -> tuple[torch.device, ...]:
        asked.append(names)
        return (torch.device("cpu"),)

    monkeypatch.setattr(neural, "choose_devices", choose)
    assert load_model("mixed", "cuda").family == "fusion"
    assert asked == ["cuda", "cuda"]  # the CNN is a fusion of two networks itself


def test_batches_are_as_large_as_networks_like_them(both: Path, models: Path) -> None:
    members = {name: shipped_folder() / name for name in ("svm", "cnn")}
    save_fusion(models / "mixed", members)
    found = [load_model(name, "cpu").batch_seconds for name in ("both", "mixed", "svm", "cnn")]
    assert found == [120.0, 48.0, 120.0, 48.0]


# What it is fitted on.


@pytest.fixture
def clips(tmp_path: Path) -> tuple[Clip, ...]:
    """Clips of four speakers, of which the length tells the label, mostly."""
    rng = np.random.default_rng(0)
    found = []
    for index in range(16):
        path = tmp_path / f"{index}.wav"
        label = LABELS[index % 2]
        duration = (0.5, 2.0)[index % 2] * rng.uniform(0.3, 3)
        sf.write(path, rng.normal(0, 0.1, round(16_000 * duration)), 16_000)
        speaker = f"s{index // 4}"
        found.append(Clip(path, label, speaker, path.stem, "toy", split="dev"))
    return tuple(found)


MakeMember = Callable[..., Teacher]


@pytest.fixture
def make_member(tmp_path: Path) -> MakeMember:
    def make(
        name: str,
        learned: CachedClips | None = None,
        held_out: dict[str, Any] | None = None,
        **options: Any,
    ) -> Teacher:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(json.dumps(name))
        classifier = make_fake(**options)
        classifier.folder = folder
        hashes = learned.hashes if learned else ()
        known = learned.clips if learned else ()
        return Teacher(classifier, held_out or {}, TrainingManifest.from_clips(known, hashes))

    return make


@pytest.fixture
def cached(clips: tuple[Clip, ...], tmp_path: Path) -> CachedClips:
    return cache_clips(clips, tmp_path / "cache", jobs=1)


def make_trainer(tmp_path: Path, *members: Teacher, **options: Any) -> FusionTrainer:
    config = FusionConfig(folds=3, jobs=1)
    return FusionTrainer(config, members, cache=tmp_path / "cache", **options)


def test_clips_held_out_of_a_member_are_not_classified_again(
    cached: CachedClips, clips: tuple[Clip, ...], tmp_path: Path, make_member: MakeMember
) -> None:
    # What it said when they were held out is right where the other is not.
    right = {
        audio: np.array([0.8, 0.2] if clip.emotion == "short" else [0.2, 0.8])[::-1]
        for audio, clip in zip(cached.hashes, cached.clips, strict=True)
    }
    taught = make_member("taught", cached, right, labels=LABELS[::-1])
    new = make_member("new")
    said: list[str] = []
    trainer = make_trainer(tmp_path, new, taught, say=said.append)
    (found,) = trainer.prepare([clips])
    target = tmp_path / "models" / "both"
    trainer.begin(target)
    fusion, (kept,) = trainer.fit(found, LABELS, target)
    assert isinstance(fusion, FusionClassifier)
    scored = trainer._classify(found, LABELS)
    own = new.classifier.predict_proba([found.utterance(i).waveform for i in range(16)])
    np.testing.assert_allclose(scored[0], own)
    np.testing.assert_allclose(scored[1].max(axis=1), 0.8)
    classes = [LABELS.index(clip.emotion) for clip in found.clips]
    np.testing.assert_array_equal(scored[1].argmax(axis=1), classes)
    assert "new scores 16 clips, 0 of them by its held-out probabilities" in said
    assert "taught scores 16 clips, 16 of them by its held-out probabilities" in said
    facts = fusion.spec.training
    assert facts["members"]["taught"] == {"uar": 1.0, "nll": pytest.approx(-np.log(0.8))}
    assert any(line.startswith("taught: weight 1.000, UAR 1.000, NLL 0.223 alone") for line in said)
    assert (facts["clips"], facts["speakers"], facts["folds"]) == (16, 4, 3)
    assert facts["held_out"]["whole"]["uar"] == 1.0
    np.testing.assert_allclose(fusion.weights, [0, 1], atol=1e-3)
    settings = fusion.spec.settings["members"]
    assert [member["sha256"] for member in settings] == [
        model_hash(tmp_path / "models" / name) for name in ("new", "taught")
    ]
    # What it would have said, for those who learn from it.
    np.testing.assert_allclose(kept, trainer.classify(fusion, found))


def test_clips_that_a_member_learned_from_are_refused(
    cached: CachedClips, clips: tuple[Clip, ...], tmp_path: Path, make_member: MakeMember
) -> None:
    kept = {audio: np.array([0.5, 0.5]) for audio in cached.hashes[:15]}
    knows_one = make_member("one", cached, kept)
    new = make_member("new")
    with pytest.raises(
        DatasetError,
        match=r"the member one was trained on 1 speaker and 1 clip of the clips to fit on, and "
        r".*one/held_out\.csv has no held-out .*; retrain it with --fit-on train\+dev",
    ):
        make_trainer(tmp_path, new, knows_one).prepare([clips])
    # Of other clips it knows the speaker.
    knows_voice = make_member("voice", cached.take(range(3)))
    decoded: list[int] = []
    with pytest.raises(DatasetError, match=r"member voice was trained on 1 speaker of the clips"):
        make_trainer(tmp_path, new, knows_voice, progress=decoded.append).prepare([clips[3:]])
    assert not decoded
    knows_others = make_member("others", cached.take(range(4)))
    assert len(make_trainer(tmp_path, new, knows_others).prepare([clips[4:]])) == 1


def test_members_know_none_of_those_who_are_scored(
    cached: CachedClips, clips: tuple[Clip, ...], tmp_path: Path, make_member: MakeMember
) -> None:
    trainer = make_trainer(tmp_path, make_member("new"), make_member("old", cached.take(range(5))))
    trainer.check_held_out(clips[8:])
    with pytest.raises(ConfigError, match=r"member old was trained on 2 of the .* such as toy/s0;"):
        trainer.check_held_out(clips)


def test_the_manifest_is_of_all_that_any_knows(
    cached: CachedClips, tmp_path: Path, make_member: MakeMember
) -> None:
    fitted = cached.take(range(8, 12))
    members = [make_member(name, cached.take(range(n))) for name, n in (("a", 3), ("b", 5))]
    found = make_trainer(tmp_path, *members).make_manifest(fitted)
    expected = cached.take([*range(5), *range(8, 12)])
    assert found == TrainingManifest.from_clips(expected.clips, expected.hashes)


def test_members_that_do_not_fit_together(
    clips: tuple[Clip, ...], tmp_path: Path, make_member: MakeMember
) -> None:
    one, two = make_member("one"), make_member("two")
    for members in ((one,), (one, two, one)):
        with pytest.raises(ConfigError, match=r"members are one.*; expected two or more of differ"):
            make_trainer(tmp_path, *members)
    other = make_member("other", labels=("short", "loud"))
    with pytest.raises(
        ConfigError, match="the member other has the labels short, loud, one has short, l"
    ):
        make_trainer(tmp_path, one, other)
    with pytest.raises(DatasetError, match="the clips to fit on have the labels long; expected"):
        make_trainer(tmp_path, one, two).prepare([clips[1::2]])


def test_clips_without_folds_are_refused_before_any_is_scored(
    clips: tuple[Clip, ...], tmp_path: Path, make_member: MakeMember
) -> None:
    trainer = make_trainer(tmp_path, make_member("one"), make_member("two"))
    trainer.check_fit(clips, ("long", "short"))
    alone = tuple(replace(clip, speaker="s0") for clip in clips)
    with pytest.raises(DatasetError, match="clips are of one speaker; expected 2 or more"):
        trainer.check_fit(alone, ("long", "short"))


def test_a_fusion_must_find_its_members(
    tmp_path: Path, make_member: MakeMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SER_MODELS", str(tmp_path / "none"))
    trainer = make_trainer(tmp_path, make_member("one"), make_member("two"))
    trainer.begin(tmp_path / "models" / "both")
    with pytest.raises(ConfigError, match="models/two: has the same name as its member two, "):
        trainer.begin(tmp_path / "models" / "two")
    with pytest.raises(ModelError, match="model 'one': found no"):
        trainer.begin(tmp_path / "both")
    (tmp_path / "two").mkdir()
    shutil.copytree(tmp_path / "models" / "one", tmp_path / "one")
    (tmp_path / "two" / "model.json").write_text("another")
    with pytest.raises(ConfigError, match=r"member two would lead to .*two, not to .*models/two"):
        trainer.begin(tmp_path / "both")
    # Those that are copied need not be found.
    trainer = replace(trainer, config=replace(trainer.config, copy_members=True))
    trainer.begin(tmp_path / "both")
    trainer.begin(tmp_path / "models" / "two")


def test_an_adapter_of_a_fusion_must_find_its_members(
    both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That it was trained on anything is not the point.
    fusion = Teacher(load_model(both), {}, TrainingManifest())
    trainer = AdapterTrainer(AdapterConfig(), fusion, cache=tmp_path / "cache")
    trainer.begin(both.parent / "adapted")
    monkeypatch.setenv("SER_MODELS", str(tmp_path / "none"))
    with pytest.raises(ModelError, match="model 'mine': found no"):
        trainer.begin(tmp_path / "elsewhere" / "adapted")
    with pytest.raises(ConfigError, match="is the folder of the model itself"):
        trainer.begin(both)
    members = {"mine": both.parent / "mine", "svm": SVM}
    whole = load_model(save_fusion(tmp_path / "whole", members, inside=True))
    replace(trainer, model=replace(fusion, classifier=whole)).begin(tmp_path / "elsewhere")


# The command line.


def ser(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(hisses: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an SVM and a CNN that know the speakers of `train` and `dev`."""
    folder = tmp_path_factory.mktemp("trained")
    options = ("--fit-on", "train+dev", "--no-test", "--jobs", "1", "-q")
    result = ser("train", "--data", hisses, "-o", folder / "hisser", *options)
    assert result.exit_code == 0, result.stderr
    settings = CnnSettings(LogMelSettings(n_mels=16), channels=(4, 4, 6, 6, 8, 8, 8))
    config = NeuralConfig(
        epochs=2, batch_size=9, learning_rate=0.02, averaging=0.5, folds=2, device="cpu", jobs=1
    )
    corpus = split_by_speaker(read_corpus(hisses))
    trainer = NeuralTrainer(CnnCourse(config, settings=settings), cache=cache)
    train_on_splits(corpus, folder / "netter", trainer, fit_on=("train", "dev"), test=False)
    return folder


def read_json(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data


def test_an_svm_keeps_what_was_said_of_clips_held_out(hisses: Path, trained: Path) -> None:
    model = load_model(trained / "hisser")
    kept = read_held_out(trained / "hisser", model.spec.labels)
    manifest = TrainingManifest.read(trained / "hisser")
    assert manifest is not None
    assert kept.keys() == {audio for audio, _ in manifest.rows}
    assert len(kept) == 45


def pretend_held_out(models: Path, hisses: Path, cache: Path) -> None:
    """Let the CNN have been right of the clips LO and MD, two of three, and the SVM of HI."""
    cached = cache_clips(split_by_speaker(read_corpus(hisses)).clips, cache, jobs=1)
    received = [index for index, clip in enumerate(cached.clips) if clip.split != "test"]
    for name, levels in (("netter", ("LO", "MD")), ("hisser", ("HI",))):
        labels = load_model(models / name, "cpu").spec.labels
        rows = np.full((len(received), 3), 0.01)
        for row, index in zip(rows, received, strict=True):
            clip = cached.clips[index]
            said = labels.index(clip.emotion) + (not clip.name.endswith(levels))
            row[said % 3] = 0.98
        content = encode_held_out(cached.take(received).hashes, labels, rows)
        (models / name / "held_out.csv").write_bytes(content)


def test_a_fusion_from_training_to_labels(
    hisses: Path, cache: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = Path(shutil.copytree(trained, tmp_path / "models"))
    pretend_held_out(models, hisses, cache)
    monkeypatch.setenv("SER_MODELS", str(models))
    description = read_json(models / "hisser" / "model.json")
    own, description["training"]["corpora"] = description["training"]["corpora"], ["mydb"]
    (models / "hisser" / "model.json").write_text(json.dumps(description))
    model = models / "both"
    shared = ("--model", "fusion", "--cache", cache, "--jobs", "1", "--device", "cpu")
    options = (*shared, "--members", f"netter, {models / 'hisser'}/", "--fit-on", "train+dev")
    result = ser("train", "--data", hisses, "-o", model, *options)
    assert result.exit_code == 0, result.stderr
    description = read_json(model / "model.json")
    training, members = description["training"], description["settings"]["members"]
    assert [member["name"] for member in members] == ["netter", "hisser"]
    for member in members:
        alone = training["members"][member["name"]]
        line = f"{member['name']}: weight {member['weight']:.3f}, UAR {alone['uar']:.3f}, NLL "
        assert line in result.stderr
    # Where 2 / (0.01 + 0.97 w) is 1 / (0.98 - 0.97 w).
    assert members[0]["weight"] == pytest.approx(1.95 / 2.91, abs=1e-3)
    assert training["members"]["hisser"]["uar"] == pytest.approx(1 / 3)
    figures = training["held_out"]["whole"]
    assert f"fusion: UAR {figures['uar']:.3f}, NLL {figures['nll']:.3f}" in result.stderr
    assert (training["splits"], training["clips"], training["speakers"]) == (
        ["train", "dev"],
        45,
        5,
    )
    assert sum(member["weight"] for member in members) == pytest.approx(1)
    assert description["weights"] == {}
    metrics = read_json(model / "metrics.json")
    assert (metrics["n_segments"], metrics["protocol"]) == (3, "speakers apart")
    card = (model / "README.md").read_text(encoding="utf-8")
    command = "ser train --data cremad:PATH --model fusion --members netter,hisser --split speaker"
    assert f"`{command} --fit-on train+dev --seed 0 -o both`" in card
    assert "| member hisser | weight 0.330; alone, on the same clips: UAR 0.333, NLL 3." in card
    assert str(tmp_path) not in card + (model / "model.json").read_text()
    manifest = TrainingManifest.read(model)
    assert manifest == TrainingManifest.read(models / "hisser")  # all learned from the same
    known = TrainingManifest.of(load_model(model))
    assert known is not None
    assert known.corpora == (*own, "mydb")

    # Whoever measures it and who annotates hears the mean of both.
    result = ser("eval", hisses, "-m", "both", "--json", "--jobs", "1", "--device", "cpu", "-q")
    assert json.loads(result.stdout)["uar"] == metrics["uar"]
    result = ser("eval", hisses, "-m", "both", "--split", "dev", "--strict", "-q", "--jobs", "1")
    assert (result.exit_code, "was trained on 2 speakers" in result.stderr) == (2, True)
    shape = ("--segment", "file", "--device", "cpu", "--format", "jsonl")
    sound = EXAMPLES / "statement.flac"
    rows = {}
    for name in ("both", "netter", "hisser"):
        row = json.loads(ser("annotate", sound, "-m", name, *shape).stdout)
        rows[name] = np.array([row[f"prob_{label}"] for label in description["labels"]])
    weights = [member["weight"] for member in members]
    mean = mix(np.stack([[rows["netter"]], [rows["hisser"]]]), np.array(weights))
    expected = Calibration.from_dict(description["calibration"]).probabilities(mean)[0]
    np.testing.assert_allclose(rows["both"], expected, atol=1e-5)
    (found,) = sercli.annotate(sound, "both", segments=sercli.SegmentConfig("file"), device="cpu")
    np.testing.assert_allclose(found.segments[0].probabilities, rows["both"], atol=1e-5)
    listed = {row["name"]: row for row in json.loads(ser("models", "--json").stdout)}
    assert (listed["both"]["family"], listed["both"]["error"]) == ("fusion", None)
    assert listed["both"]["uar"] == metrics["uar"]

    # It can teach: what is held out of all of its members, too.
    teacher = Teacher.load("both", "cpu")
    assert teacher.held_out.keys() == {audio for audio, _ in teacher.manifest.rows}

    # With equal weights, and with its members inside: also where nobody else finds them.
    alone = tmp_path / "alone" / "netter"
    result = ser(
        *("train", "--data", hisses, "-o", alone, *options, "--no-test"),
        *("--equal-weights", "--copy-members"),
    )
    assert result.exit_code == 0, result.stderr
    assert "netter: weight 0.500, UAR" in result.stderr
    card = (alone / "README.md").read_text(encoding="utf-8")
    command = command.replace(" --split", " --equal-weights --copy-members --split")
    assert f"`{command} --fit-on train+dev --seed 0 -o netter`" in card
    assert "The mean of the calibrated probabilities of its members netter and hisser" in card
    assert "Members are in the folders of their names inside this one" in card
    facts = read_json(alone / "model.json")
    assert [one["weight"] for one in facts["settings"]["members"]] == [0.5, 0.5]
    monkeypatch.setenv("SER_MODELS", str(tmp_path / "none"))
    row = json.loads(ser("annotate", sound, "-m", alone, *shape).stdout)
    mean = mix(np.stack([[rows["netter"]], [rows["hisser"]]]), np.array([0.5, 0.5]))
    expected = Calibration.from_dict(facts["calibration"]).probabilities(mean)[0]
    told = [row[f"prob_{label}"] for label in facts["labels"]]
    np.testing.assert_allclose(told, expected, atol=1e-5)
    monkeypatch.setenv("SER_MODELS", str(models))

    # By default it is fitted on `dev`; it does not take what its members know for a test.
    result = ser("train", "--data", hisses, "-o", models / "dev", *options[:-2])
    assert result.exit_code == 0, result.stderr
    facts = read_json(models / "dev" / "model.json")["training"]
    assert (facts["splits"], facts["clips"]) == (["dev"], 18)
    assert TrainingManifest.read(models / "dev") == manifest
    splits = tmp_path / "splits.csv"
    splits.write_text("speaker,split\n1001,test\n1002,dev\n1003,dev\n1049,train\n")
    again = (*options[:-2], "--split", splits, "-o", tmp_path / "models" / "again")
    result = ser("train", "--data", hisses, *again)
    assert result.exit_code == 2
    assert "the member netter was trained on 1 of the speakers to be scored" in (result.stderr)
    (models / "hisser" / "held_out.csv").unlink()
    result = ser("train", "--data", hisses, "-o", models / "again", *options)
    assert (
        result.exit_code,
        "the member hisser was trained on 5 speakers of" in result.stderr,
    ) == (
        2,
        True,
    )
    edit(models / "netter", flatten=0.5)
    result = ser("annotate", sound, "-m", "both")
    assert (result.exit_code, "its member netter, " in result.stderr) == (2, True)


def test_options_of_a_fusion(hisses: Path, trained: Path, tmp_path: Path) -> None:
    start = ("train", "--data", hisses, "-o", tmp_path / "new")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "config.json").write_text("{}")
    for options, message in (
        (("--model", "fusion"), "--model fusion combines models, but none are named"),
        (("--model", "fusion", "--members", "svm"), "members are svm; expected two or more"),
        (("--model", "fusion", "--members", "svm,nope"), "model 'nope': found no model.json"),
        (
            ("--model", "fusion", "--members", f"{theirs},svm"),
            f"{theirs}: is a classifier of Hugging Face, whose training data are not known",
        ),
        (
            ("--model", "fusion", "--members", "svm,hub:org/name"),
            "hub:org/name: is a classifier of Hugging Face, whose training",
        ),
        (("--model", "svm", "--members", "svm,cnn"), "--members goes with --model fusion"),
        (("--model", "cnn", "--equal-weights"), "--equal-weights goes with --model fusion."),
        (("--model", "adapter", "--copy-members"), "--copy-members goes with --model fusion."),
        (("--model", "fusion", "--members", "svm,cnn", "--epochs", "3"), "--epochs goes with"),
        (("--model", "fusion", "--members", "svm,cnn"), "the labels anger, happiness, sadness"),
    ):
        result = ser(*start, *options)
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
        assert not (tmp_path / "new" / "model.json").exists()


def test_a_fusion_of_models_that_are_new_to_a_corpus(
    hisses: Path, cache: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it can be cross-validated as any other model."""
    models = Path(shutil.copytree(trained, tmp_path / "models"))
    monkeypatch.setenv("SER_MODELS", str(models))
    table = tmp_path / "others.csv"
    codes = {"ANG": "anger", "HAP": "happiness", "SAD": "sadness"}
    rows = ["file,emotion,speaker"]
    for path in sorted(hisses.glob("1048*.wav")):  # whom neither of them knows
        waveform, rate = sf.read(path)
        for speaker in ("x", "y", "z"):
            copy = tmp_path / f"{speaker}_{path.name}"
            sf.write(copy, waveform * {"x": 0.5, "y": 0.7, "z": 0.9}[speaker], rate)
            rows.append(f"{copy},{codes[path.stem.split('_')[2]]},{speaker}")
    table.write_text("\n".join(rows))
    options = ("--members", "netter,hisser", "--folds", "3", "--cache", cache, "--jobs", "1")
    result = ser("train", "--data", table, "--model", "fusion", "-o", models / "both", *options)
    assert result.exit_code == 0, result.stderr
    figures = read_json(models / "both" / "metrics.json")
    assert (figures["n_segments"], figures["split"]) == (9, "3 folds")
    result = ser("train", "--data", hisses, "--model", "fusion", "-o", models / "no", *options)
    assert (result.exit_code, "netter was trained on 5 of the" in result.stderr) == (2, True)
