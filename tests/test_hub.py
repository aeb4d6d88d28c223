"""Classifiers of Hugging Face as they are: what `transformers` says of a clip, in any batch."""

import csv
import json
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from checkpoints import save_classifier
from click.testing import CliRunner, Result
from conftest import EXAMPLES, MakeWav
from huggingface_hub import constants, errors
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

import sercli
from sercli.classifiers.hub import group_labels
from sercli.cli import main
from sercli.errors import ConfigError, ModelError
from sercli.neural.bases import load_base
from sercli.neural.devices import computing
from sercli.neural.hub import fetch_checkpoint
from sercli.neural.speech_encoder import ARCHITECTURES, AST, WHISPER
from sercli.registry.store import load_model, save_model
from sercli.training.teachers import Teacher

WEIGHTS = "model.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# In samples; the longest is longer than what the tiny networks of a fixed length hear.
LENGTHS = (16_000, 9_431, 1_600, 24_007, 40_000)


def waveforms() -> list[NDArray[np.float32]]:
    """Noises of different colours and levels, down to where a level of its own would matter."""
    rng = np.random.default_rng(0)
    found = []
    for index, length in enumerate(LENGTHS):
        noise = np.convolve(rng.normal(size=length), np.ones(1 + 3 * index), "same")
        found.append((noise * (0.1, 3e-4, 0.02, 0.3, 0.1)[index] + 0.01).astype(np.float32))
    return found


def classify_alone(folder: Path, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what `transformers` says of a clip."""
    network = AutoModelForAudioClassification.from_pretrained(folder, dtype=torch.float32).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    inputs = extractor(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        found: NDArray[np.float32] = network(**inputs).logits.softmax(dim=1)[0].numpy()
    return found


def edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**data, **changes}), encoding="utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no socket be opened."""

    class NoSocket(socket.socket):
        def __init__(self, *_: Any, **__: Any) -> None:
            raise AssertionError("opens a socket")

    monkeypatch.setattr(socket, "socket", NoSocket)


@pytest.mark.parametrize(
    ("kind", "settings", "extractor"),
    [
        *((kind, {}, {}) for kind in ARCHITECTURES),
        *((kind, {"use_weighted_layer_sum": True}, {}) for kind in ("hubert", "wavlm", WHISPER)),
        ("wav2vec2", {}, {"do_normalize": False}),
        ("hubert", {"feat_extract_norm": "layer"}, {"return_attention_mask": True}),
        (
            "wav2vec2",
            {
                "feat_extract_norm": "layer",
                "do_stable_layer_norm": True,
                "use_weighted_layer_sum": True,
            },
            {},
        ),
        *(
            (kind, {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}, {})
            for kind in ("wav2vec2", "hubert", "wavlm", "unispeech-sat")
        ),
        ("hubert", {"conv_pos_batch_norm": True}, {}),
        ("unispeech-sat", {"classifier_proj_size": 8, "mask_time_prob": 0.0}, {}),
        (AST, {}, {"do_normalize": False}),
    ],
)
@pytest.mark.usefixtures("offline")
def test_probabilities_are_those_of_transformers_alone_and_in_any_batch(
    kind: str, settings: dict[str, Any], extractor: dict[str, Any], tmp_path: Path
) -> None:
    save_classifier(kind, tmp_path, extractor=extractor, **settings)
    model = load_model(tmp_path, "cpu", labels="model")
    assert model.spec.labels == ("neu", "hap", "ang", "sad")
    clips = waveforms()
    expected = np.stack([classify_alone(tmp_path, clip) for clip in clips])
    assert expected.std(axis=0).min() > 1e-3  # or nothing would be compared
    found = model.predict_proba(clips)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(clips[::-1])[::-1], expected, atol=1e-4)
    alone = np.concatenate([model.predict_proba([clip]) for clip in clips])
    np.testing.assert_allclose(alone, expected, atol=1e-4)
    assert model.predict_proba([]).shape == (0, 4)


def test_half_precision_is_computed_in_single(tmp_path: Path) -> None:
    save_classifier("wav2vec2", tmp_path)
    edit_weights(tmp_path, lambda weights: {k: v.half() for k, v in weights.items()})
    edit(tmp_path / "config.json", dtype="float16")
    model = load_model(tmp_path, "cpu", labels="model")
    expected = classify_alone(tmp_path, waveforms()[0])
    np.testing.assert_allclose(model.predict_proba(waveforms()[:1])[0], expected, atol=1e-4)


