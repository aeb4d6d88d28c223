"""Tiny checkpoints of random weights, one of each architecture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    ASTFeatureExtractor,
    AutoConfig,
    AutoModelForAudioClassification,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

CONV = {
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (5, 8, 4),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
TINY: dict[str, dict[str, Any]] = {
    "whisper": {
        "d_model": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "num_mel_bins": 20,
    },
    "audio-spectrogram-transformer": {**SIZES, "num_mel_bins": 36, "max_length": 128},
    **{kind: {**SIZES, **CONV} for kind in ("wav2vec2", "hubert", "wavlm", "unispeech-sat")},
    "data2vec-audio": {**SIZES, **CONV, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 5},
}


def save_checkpoint(kind: str, folder: Path, **settings: Any) -> Any:
    """Write a tiny checkpoint of random weights, as `transformers` does."""
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **{**TINY[kind], **settings})
    model = AutoModelForAudioClassification.from_config(config)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    facts = {"mean": -4.0, "std": 3.0}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts), encoding="utf-8")
    return model


# What makes the input of a tiny classifier.
EXTRACTORS: dict[str, Any] = {
    "whisper": WhisperFeatureExtractor,
    "audio-spectrogram-transformer": ASTFeatureExtractor,
}
EXTRACTOR_SETTINGS: dict[str, dict[str, Any]] = {
    "whisper": {"feature_size": 20, "chunk_length": 2},
    "audio-spectrogram-transformer": {
        "num_mel_bins": 36,
        "max_length": 128,
        "mean": -4.0,
        "std": 3.0,
    },
}


def save_classifier(
    kind: str,
    folder: Path,
    labels: Sequence[str] = ("neu", "hap", "ang", "sad"),
    extractor: Mapping[str, Any] | None = None,
    **settings: Any,
) -> None:
    """Write a tiny classifier as on the hub; its probabilities differ from noise to noise."""
    if kind == "whisper":
        settings = {"max_source_positions": 100, **settings}
    names = dict(enumerate(labels))
    model = save_checkpoint(kind, folder, id2label=names, label2id={}, **settings).eval()
    chosen = {**EXTRACTOR_SETTINGS.get(kind, {}), **(extractor or {})}
    prepare = EXTRACTORS.get(kind, Wav2Vec2FeatureExtractor)(**chosen)
    prepare.save_pretrained(folder)
    rng = np.random.default_rng(3)
    inputs = [
        prepare(
            np.convolve(rng.normal(0, 0.1, 16_000), np.ones(width), "same").astype(np.float32),
            sampling_rate=16_000,
            return_tensors="pt",
        )
        for width in (1, 2, 4, 8, 16)
    ]
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            # What transformers draws is so small, or so even, that hardly anything would be heard.
            if tensor.ndim == 2 and "position" not in name:
                tensor *= 8
            elif tensor.is_floating_point() and not name.endswith("running_var"):
                tensor += 0.1 * torch.randn(tensor.shape)
        logits = torch.cat([model(**given).logits for given in inputs])
        last = getattr(model.classifier, "dense", model.classifier)
        scale = 2 / logits.std(dim=0)
        last.weight *= scale[:, None]
        last.bias.copy_((last.bias - logits.mean(dim=0)) * scale)
    model.save_pretrained(folder)
