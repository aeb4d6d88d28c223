import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_adaptation import create_adapter

from sercli.catalogue import find_model, list_models, shipped_folder
from sercli.errors import ConfigError, ModelError
from sercli.store import load_model, model_hash, save_model


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
    assert (mine.origin, mine.uar, mine.error) == ("user", None, None)
    assert other.error is not None
    assert "family is 'hmm'; this version knows svm" in other.error


def test_round_trip(copy: Path, tmp_path: Path) -> None:
    classifier = load_model(copy)
    saved = save_model(classifier, tmp_path / "new/deep")
    assert (saved / "weights.safetensors").read_bytes() == (
        copy / "weights.safetensors"
    ).read_bytes()
    assert (saved / "model.json").read_text() == (copy / "model.json").read_text()
    assert model_hash(saved) == model_hash(copy)


def test_what_is_perceived_has_a_calibration_of_its_own(copy: Path, tmp_path: Path) -> None:
    classifier = load_model(copy)
    spec = classifier.spec
    assert spec.perceived is None
    with pytest.raises(ConfigError, match="svm model tells only what is intended; expected"):
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
    ],
)
def test_descriptions_that_are_refused(copy: Path, changes: dict[str, Any], message: str) -> None:
    edit(copy, **changes)
    with pytest.raises(ModelError, match=message):
        load_model("mine")


def test_a_description_that_is_no_json(copy: Path) -> None:
    (copy / "model.json").write_text("{")
    with pytest.raises(ModelError, match=r"model\.json: cannot be read as JSON"):
        load_model("mine")


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
    model.adapter = create_adapter(rng, 5)
    save_model(model, copy)
    with pytest.raises(ModelError, match="its adapter tells 5 of 6 labels"):
        load_model(copy)
