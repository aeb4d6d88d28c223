"""Classifiers of Hugging Face as they are, each with the head that it came with.

What a segment becomes before a network hears it is left to the checkpoint's own feature extractor,
on each segment by itself, so that the result is that of `transformers` for the segment alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
)

from sercli.arrays import FloatArray
from sercli.errors import ModelError
from sercli.neural.bases import LOCAL, loading, read_config, read_weights
from sercli.neural.batching import pad
from sercli.neural.hub import PREPROCESSOR_FILES, WEIGHTS_FILE
from sercli.neural.mel import SAMPLE_RATE
from sercli.neural.published_encoders import WaveformStates
from sercli.neural.speech_encoder import AST, WHISPER

# Of an audio spectrogram transformer: 25 ms every 10 ms.
WIN_LENGTH, HOP_LENGTH = 400, 160
# Of all checkpoints, but for masks of training that a checkpoint may have kept.
_UNUSED = "masked_spec_embed"


class PublishedNetwork(nn.Module, ABC):
    """A network and its head as they were published.

    Parameters
    ----------
    model
        Of `transformers`.
    extractor
        From a waveform to its input.
    n_samples
        To which every segment is padded or cut; None: it hears the whole segment, and no padding.
    """

    def __init__(self, model: Any, extractor: Any, n_samples: int | None = None) -> None:
        super().__init__()
        self.config: Any = model.config
        self.extractor = extractor
        self.n_samples = n_samples

    @abstractmethod
    def forward(self, waveforms: Sequence[FloatArray]) -> Tensor:
        """Return logits, shape (n_segments, n_labels).

        Parameters
        ----------
        waveforms
            One or more, at 16 kHz, each of shape (n_samples,).
        """

    def _extract(self, waveform: FloatArray) -> FloatArray:
        name = self.extractor.model_input_names[0]
        # Some of them multiply by PyTorch, and fail on what autocast makes of that.
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            found = self.extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="np")[name]
        return np.asarray(found[0], np.float32)


class WaveformNetwork(PublishedNetwork):
    """wav2vec 2.0 or a relative, the mean of its projected frames, and a linear layer.

    It hears the frames of a segment and nothing else, whatever else is in the batch.

    Parameters
    ----------
    model
        Such as `transformers.Wav2Vec2ForSequenceClassification`.
    extractor
        Standardises waveforms, or leaves them as they are.
    """

    def __init__(self, model: Any, extractor: Wav2Vec2FeatureExtractor) -> None:
        super().__init__(model, extractor)
        self.encoder = WaveformStates(model.base_model, standardise=False)
        self.layer_weights: Tensor | None = getattr(model, "layer_weights", None)
        self.projector, self.classifier = model.projector, model.classifier

    def forward(self, waveforms: Sequence[FloatArray]) -> Tensor:
        """Return logits; see `PublishedNetwork.forward`."""
        batch = pad([self._extract(waveform) for waveform in waveforms])
        device = self.classifier.weight.device
        states, spans = self.encoder(*(part.to(device) for part in batch))
        if self.layer_weights is None:
            frames = states[-1]
        else:
            shares = self.layer_weights.softmax(dim=0)
            frames = torch.einsum("l,lrc->rc", shares, torch.stack(states))
        projected = self.projector(frames)
        means = torch.stack([projected[span].mean(dim=0) for span in spans])
        logits: Tensor = self.classifier(means)
        return logits


class FixedNetwork(PublishedNetwork):
    """Whisper's encoder or an audio spectrogram transformer, on input of the length it learned on.

    Both learned on segments that were padded (Whisper to 30 s, a spectrogram transformer to its
    ``max_length`` frames, mostly 10.2 s), and their heads see the mean over padding, too: without
    it, their probabilities would be others. Of a longer segment, they hear the beginning.

    Parameters
    ----------
    model
        Such as `transformers.WhisperForAudioClassification`.
    extractor
        Makes frames.
    n_samples
        That the frames cover.
    """

    def __init__(self, model: Any, extractor: Any, n_samples: int) -> None:
        super().__init__(model, extractor, n_samples)
        self.model = model

    def forward(self, waveforms: Sequence[FloatArray]) -> Tensor:
        """Return logits; see `PublishedNetwork.forward`."""
        frames = np.stack([self._extract(waveform) for waveform in waveforms])
        logits: Tensor = self.model(torch.from_numpy(frames).to(self.model.device)).logits
        return logits


def load_published(folder: Path) -> PublishedNetwork:
    """Load a classifier of Hugging Face; the network is never asked.

    Parameters
    ----------
    folder
        Holds ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``.

    Returns
    -------
    PublishedNetwork
        In float32, whatever it was saved in.

    Raises
    ------
    ModelError
        If files or weights are missing or do not fit each other, its architecture is unknown, it
        does not tell one label of several, or it takes audio of another sample rate.
    """
    source = str(folder)
    _check_files(folder)
    with loading(source, "an audio classifier with its weights as safetensors"):
        config = read_config(source, LOCAL)
        _check_task(source, config)
        model, missing, unexpected = read_weights(source, config, LOCAL)
        _check_weights(source, model, missing, unexpected)
        extractor = AutoFeatureExtractor.from_pretrained(source, **LOCAL)  # type: ignore[no-untyped-call]
    return _join(source, model, extractor)


def _check_files(folder: Path) -> None:
    if not (folder / WEIGHTS_FILE).is_file():
        raise ModelError(
            f"{folder}: has no {WEIGHTS_FILE}; expected the weights as safetensors in this one "
            "file, since pickles can run code. On the hub, look for a revision that has it, such "
            "as refs/pr/1"
        )
    if not any((folder / name).is_file() for name in PREPROCESSOR_FILES):
        raise ModelError(
            f"{folder}: has no {PREPROCESSOR_FILES[0]}, which says what a waveform becomes before "
            "the network; copy that of the encoder that it was made of"
        )


def _check_task(source: str, config: Any) -> None:
    problem, indices = config.problem_type, sorted(config.id2label or {})
    n_labels = len(indices)
    if problem not in (None, "single_label_classification") or n_labels < 2:
        raise ModelError(
            f"{source}: its problem_type is {problem!r}, with {n_labels} outputs; expected a "
            "classifier that tells one label of two or more"
        )
    if indices != list(range(n_labels)):
        raise ModelError(
            f"{source}: its id2label has the indices {indices}; expected 0 to {n_labels - 1}"
        )


def _check_weights(source: str, model: Any, missing: list[str], unexpected: list[str]) -> None:
    """Refuse what would be random, and a head that computes something else than this one."""
    unexpected = [name for name in unexpected if not name.endswith(_UNUSED)]
    if missing:
        others = f"; it has {', '.join(unexpected[:3])} instead" if unexpected else ""
        raise ModelError(
            f"{source}: lacks {', '.join(missing[:3])} ({len(missing)} in all), or has them in "
            f"another size{others}. Expected all weights of transformers' {type(model).__name__}; "
            "an encoder without a head is for `ser train --base`"
        )
    if unexpected:
        raise ModelError(
            f"{source}: has weights that transformers' {type(model).__name__} does not use: "
            f"{', '.join(unexpected[:3])} ({len(unexpected)} in all); expected none, since its "
            "head may be another"
        )


def _join(source: str, model: Any, extractor: Any) -> PublishedNetwork:
    """Put a feature extractor before a network, if they fit."""
    config: Any = model.config
    kind: type
    wanted = {"sampling_rate": SAMPLE_RATE}
    if config.model_type == WHISPER:
        kind = WhisperFeatureExtractor
        # The second convolution halves the frames.
        n_frames = 2 * config.max_source_positions
        wanted |= {"feature_size": config.num_mel_bins, "nb_max_frames": n_frames}
    elif config.model_type == AST:
        kind = ASTFeatureExtractor
        wanted |= {"num_mel_bins": config.num_mel_bins, "max_length": config.max_length}
    else:
        kind = Wav2Vec2FeatureExtractor
    found = {name: getattr(extractor, name, None) for name in wanted}
    if not isinstance(extractor, kind) or found != wanted:
        raise ModelError(
            f"{source}: its {PREPROCESSOR_FILES[0]} describes {_spell(type(extractor), found)}; "
            f"expected {_spell(kind, wanted)}"
        )
    if isinstance(extractor, WhisperFeatureExtractor):
        extractor.dither = 0.0  # the same segment is to have the same frames
        return FixedNetwork(model, extractor, extractor.n_samples)
    if isinstance(extractor, ASTFeatureExtractor):
        n_samples = (extractor.max_length - 1) * HOP_LENGTH + WIN_LENGTH
        return FixedNetwork(model, extractor, n_samples)
    return WaveformNetwork(model, extractor)


def _spell(kind: type, settings: dict[str, Any]) -> str:
    values = ", ".join(f"{name} {value}" for name, value in settings.items())
    return f"{kind.__name__} with {values}"