def test_names_of_weights_as_torch_had_them_are_known(tmp_path: Path) -> None:
    save_classifier("hubert", tmp_path)
    before = load_model(tmp_path, "cpu").predict_proba(waveforms())
    old = {"parametrizations.weight.original0": "weight_g"}
    old["parametrizations.weight.original1"] = "weight_v"

    def rename(weights: dict[str, Any]) -> dict[str, Any]:
        for new, former in old.items():
            (name,) = (name for name in weights if name.endswith(new))
            weights[name.replace(new, former)] = weights.pop(name)
        return weights

    edit_weights(tmp_path, rename)
    np.testing.assert_array_equal(load_model(tmp_path, "cpu").predict_proba(waveforms()), before)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.usefixtures("offline")
def test_settings_choose_no_code_of_the_hub(key: str, tmp_path: Path) -> None:
    save_classifier("hubert", tmp_path)
    expected = load_model(tmp_path, "cpu").predict_proba(waveforms())
    edit(tmp_path / "config.json", **{key: "someone/kernel"})
    np.testing.assert_array_equal(load_model(tmp_path, "cpu").predict_proba(waveforms()), expected)


@pytest.mark.parametrize("kind", [WHISPER, AST])
def test_feature_extractors_are_exact_where_bf16_is_multiplied(kind: str, tmp_path: Path) -> None:
    save_classifier(kind, tmp_path)
    model: Any = load_model(tmp_path, "cpu", precision="bf16")
    assert model.predict_proba(waveforms()).shape[0] == len(waveforms())
    expected = model.network._extract(waveforms()[0])
    with computing(torch.device("cpu"), torch.bfloat16):
        np.testing.assert_array_equal(model.network._extract(waveforms()[0]), expected)


def test_dither_is_off(tmp_path: Path) -> None:
    save_classifier(WHISPER, tmp_path, extractor={"dither": 0.1})
    model = load_model(tmp_path, "cpu")
    first = model.predict_proba(waveforms())
    np.testing.assert_array_equal(model.predict_proba(waveforms()), first)


@pytest.mark.usefixtures("offline")
def test_what_a_loaded_checkpoint_says_of_itself(tmp_path: Path) -> None:
    save_classifier("wavlm", tmp_path / "mine")
    model = load_model(tmp_path / "mine", "cpu")
    assert (model.name, model.family, model.folder, model.revision) == ("mine", "hub", None, None)
    assert model.spec.labels == ("anger", "happiness", "neutral", "sadness")
    assert model.spec.settings["architecture"] == "wavlm"
    assert model.spec.settings["labels"] == ["neu", "hap", "ang", "sad"]
    assert (model.spec.sample_rate, model.spec.band_limit) == (16_000, 8_000)
    assert model.spec.calibration.method == "none"
    assert model.limits == ("Its confidences are not calibrated.",)
    digest = model.sha256
    assert digest is not None
    assert len(digest) == 64
    edit_weights(tmp_path / "mine", lambda weights: {k: v + 1 for k, v in weights.items()})
    assert load_model(tmp_path / "mine", "cpu").sha256 != digest
    # Results also depend on the names of labels, and on what is done with a waveform.
    for name, old, new in (
        ("config.json", '"0": "neu"', '"0": "sad"'),
        ("preprocessor_config.json", '"do_normalize": ', '"do_normalise": '),
    ):
        save_classifier("wavlm", tmp_path / "mine")
        assert load_model(tmp_path / "mine", "cpu").sha256 == digest
        path = tmp_path / "mine" / name
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")
        assert load_model(tmp_path / "mine", "cpu").sha256 != digest
    with pytest.raises(ModelError, match="mine: a checkpoint of Hugging Face is not saved as a m"):
        save_model(model, tmp_path / "copy")
    with pytest.raises(ModelError, match="mine: has no manifest of its training data"):
        Teacher.load(tmp_path / "mine", "cpu")
    with pytest.raises(ConfigError, match="device is 'tpu'"):
        load_model(tmp_path / "mine", "tpu")


