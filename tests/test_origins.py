"""Encoders to begin with: checkpoints, and those of models that were trained here."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from checkpoints import save_checkpoint

from sercli.calibration import Calibration
from sercli.classifiers.base import ModelSpec
from sercli.classifiers.transformer import TransformerClassifier
from sercli.datasets import Clip
from sercli.errors import ConfigError, ModelError
from sercli.evaluation.leaks import TrainingManifest
from sercli.neural.bases import load_base
from sercli.neural.transformer import Transformer, TransformerSettings
from sercli.registry.catalogue import shipped_folder
from sercli.registry.description import MANIFEST_FILE
from sercli.registry.store import save_model
from sercli.training.config import TransformerConfig
from sercli.training.networks.trainer import NeuralTrainer
from sercli.training.networks.transformer import TransformerCourse
from sercli.training.origins import find_origin

LABELS = ("anger", "fear")


def make_clip(path: Path, speaker: str) -> Clip:
    return Clip(path / f"{speaker}.wav", "fear", speaker, name=speaker, corpus="plays")


def save_transformer(kind: str, folder: Path, band_limit: float) -> TransformerClassifier:
    """Write a model of random weights that was trained on ann."""
    save_checkpoint(kind, folder / "checkpoint")
    base = load_base(str(folder / "checkpoint"))
    settings = TransformerSettings(base.settings, band_limit)
    torch.manual_seed(2)
    network = Transformer(settings, len(LABELS))
    network.encoder.model.load_state_dict(base.weights)
    calibration = Calibration("none", np.eye(2), np.zeros(2))
    spec = ModelSpec("transformer", LABELS, 16_000, band_limit, calibration, asdict(settings))
    manifest = TrainingManifest.from_clips([make_clip(folder, "ann")], ["a" * 16])
    spec = replace(spec, training={"manifest_sha256": manifest.digest()})
    model = TransformerClassifier(spec, network, "cpu")
    save_model(model, folder / "mine")
    (folder / "mine" / MANIFEST_FILE).write_bytes(manifest.encode())
    return model


@pytest.mark.parametrize(
    ("kind", "band_limit"), [("whisper", 3_000.0), ("wav2vec2", 8_000.0), ("wavlm", 8_000.0)]
)
def test_encoder_of_a_model_goes_on(kind: str, band_limit: float, tmp_path: Path) -> None:
    model = save_transformer(kind, tmp_path, band_limit)
    origin = find_origin(str(tmp_path / "mine"))
    assert (origin.base.name, origin.limit) == ("mine", band_limit)
    assert origin.manifest.rows[0][0] == "a" * 16
    config = TransformerConfig(device="cpu", jobs=1)
    course = TransformerCourse(
        config, LABELS, base=origin.base, limit=origin.limit, rows=tmp_path / "rows"
    )
    assert course.band_limit == band_limit
    # Its hidden states are those of the model, whose weights were rounded to 16 bits.
    waveform = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 16_000))).float()
    received = (waveform, torch.tensor([16_000]))
    with torch.inference_mode():
        encoders = course._network.encoder, model.network.encoder
        found, expected = (torch.stack(encoder(*received)[0]) for encoder in encoders)
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    assert not found.equal(expected)
    assert find_origin(str(tmp_path / "mine")).base.digest == origin.base.digest


def test_a_checkpoint_has_no_past(tmp_path: Path) -> None:
    save_checkpoint("whisper", tmp_path)
    origin = find_origin(str(tmp_path))
    assert (origin.base.name, origin.limit, origin.manifest.rows) == (tmp_path.name, None, ())
    assert origin.base.digest == load_base(str(tmp_path)).digest


def test_models_that_cannot_be_gone_on_with(tmp_path: Path) -> None:
    save_transformer("whisper", tmp_path, 4_000.0)
    mine = tmp_path / "mine"
    with pytest.raises(ModelError, match=r"is a model of the family cnn; expected a transformer"):
        find_origin(str(shipped_folder() / "cnn" / "calm"))
    (mine / "manifest.csv").rename(tmp_path / "manifest.csv")
    with pytest.raises(ModelError, match=r"mine: has no manifest of its training data"):
        find_origin(str(mine))
    (tmp_path / "manifest.csv").rename(mine / "manifest.csv")
    weights = mine / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match=r"encoder\.safetensors is altered or damaged"):
        find_origin(str(mine))


def test_what_an_encoder_knows_is_known_of_its_models(tmp_path: Path) -> None:
    save_transformer("whisper", tmp_path, 4_000.0)
    origin = find_origin(str(tmp_path / "mine"))
    clips = [make_clip(tmp_path, speaker) for speaker in ("ann", "bob", "cid")]
    for index, clip in enumerate(clips):
        sf.write(clip.path, np.random.default_rng(index).normal(0, 0.1, 8_000), 16_000)
    course = TransformerCourse(
        TransformerConfig(device="cpu", jobs=1),
        base=origin.base,
        before=origin.manifest,
        rows=tmp_path / "rows",
    )
    trainer = NeuralTrainer(course, cache=tmp_path / "cache")
    trainer.check_held_out(clips[1:])
    (apart,) = trainer.prepare([clips[1:]])
    manifest = trainer.make_manifest(apart)
    assert manifest.find_speakers(clips) == ["plays/ann", "plays/bob", "plays/cid"]
    assert manifest.count_clips(["a" * 16, *apart.hashes]) == 3
    message = r"the base was trained on 1 of the speakers to be scored, such as plays/ann"
    with pytest.raises(ConfigError, match=message):
        trainer.check_held_out(clips)
    # Whoever is learned from is scored, too, where there are no development clips.
    with pytest.raises(ConfigError, match=message):
        trainer.prepare([clips])
    assert len(trainer.prepare([clips[:1], clips[1:]])) == 2
    fresh = replace(trainer, course=replace(course, before=TrainingManifest()))
    assert fresh.make_manifest(apart).find_speakers(clips) == ["plays/bob", "plays/cid"]
