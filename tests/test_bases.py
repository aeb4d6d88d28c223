"""Pre-trained encoders from folders: settings and weights, and nothing that runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import save_checkpoint
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from sercli.errors import ModelError
from sercli.neural.bases import load_base
from sercli.neural.batching import pad
from sercli.neural.encoders import create_encoder
from sercli.neural.speech_encoder import ARCHITECTURES

WEIGHTS = "model.safetensors"


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_encoder_is_that_of_its_checkpoint(kind: str, tmp_path: Path) -> None:
    model = save_checkpoint(kind, tmp_path / "tiny")
    base = load_base(str(tmp_path / "tiny"))
    assert base.name == "tiny"
    assert json.loads(json.dumps(base.settings)) == base.settings
    # Nothing that the checkpoint leaves to its defaults, or cached rows would not be found.
    told = json.loads((tmp_path / "tiny" / "config.json").read_text("utf-8"))
    assert base.settings.keys() - {"mean", "deviation"} <= told.keys()
    encoder = create_encoder(base.settings)
    encoder.model.load_state_dict(base.weights)
    expected = model.encoder if kind == "whisper" else model.base_model
    for name, tensor in expected.state_dict().items():
        assert encoder.model.state_dict()[name].equal(tensor)
    waveform = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    with torch.inference_mode():
        states, _ = encoder.eval()(*pad([waveform]))
    assert torch.stack(states).isfinite().all()
    if kind == "audio-spectrogram-transformer":
        assert (base.settings["mean"], base.settings["deviation"]) == (-4.0, 3.0)


def test_preprocessing_that_the_hub_lacks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    save_checkpoint("audio-spectrogram-transformer", repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_base("org/tiny").settings["mean"] == -4.0
    (repository / "snapshots" / commit / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="org/tiny: cannot be loaded as a pre-trained encoder"):
        load_base("org/tiny")


def test_encoders_of_another_sample_rate_are_refused(tmp_path: Path) -> None:
    save_checkpoint("hubert", tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text('{"sampling_rate": 8000}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"has the sampling_rate 8000; expected 16000, since"):
        load_base(str(tmp_path))
    path.write_text('{"sampling_rate": 16000}', encoding="utf-8")
    expected = load_base(str(tmp_path)).digest
    path.unlink()
    assert load_base(str(tmp_path)).digest == expected


def test_digest_tells_weights_apart(tmp_path: Path) -> None:
    save_checkpoint("wav2vec2", tmp_path / "one")
    save_checkpoint("wav2vec2", tmp_path / "same")
    weights = load_file(tmp_path / "one" / WEIGHTS)
    first = load_base(str(tmp_path / "one"))
    assert load_base(str(tmp_path / "same")).digest == first.digest
    name = next(name for name in weights if "encoder.layers.1" in name)
    weights[name][..., 0] += 1e-3
    save_file(weights, tmp_path / "same" / WEIGHTS, {"format": "pt"})
    assert load_base(str(tmp_path / "same")).digest != first.digest


def test_weights_that_are_missing_are_told(tmp_path: Path) -> None:
    save_checkpoint("hubert", tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    name = next(name for name in weights if "encoder.layers.1.attention.q_proj.weight" in name)
    save_file({k: v for k, v in weights.items() if k != name}, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights of its encoder: .*q_proj.*\(1 in all\)"):
        load_base(str(tmp_path))


def test_the_mask_of_pre_training_is_not_needed(tmp_path: Path) -> None:
    save_checkpoint("wav2vec2", tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    (name,) = (name for name in weights if name.endswith("masked_spec_embed"))
    kept = {k: v for k, v in weights.items() if k != name}
    save_file(kept, tmp_path / WEIGHTS, {"format": "pt"})
    base = load_base(str(tmp_path))
    assert not base.weights["masked_spec_embed"].any()
    assert load_base(str(tmp_path)).digest == base.digest  # nothing in it is random


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    save_checkpoint("hubert", tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    name = next(name for name in weights if "encoder.layers.1.attention.q_proj.weight" in name)
    weights[name][0, 0] = torch.nan
    save_file(weights, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(ModelError, match=r"its weights encoder.layers.1.*q_proj.weight are not"):
        load_base(str(tmp_path))


@pytest.mark.parametrize(
    "changed",
    [
        {"add_adapter": True, "output_hidden_size": 8},  # comes after the last layer
        {"return_dict": False},
    ],
)
def test_settings_that_do_not_concern_the_states(changed: dict[str, Any], tmp_path: Path) -> None:
    save_checkpoint("wav2vec2", tmp_path)
    plain = load_base(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text("utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | changed), encoding="utf-8")
    base = load_base(str(tmp_path))
    assert base.weights.keys() == plain.weights.keys()
    waveform = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    found = []
    for one in (plain, base):
        encoder = create_encoder(one.settings).eval()
        encoder.model.load_state_dict(one.weights)
        with torch.inference_mode():
            found.append(torch.stack(encoder(*pad([waveform]))[0]))
    assert found[0].equal(found[1])


def test_heads_are_not_needed(tmp_path: Path) -> None:
    save_checkpoint("wavlm", tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    kept = {k: v for k, v in weights.items() if not k.startswith(("classifier", "projector"))}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / WEIGHTS, {"format": "pt"})
    assert load_base(str(tmp_path)).settings["model_type"] == "wavlm"


def test_pickles_and_other_architectures_are_refused(tmp_path: Path) -> None:
    save_checkpoint("hubert", tmp_path)
    torch.save(load_file(tmp_path / WEIGHTS), tmp_path / "pytorch_model.bin")
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="cannot be loaded as a pre-trained encoder with its w"):
        load_base(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    with pytest.raises(ModelError, match="architecture is 'bert'; expected one of whisper"):
        load_base(str(tmp_path))
    for name in (str(tmp_path / "none-such"), "./none-such", "a/b/c"):
        with pytest.raises(ModelError, match=": no such folder; expected one with config"):
            load_base(name)


def test_names_are_looked_up_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def ask(name: str, **told: Any) -> None:
        asked.append((name, told))
        raise OSError("no network\nand so on")

    monkeypatch.setattr("sercli.neural.bases.AutoConfig.from_pretrained", ask)
    with pytest.raises(ModelError, match=r"whisper-base: cannot be loaded .*: no network$"):
        load_base("openai/whisper-base", "abc123")
    told = {"trust_remote_code": False, "revision": "abc123"}
    assert asked == [("openai/whisper-base", told)]