def test_of_a_fixed_length_the_limit_is_told(tmp_path: Path) -> None:
    save_classifier(AST, tmp_path)
    assert load_model(tmp_path, "cpu").limits[1] == "It reads only the first 1.3 s of a segment."
    save_classifier(WHISPER, tmp_path, max_source_positions=1500, extractor={"chunk_length": 30})
    assert len(load_model(tmp_path, "cpu").limits) == 1


# Labels.


def test_labels_that_mean_the_same_are_one_and_their_probabilities_add_up(tmp_path: Path) -> None:
    own = ("Happy", "NEUTRAL", "excited", " joy", "Fearful", "calm")
    save_classifier("hubert", tmp_path, own)
    theirs = load_model(tmp_path, "cpu", labels="model").predict_proba(waveforms())
    model = load_model(tmp_path, "cpu")
    assert model.spec.labels == ("calm", "excitement", "fear", "happiness", "neutral")
    ours = model.predict_proba(waveforms())
    np.testing.assert_allclose(ours[:, 3], theirs[:, 0] + theirs[:, 3], atol=1e-6)
    np.testing.assert_allclose(ours[:, [0, 1, 2, 4]], theirs[:, [5, 2, 4, 1]], atol=1e-6)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            ("LABEL_0", "LABEL_1"),
            "does not name its labels, but calls them LABEL_0, LABEL_1; `--labels",
        ),
        (("angry", "arousal", "zest"), "labels 'arousal', 'zest' are not in the table .*--labels"),
        (("angry", "Anger"), "labels angry, Anger mean the same"),
    ],
)
def test_labels_that_cannot_be_ours(own: tuple[str, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        group_labels(own, "ours")
    assert group_labels(own, "model") == {label: [index] for index, label in enumerate(own)}


def test_labels_that_are_the_same_cannot_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="its labels are sad, sad; expected different names"):
        group_labels(("sad", "sad"), "model")
    with pytest.raises(ModelError, match="its labels are b, '', d; expected different names, none"):
        group_labels(("b", " ", "d"), "model")
    save_classifier("hubert", tmp_path)
    with pytest.raises(ConfigError, match="labels is 'both'; expected ours or model"):
        load_model(tmp_path, labels="both")  # type: ignore[arg-type]


def test_labels_of_a_model_are_spelled_as_words_that_are_compared_with_them() -> None:
    found = group_labels(("cole\u0300re", "joie ", "very\n sad", 'a, "b"'), "model")
    assert found == {"col\u00e8re": [0], "joie": [1], "very sad": [2], 'a, "b"': [3]}
    # Two columns of these would have the same name when they are read back.
    for own in (("sad", "sad "), ("e\u0301", "\u00e9"), ("very sad", "very\tsad")):
        with pytest.raises(ModelError, match="expected different names, none of them empty"):
            group_labels(own, "model")


# What is refused.


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_encoder_without_a_head_is_refused(kind: str, tmp_path: Path) -> None:
    save_classifier(kind, tmp_path)
    edit_weights(
        tmp_path, lambda weights: {k: v for k, v in weights.items() if "classifier" not in k}
    )
    with pytest.raises(ModelError, match=r"lacks classifier\..* in all.*an encoder without a head"):
        load_model(tmp_path, "cpu")


def test_a_head_of_other_names_or_sizes_is_refused(tmp_path: Path) -> None:
    save_classifier("wav2vec2", tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    edit_weights(
        tmp_path,
        lambda old: {k.replace("classifier.", "classifier.out_proj."): v for k, v in old.items()},
    )
    message = r"lacks classifier.bias, classifier.weight \(2 in all\).*has classifier.out_proj.bias"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path, "cpu")
    edit_weights(tmp_path, lambda _: {**weights, "pool.weight": torch.ones(3)})
    with pytest.raises(ModelError, match=r"ForSequenceClassification does not use: pool.weight \("):
        load_model(tmp_path, "cpu")
    edit_weights(tmp_path, lambda _: weights)
    edit(tmp_path / "config.json", id2label={"0": "sad", "1": "angry"})
    with pytest.raises(ModelError, match=r"its head has 4 outputs, and the id2label .* 2 labels"):
        load_model(tmp_path, "cpu")
    edit(tmp_path / "config.json", id2label=dict(enumerate("abcd")), classifier_proj_size=3)
    with pytest.raises(ModelError, match=r"lacks classifier.weight, proj.* in another size"):
        load_model(tmp_path, "cpu", labels="model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "architecture is 'bert'; expected one of whisper, audio-spec"),
        ({"problem_type": "multi_label_classification"}, "problem_type is 'multi_label_class"),
        ({"problem_type": "regression"}, "problem_type is 'regression', with 4 outputs; expected"),
        ({"id2label": {"0": "anger"}}, "problem_type is None, with 1 outputs"),
        ({"id2label": {"1": "anger", "2": "sad"}}, r"indices \[1, 2\]; expected 0 to 1"),
        ({"hidden_act": "none-such"}, "cannot be loaded as an audio classifier .*none-such"),
        ({"hidden_size": "large"}, "cannot be loaded as an audio classifier .*hidden_size"),
        ({"quantization_config": {"quant_method": "fp8"}}, "its weights are quantised; expected"),
        ({"add_adapter": True}, "cannot be loaded as an audio classifier .*adapters"),
        ({"transformers_weights": "other.safetensors"}, "takes the weights from other.safetensors"),
        ({"pooling_mode": "max"}, "pooling_mode is 'max', a setting of code of its own"),
        (
            {"id2label": {"0": "Arousal", "1": "Valence"}},
            "its outputs arousal, valence are amounts",
        ),
        ({"id2label": {"0": "sad", "1": None}}, "its id2label has a label null"),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}},
            "classifier with its weights .*: it needs code of its own, which is never run",
        ),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_classifier("wav2vec2", tmp_path)
    edit(tmp_path / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path, "cpu")


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "hubert",
            {"sampling_rate": 8_000},
            "sampling_rate 8000; expected Wav2Vec",
        ),
        (
            "hubert",
            {"feature_extractor_type": "WhisperFeatureExtractor"},
            "Whisper.*; expected W",
        ),
        (WHISPER, {"chunk_length": 30}, "nb_max_frames 3000; expected .*nb_max_frames 200"),
        (WHISPER, {"feature_size": 80}, "feature_size 80, .*; expected .*feature_size 20"),
        (AST, {"max_length": 1024}, "max_length 1024; expected .*max_length 128"),
        ("hubert", {"feature_extractor_type": "x.Evil"}, "cannot be loaded as an audio classifier"),
    ],
)
def test_feature_extractors_that_do_not_fit(
    kind: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_classifier(kind, tmp_path)
    edit(tmp_path / "preprocessor_config.json", **changes)
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path, "cpu")


