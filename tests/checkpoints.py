"""Tiny checkpoints of random weights, one of each architecture."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForAudioClassification

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
