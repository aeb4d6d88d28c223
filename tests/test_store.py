import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from test_adaptation import create_adapter

from sercli.classifiers.svm import SvmClassifier
from sercli.errors import ConfigError, ModelError, OutputError
from sercli.features.vector import FEATURE_SET
from sercli.registry.catalogue import find_model, list_models, shipped_folder
from sercli.registry.description import model_hash
from sercli.registry.store import load_model, save_model


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setenv("SER_MODELS", str(folder))
    return folder


@pytest.fixture
def copy(models: Path) -> Path:
    """A copy of the shipped SVM among the user's models."""
    return Path(shutil.copytree(shipped_folder() / "svm", models / "mine"))


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def errors() -> dict[str, str]:
    return {entry.name: entry.error or "" for entry in list_models()}


def calibrate(n_scores: int, bias: float = 0.0) -> dict[str, Any]:
    return {"method": "none", "weights": [[1.0] * 6] * n_scores, "bias": [bias] * 6}


def nest(depth: int) -> dict[str, Any]:
    inner: Any = 1
    for _ in range(depth):
        inner = [inner]
    return {"a": inner}


def test_models_are_found_by_name_and_by_path(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model("svm") == shipped_folder() / "svm"
    assert find_model("mine") == copy
    assert find_model(copy) == copy
    monkeypatch.chdir(copy.parent)
    assert find_model("./mine").samefile(copy)


def test_a_folder_in_the_working_directory_does_not_shadow_a_name(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "work"
    shutil.copytree(copy, elsewhere / "svm")
    monkeypatch.chdir(elsewhere)
    assert find_model("svm") == shipped_folder() / "svm"
    assert find_model("./svm").samefile(elsewhere / "svm")
    shutil.copytree(copy, elsewhere / "local")
    assert find_model("local").samefile(elsewhere / "local")


def test_a_users_model_comes_before_a_shipped_one(copy: Path) -> None:
    copy.rename(copy.parent / "svm")
    assert find_model("svm") == copy.parent / "svm"


def test_a_missing_model_lists_what_there_is(copy: Path) -> None:
    listed = "best, cnn, mine, svm, transformer"
    with pytest.raises(ModelError, match=rf"model 'nope': found no model\.json in .*: {listed}"):
        load_model("nope")


def test_listing(copy: Path, models: Path) -> None:
    (models / "not_a_model").mkdir()
    edit(Path(shutil.copytree(copy, models / "other")), family="hmm")
    (copy / "metrics.json").unlink()
    entries = {entry.name: entry for entry in list_models()}
    assert set(entries) == {"best", "cnn", "svm", "transformer", "mine", "other"}
    assert entries["svm"].targets == ("intended",)
    svm, mine, other = entries["svm"], entries["mine"], entries["other"]
    assert (svm.origin, svm.family, svm.measured_on) == ("shipped", "svm", "cremad test")
    assert svm.uar == json.loads((svm.path / "metrics.json").read_text())["uar"]
    assert svm.size == sum(path.stat().st_size for path in svm.path.iterdir())
    assert svm.protocol == "speakers apart"
    assert (mine.origin, mine.uar, mine.protocol, mine.error) == ("user", None, None, None)
    assert other.error is not None
    assert "family is 'hmm'; this version knows svm" in other.error


def test_a_folder_of_models_that_cannot_be_read_is_empty(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iterdir = Path.iterdir

    def refuse(self: Path) -> Iterator[Path]:
        if self == models:
            raise PermissionError(13, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert [entry.name for entry in list_models()] == ["best", "cnn", "svm", "transformer"]


def test_files_that_cannot_be_read_have_no_size(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = copy / "locked"
    inside.mkdir()
    (inside / "notes").write_bytes(bytes(1000))
    expected = sum(path.stat().st_size for path in copy.iterdir() if path.is_file())
    stat = Path.stat

    def refuse(self: Path, **options: Any) -> os.stat_result:
        if self.parent == inside:
            raise PermissionError(13, "Permission denied", str(self))
        return stat(self, **options)

    (mine,) = (entry for entry in list_models() if entry.origin == "user")
    assert mine.size == expected + 1000
    monkeypatch.setattr(Path, "stat", refuse)
    (mine,) = (entry for entry in list_models() if entry.origin == "user")
    assert (mine.size, mine.error) == (expected, None)


def test_round_trip(copy: Path, tmp_path: Path) -> None:
    classifier = load_model(copy)
    saved = save_model(classifier, tmp_path / "new/deep")
    assert (saved / "weights.safetensors").read_bytes() == (
        copy / "weights.safetensors"
    ).read_bytes()
    assert (saved / "model.json").read_text() == (copy / "model.json").read_text()
    assert model_hash(saved) == model_hash(copy)


def test_a_model_that_is_not_replaced_to_the_end_stays_as_it_was(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load_model(copy)
    assert isinstance(other, SvmClassifier)
    changed = other.tensors()
    changed["mean"] = changed["mean"] + 1
    monkeypatch.setattr(other, "tensors", lambda: changed)
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    synced: list[int] = []
    fsync = os.fsync

    def fill(number: int) -> None:
        synced.append(number)
        if len(synced) == 3:  # the weights and the adapter are written, the description is not
            raise OSError(28, "No space left on device")
        fsync(number)

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(OutputError, match=r"model\.json: cannot be written: No space left"):
        save_model(other, copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    monkeypatch.setattr(os, "fsync", fsync)
    save_model(other, copy)
    again = load_model(copy)
    assert isinstance(again, SvmClassifier)
    np.testing.assert_array_equal(again.tensors()["mean"], changed["mean"])


def test_a_model_is_not_written_beside_what_cannot_be_removed(copy: Path) -> None:
    (copy / "curves.png" / "mine").mkdir(parents=True)
    (copy / "model.json").write_text("that of another model")
    listed = sorted(os.listdir(copy))
    with pytest.raises(OutputError, match=r"curves\.png: cannot be removed: .*; remove it, or"):
        save_model(load_model("svm"), copy, {"curves.png": None})
    assert (copy / "model.json").read_text() == "that of another model"
    assert sorted(os.listdir(copy)) == listed


def test_what_is_perceived_has_a_calibration_of_its_own(copy: Path, tmp_path: Path) -> None:
    classifier = load_model(copy)
    spec = classifier.spec
    assert spec.perceived is None
    with pytest.raises(ConfigError, match="svm model predicts only the intended emotion; expected"):
        classifier.predict_proba([], "perceived")
    bias = np.array([9.0, 0, 0, 0, 0, 0])
    classifier.spec = replace(spec, perceived=replace(spec.calibration, bias=bias))
    saved = load_model(save_model(classifier, tmp_path / "both"))
    waveform = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    intended = saved.predict_proba([waveform])
    assert saved.predict_proba([waveform], "perceived")[0, 0] > 0.9 > intended[0, 0]
    np.testing.assert_array_equal(intended, load_model(copy).predict_proba([waveform]))
    short = {"method": "none", "weights": [[1.0]], "bias": [0.0]}
    edit(copy, perceived=short)
    with pytest.raises(ModelError, match="perceived gives 1 of 6 labels"):
        load_model(copy)


def test_altered_weights_are_refused(copy: Path) -> None:
    path = copy / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ModelError, match=r"mine: weights\.safetensors is altered or damaged: SHA"):
        load_model("mine")


def test_missing_weights_are_refused(copy: Path) -> None:
    (copy / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match=r"weights\.safetensors cannot be read: No such file"):
        load_model("mine")


def test_weights_that_are_a_pickle_are_refused(copy: Path) -> None:
    import hashlib
    import pickle

    content = pickle.dumps({"mean": [0.0]})
    (copy / "weights.safetensors").write_bytes(content)
    weights = json.loads((copy / "model.json").read_text(encoding="utf-8"))["weights"]
    edit(copy, weights=weights | {"weights.safetensors": hashlib.sha256(content).hexdigest()})
    with pytest.raises(ModelError, match="is not in safetensors format"):
        load_model("mine")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format is 2; this version reads format 1"),
        ({"surprise": 1}, r"missing keys \[\], unknown keys \['surprise'\]"),
        ({"family": "hmm"}, "family is 'hmm'; this version knows svm"),
        ({"labels": "anger"}, "labels is 'anger'; expected a list"),
        ({"labels": [1, 2]}, r"labels are \[1, 2\]; expected a list of names"),
        ({"family": ["svm"]}, r"family is \['svm'\]; expected a name"),
        ({"weights": None}, r"weights is None; expected {...}"),
        ({"band_limit": "4000"}, "band_limit is '4000'; expected a number"),
        ({"adapter": 3}, "adapter is 3; expected {...}"),
        ({"labels": ["anger", "anger"]}, "labels are .*expected a list"),
        ({"labels": ["anger", "fear"]}, "calibration gives 6 of 2 labels"),
        ({"sample_rate": 8000}, "sample_rate is 8000 Hz; expected 16000 Hz"),
        ({"calibration": {}}, "calibration has the keys"),
        ({"weights": {}}, "lists the weights"),
        ({"weights": {"../../evil": "0"}}, "lists the weights"),
        ({"weights": {"w" * 300: "0"}}, "lists the weights"),
        ({"band_limit": math.nan}, "band_limit is nan; expected a finite number"),
        ({"band_limit": 10**400}, "band_limit is 10+.*0; expected a finite number, or a smaller"),
        ({"band_limit": -1}, "band_limit is -1 Hz, sample_rate 16000 Hz; expected a limit above 0"),
        ({"band_limit": 0}, "band_limit is 0 Hz, sample_rate 16000 Hz; expected a limit above 0"),
        ({"band_limit": 8001}, "band_limit is 8001 Hz, sample_rate 16000 Hz; expected a limit"),
        ({"sample_rate": 10**400}, "sample_rate is 10+.*0; expected a finite number, or a smaller"),
        ({"settings": {"feature_set": FEATURE_SET, "gamma": math.nan}}, "gamma' is nan; expected"),
        ({"settings": {"feature_set": FEATURE_SET, "gamma": 10**400}}, "gamma' is 10+.*0; expect"),
        ({"settings": {"feature_set": FEATURE_SET, "gamma": -1}}, "gamma is -1; expected a number"),
        ({"settings": {"feature_set": FEATURE_SET}}, "gamma is None; expected a number above 0"),
        (
            {"calibration": calibrate(7)},
            "calibration takes 7 scores, and a model of the family svm",
        ),
        ({"perceived": calibrate(7)}, "perceived takes 7 scores, calibration 6; expected as many"),
        ({"calibration": calibrate(6, math.inf)}, "calibration.* is inf; expected a finite number"),
        ({"calibration": calibrate(6, 10**400)}, "calibration.* is 10+.*0; expected a finite"),
        ({"settings": nest(300)}, "settings.* is nested more than 20 times; copy it again"),
        ({"training": nest(300)}, "training.* is nested more than 20 times; copy it again"),
        ({"labels": nest(300)["a"]}, "labels is nested more than 20 times; copy it again"),
    ],
)
def test_descriptions_that_are_refused(copy: Path, changes: dict[str, Any], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(ModelError, match=message):
        load_model("mine")
    assert "mine" in errors()


@pytest.mark.parametrize("text", ["{", "[" * 100_000, f'{{"format": {"1" * 5_000}}}'])
def test_a_description_that_is_no_json(copy: Path, text: str) -> None:
    (copy / "model.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.json: cannot be read as JSON"):
        load_model("mine")
    assert "cannot be read as JSON" in errors()["mine"]


def test_figures_that_are_none_may_be_told_of_a_training(copy: Path) -> None:
    edit(copy, training={"loss": math.nan})
    assert load_model("mine").spec.training.keys() == {"loss"}


@pytest.mark.parametrize("settings", [{"n_mels": 1e12}, {"hop_length": "1"}, {"win_length": 300.5}])
def test_networks_of_no_shape(models: Path, settings: dict[str, Any]) -> None:
    copy = Path(shutil.copytree(shipped_folder() / "cnn" / "calm", models / "net"))
    old = json.loads((copy / "model.json").read_text(encoding="utf-8"))["settings"]
    edit(copy, settings=old | {"log_mel": old["log_mel"] | settings})
    with pytest.raises(ModelError, match="settings "):
        load_model("net")


def test_names_of_any_length(models: Path, copy: Path) -> None:
    name = "a" * 300
    with pytest.raises(ModelError, match=r"found no model\.json in"):
        load_model(name)
    fusion = Path(shutil.copytree(shipped_folder() / "best", models / "both"))
    settings = json.loads((fusion / "model.json").read_text(encoding="utf-8"))["settings"]
    members = [one | {"name": name} for one in settings["members"][:1]]
    edit(fusion, settings=settings | {"members": [*members, *settings["members"][1:]]})
    with pytest.raises(ModelError, match=r"found no model\.json in"):
        load_model("both")
    edit(copy, weights={name: "0"})
    assert f"lacks {name}; copy the folder again" in errors()["mine"]


def test_a_list_tells_of_weights_that_are_cut_off(copy: Path) -> None:
    path = copy / "weights.safetensors"
    content = path.read_bytes()
    assert errors()["mine"] == ""
    length = int.from_bytes(content[:8], "little")
    header = json.dumps({"a": {"data_offsets": ["0", "1"]}}).encode()
    for wrong in (
        content[:-1],
        content + b"x",
        content[: length // 2],
        content[:5],
        b"",
        b"\xff" * 100,
        (10).to_bytes(8, "little") + b"[" * 10,
        (10**5).to_bytes(8, "little") + b"[" * 10**5,
        len(header).to_bytes(8, "little") + header,
    ):
        path.write_bytes(wrong)
        assert (
            errors()["mine"]
            == f"{copy}: weights.safetensors is truncated or damaged; copy the folder again"
        )


@pytest.mark.parametrize("uar", ["NaN", "1e999", "1" * 5_000, "[" * 100_000, '"0.5"', "null"])
def test_figures_that_are_none_are_not_listed(copy: Path, uar: str) -> None:
    (copy / "metrics.json").write_text(
        f'{{"corpus": "a", "split": "test", "protocol": "speakers apart", "uar": {uar}}}'
    )
    (entry,) = (one for one in list_models() if one.name == "mine")
    assert (entry.uar, entry.measured_on, entry.error) == (None, None, None)


def test_adapters_are_stored_beside_the_weights(
    copy: Path, models: Path, rng: np.random.Generator
) -> None:
    model = load_model(copy)
    model.adapter = adapter = create_adapter(rng)
    saved = save_model(model, models / "adapts")
    assert (saved / "weights.safetensors").read_bytes() == (
        copy / "weights.safetensors"
    ).read_bytes()
    again = load_model(saved)
    assert again.adapter is not None
    probabilities = rng.dirichlet(np.ones(6), 10)
    stored = type(adapter)(adapter.settings, adapter.calibration, adapter.tensors())
    np.testing.assert_array_equal(again.adapter.adapt(probabilities), stored.adapt(probabilities))
    assert {entry.name: entry.adapts for entry in list_models()}["adapts"] is True
    # Without one, nothing is left of it.
    model.adapter = None
    save_model(model, saved)
    assert not (saved / "adapter.safetensors").exists()
    assert load_model(saved).adapter is None
    assert {entry.name: entry.adapts for entry in list_models()}["adapts"] is False


def test_adapters_that_are_damaged(copy: Path, rng: np.random.Generator) -> None:
    model = load_model(copy)
    model.adapter = create_adapter(rng)
    save_model(model, copy)
    data = json.loads((copy / "model.json").read_text(encoding="utf-8"))
    edit(copy, adapter={"settings": {}, "calibration": {}})
    with pytest.raises(ModelError, match="calibration"):
        load_model(copy)
    edit(copy, adapter=data["adapter"] | {"settings": {"least": "6"}})
    with pytest.raises(ModelError, match="its adapter"):
        load_model(copy)
    edit(copy, adapter=data["adapter"])
    edit(copy, weights={"weights.safetensors": data["weights"]["weights.safetensors"]})
    with pytest.raises(ModelError, match=r"expected adapter\.safetensors, weights.* with an"):
        load_model(copy)
    edit(copy, weights=data["weights"])
    edit(copy, adapter=data["adapter"] | {"calibration": calibrate(7)})
    with pytest.raises(ModelError, match="its adapter's calibration takes 7 scores; expected 6"):
        load_model(copy)
    model.adapter = create_adapter(rng, 5)
    save_model(model, copy)
    with pytest.raises(ModelError, match="its adapter has 5 of 6 labels"):
        load_model(copy)


def test_tensors_of_odd_types_and_in_two_files(tmp_path: Path) -> None:
    shutil.copytree(shipped_folder() / "transformer", tmp_path / "mine")
    weights = load_file(tmp_path / "mine" / "weights.safetensors")
    name = sorted(weights)[0]

    def change(file: str, tensors: dict[str, Any]) -> None:
        content = save(tensors)
        (tmp_path / "mine" / file).write_bytes(content)
        path = tmp_path / "mine" / "model.json"
        told = json.loads(path.read_text())
        told["weights"][file] = hashlib.sha256(content).hexdigest()
        path.write_text(json.dumps(told))

    change("weights.safetensors", weights | {name: weights[name].astype(np.int64)})
    with pytest.raises(ModelError, match="is of the type int64; expected float16 or float32"):
        load_model(tmp_path / "mine")
    change("weights.safetensors", weights)
    encoder = load_file(tmp_path / "mine" / "encoder.safetensors")
    change("encoder.safetensors", encoder | {name: weights[name]})
    with pytest.raises(ModelError, match=f"weights.safetensors has {name}, which another file has"):
        load_model(tmp_path / "mine")