def test_weights_that_git_did_not_fetch(tmp_path: Path) -> None:
    save_classifier("hubert", tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(ModelError, match="only points to the weights; get them by `git lfs pull`"):
        load_model(tmp_path, "cpu")


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    save_classifier("hubert", tmp_path)
    (tmp_path / "preprocessor_config.json").rename(tmp_path / "other.json")
    with pytest.raises(
        ModelError, match=r"has no preprocessor_config.json, which describes how wav"
    ):
        load_model(tmp_path)
    (tmp_path / "other.json").rename(tmp_path / "preprocessor_config.json")
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot be loaded as an audio classifier with its w"):
        load_model(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"has no model.safetensors; .*pickles can run code"):
        load_model(tmp_path)


@pytest.mark.usefixtures("offline")
def test_weights_beside_an_adapter_are_not_taken_for_the_model(tmp_path: Path) -> None:
    save_classifier("hubert", tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    message = r"holds an adapter of peft \(adapter_config\.json\); merge it into the model"
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_base(str(tmp_path))


def test_weights_in_several_files(tmp_path: Path) -> None:
    save_classifier("hubert", tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / f"{WEIGHTS}.index.json").write_text("{}")
    with pytest.raises(ModelError, match="its weights are split over several files; expected mode"):
        load_model(tmp_path)


@pytest.mark.parametrize("kind", ["wav2vec2", "wavlm", AST])
def test_segments_that_are_too_short_for_its_windows(kind: str, tmp_path: Path) -> None:
    save_classifier(kind, tmp_path)
    model = load_model(tmp_path, "cpu")
    with pytest.raises(ConfigError, match=r"^a segment has 399 samples; expected 400 or more$"):
        model.predict_proba([waveforms()[0], waveforms()[0][:399]])
    assert np.isfinite(model.predict_proba([waveforms()[0][:400]])).all()


def test_a_mask_that_only_training_uses_may_be_missing(tmp_path: Path) -> None:
    save_classifier("wav2vec2", tmp_path)
    before = load_model(tmp_path, "cpu").predict_proba(waveforms())
    edit_weights(tmp_path, lambda w: {k: v for k, v in w.items() if "masked_spec" not in k})
    np.testing.assert_array_equal(load_model(tmp_path, "cpu").predict_proba(waveforms()), before)


def test_options_that_would_do_nothing(tmp_path: Path) -> None:
    save_classifier("hubert", tmp_path)
    for model in ("svm", str(tmp_path)):
        with pytest.raises(ConfigError, match=r"revision is 'v1', which goes with a model on the "):
            load_model(model, revision="v1")
    with pytest.raises(ConfigError, match=r"labels is 'model', which .*; expected ours, the defa"):
        load_model("svm", labels="model")
    assert load_model("svm", labels="ours").sha256 == load_model("svm").sha256


def test_a_model_folder_comes_before_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier("hubert", tmp_path / "svm")
    monkeypatch.chdir(tmp_path)
    assert load_model("svm").family == "svm"
    assert load_model("./svm", "cpu").family == "hub"


# The hub.


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub with one checkpoint, and no network."""
    repository = tmp_path / "cache" / "models--org--tiny"
    save_classifier("hubert", repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return repository


@pytest.mark.usefixtures("offline")
def test_without_a_network_the_cache_is_enough(cache: Path) -> None:
    expected = classify_alone(cache / "snapshots" / COMMIT, waveforms()[0])
    for revision in (None, "main", COMMIT):
        model = load_model("hub:org/tiny", "cpu", revision=revision, labels="model")
        assert (model.name, model.revision) == ("org/tiny", COMMIT)
        np.testing.assert_allclose(model.predict_proba(waveforms()[:1])[0], expected, atol=1e-4)
    message = r"hub:org/other: is not in the cache, and .*HF_HUB_OFFLINE is set. Download it once"
    with pytest.raises(ModelError, match=message):
        load_model("hub:org/other")
    message = r"is not in the cache at revision v2, and .*`hf download org/tiny --revision v2`"
    with pytest.raises(ModelError, match=message):
        load_model("hub:org/tiny", revision="v2")
    (cache / "snapshots" / COMMIT / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="hub:org/tiny: is not in the cache, and cannot be down"):
        load_model("hub:org/tiny")


def test_all_files_are_of_one_commit_and_none_is_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(name: str, file: str, revision: str | None) -> str:
        asked.append((name, file, revision))
        if file == "processor_config.json":
            raise error(errors.RemoteEntryNotFoundError)
        return str(tmp_path / COMMIT / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert fetch_checkpoint("tiny", "v1") == tmp_path / COMMIT
    assert asked == [
        ("tiny", "config.json", "v1"),
        ("tiny", "model.safetensors", COMMIT),
        ("tiny", "preprocessor_config.json", COMMIT),
        ("tiny", "processor_config.json", COMMIT),
    ]


def error(kind: type[errors.HfHubHTTPError]) -> Exception:
    return kind("404", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]


def unreachable() -> Exception:
    found = errors.LocalEntryNotFoundError("An error happened. Please check your connection.")
    found.__cause__ = ConnectionError("Connection refused")
    return found


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (error(errors.GatedRepoError), "org/x: is gated; accept its conditions on https://hugg"),
        (error(errors.RepositoryNotFoundError), "org/x: the hub has no such model, or it is priv"),
        (error(errors.RevisionNotFoundError), "org/x: has no revision v1; expected a commit"),
        (error(errors.RemoteEntryNotFoundError), "org/x: has no config.json; expected a check"),
        (unreachable(), "and cannot be downloaded: Connection refused. Download it once with a n"),
        (OSError("no route.\nto host"), "x: is not in the cache at .*: no route. Download it"),
        (TimeoutError(), "not in the cache at revision v1, and cannot be downloaded: TimeoutErr"),
    ],
)
def test_what_the_hub_refuses(
    raised: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as it may be where tests run
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ModelError, match=message):
        load_model("hub:org/x", revision="v1")


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "org/", "/tmp/x", "org/x@v1"])
def test_names_that_cannot_be_on_the_hub(name: str) -> None:
    with pytest.raises(
        ModelError, match="is not a name on the hub; expected hub:NAME or hub:ORG/NAM"
    ):
        load_model(f"hub:{name}")


# The command line.


def ser(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.mark.usefixtures("offline")
def test_annotate_with_a_folder(tmp_path: Path) -> None:
    save_classifier("wav2vec2", tmp_path / "mine", ("joy", "zest"))
    target = tmp_path / "labels.csv"
    speech = EXAMPLES / "statement.flac"
    common = ("annotate", speech, "--model", tmp_path / "mine", "-o", target, "--device", "cpu")
    result = ser(*common)
    assert result.exit_code == 2
    assert "its labels 'zest' are not in the table of labels" in result.stderr
    assert not target.exists()
    result = ser(*common, "--labels", "model")
    assert result.exit_code == 0, result.stderr
    notice = "Its training data are not known. Its confidences are not calibrated."
    assert result.stderr.splitlines()[0] == f"warning: mine: {notice}"
    rows = list(csv.DictReader(target.read_text(encoding="utf-8").splitlines()))
    assert {"prob_joy", "prob_zest"} < set(rows[0])
    (found,) = sercli.annotate(speech, load_model(tmp_path / "mine", "cpu", labels="model"))
    assert [float(row["prob_zest"]) for row in rows] == pytest.approx(
        [segment.probabilities[1] for segment in found.segments], abs=1e-6
    )
    record = json.loads((tmp_path / "labels.csv.run.json").read_text())
    assert record["model"]["name"] == "mine"
    assert record["model"]["labels"] == ["joy", "zest"]
    assert record["model"]["calibration"] == "none"
    assert record["model"]["revision"] is None
    assert len(record["model"]["sha256"]) == 64
    assert record["options"]["labels"] == "model"
    for option, message in (
        (("--revision", "v1"), "revision is 'v1', which goes with a model on the hub"),
        (("--model", "svm", "--labels", "model"), "labels is 'model', which goes with a classif"),
    ):
        result = ser(*common, *option, "--overwrite", "-q")
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    result = ser(*common, "--labels", "model", "--overwrite", "-q")
    assert (result.exit_code, result.stderr) == (0, "")


def test_the_default_labels_by_their_name(tmp_path: Path) -> None:
    common = ("annotate", EXAMPLES / "memo.m4a", "-m", "svm", "-o", tmp_path / "labels.csv")
    for options in ((), ("--labels", "ours", "--resume"), ("--resume",)):
        result = ser(*common, *options)
        assert result.exit_code == 0, result.stderr
    assert "1 kept from before" in result.stderr


@pytest.mark.usefixtures("offline")
def test_bench_takes_the_labels_that_it_advises(tmp_path: Path) -> None:
    save_classifier("wav2vec2", tmp_path / "mine", ("joy", "zest"))
    common = ("bench", EXAMPLES / "memo.m4a", "-m", tmp_path / "mine", "--device", "cpu", "-q")
    result = ser(*common)
    advice = "`--labels model` keeps them untranslated"
    assert (result.exit_code, advice in result.stderr) == (2, True), result.stderr
    result = ser(*common, "--labels", "model")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("mine, fp32, ")


@pytest.mark.usefixtures("offline")
def test_labels_of_a_model_are_measured_as_they_are_written(
    tmp_path: Path, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_classifier("wav2vec2", tmp_path / "mine", ("zest", "anger", "gloom"))
    table = tmp_path / "clips.csv"
    clips = [make_wav(f"{i}.wav", 0.5 + i / 4) for i in range(6)]
    emotions = ("sad", "happy", "angry")
    rows = [f"{clip},{emotions[i % 3]}" for i, clip in enumerate(clips)]
    table.write_text("\n".join(("file,emotion", *rows)), encoding="utf-8")
    common = ("eval", table, "-m", tmp_path / "mine", "--device", "cpu", "--jobs", "1")
    own = ("--labels", "model", "--map", "happy=zest,sad=gloom")
    result = ser(*common)
    assert (result.exit_code, "`--labels model` keeps them" in result.stderr) == (2, True)
    folder = tmp_path / "report"
    result = ser(*common, *own, "--json", "-o", folder)
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    model = load_model(tmp_path / "mine", "cpu", labels="model")
    expected = model.predict_proba([sercli.load_audio(clip) for clip in clips]).argmax(1)
    assert (figures["labels"], figures["n_segments"]) == (["zest", "anger", "gloom"], 6)
    assert figures["accuracy"] == np.mean(expected == [2, 0, 1, 2, 0, 1])
    assert figures["labels_left_out"] == {"model": [], "corpus": {}}
    assert json.loads((folder / "metrics.json").read_text()) == figures
    assert "Labels scored: zest, anger, gloom." in (folder / "report.md").read_text()
    # Without --map, nothing of the corpus is taken for one of them.
    result = ser(*common, "--labels", "model", "--json")
    assert json.loads(result.stdout)["labels_left_out"]["corpus"] == {"happiness": 2, "sadness": 2}
    # Beside a model that has ours alone.
    save_classifier("wav2vec2", tmp_path / "other", ("sadness", "zest", "anger"))
    monkeypatch.setattr("sercli.reporting.folder.write_report", lambda *_, **__: None)
    compare = ("eval", table, "--jobs", "1", "-q", "--json", "--labels", "model", "--compare")
    result = ser(*compare, "svm", tmp_path / "other")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["labels"] == ["anger", "sadness"]
    result = ser(*compare, "svm", "cnn")
    message = "labels is 'model', which goes with a classifier of Hugging Face"
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    result = ser(*compare, folder, folder)
    assert (result.exit_code, result.stdout) == (2, "")
    result = ser("eval", "--labels", "model", "--compare", folder, folder)
    assert "--labels: would do nothing, since reports are not" in result.stderr


@pytest.mark.usefixtures("cache", "offline")
def test_annotate_and_eval_from_the_hub(
    tmp_path: Path, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "labels.json"
    hub = ("--model", "hub:org/tiny", "--revision", "main", "--device", "cpu")
    result = ser("annotate", EXAMPLES / "statement.flac", *hub, "-o", target)
    assert result.exit_code == 0, result.stderr
    model = json.loads(target.read_text())["model"]
    assert (model["name"], model["revision"]) == ("org/tiny", COMMIT)
    assert model["labels"] == ["anger", "happiness", "neutral", "sadness"]

    table = tmp_path / "clips.csv"
    rows = [f"{make_wav(f'{i}.wav', 0.5 + i / 4)},{('sad', 'angry')[i % 2]}" for i in range(4)]
    table.write_text("\n".join(("file,emotion", *rows)), encoding="utf-8")
    result = ser("eval", table, *hub, "--json", "--jobs", "1", "-q")
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    assert (figures["model"], figures["sha256"]) == ("org/tiny", model["sha256"])
    assert (figures["labels"], figures["n_segments"]) == (["anger", "sadness"], 4)
    assert figures["protocol"] == "speakers unknown"
    assert "has no record of its training data" in figures["warnings"][0]
    assert "Its confidences are not calibrated." in figures["warnings"]
    result = ser("eval", table, *hub, "--strict", "--jobs", "1")
    assert (result.exit_code, "has no record of its training data" in result.stderr) == (2, True)

    # Plots take longer than all else.
    monkeypatch.setattr("sercli.reporting.folder.write_report", lambda *_, **__: None)
    report = tmp_path / "both"
    compare = ("eval", table, *hub, "--compare", "svm", "-o", report, "--jobs", "1", "-q")
    assert ser(*compare).exit_code == 0
    assert (report / "tiny" / "metrics.json").is_file()
    for options, message in (
        (("--compare", "svm", "hub:org/tiny"), "--revision goes with --model hub:NAME"),
        ((), "--revision goes with --model hub:NAME"),
        (("--model", "svm"), "revision is 'main', which goes with a model on the hub"),
    ):
        result = ser("eval", table, *options, "--revision", "main")
        assert (result.exit_code, message in result.stderr) == (2, True), options
