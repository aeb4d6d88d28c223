"""Published classifiers of Hugging Face, each with its own head.

The checkpoint's own feature extractor is applied to each segment separately, so that the result is
the same as that of `transformers` for the segment alone.
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
from sercli.audio import SAMPLE_RATE
from sercli.errors import ConfigError, ModelError
from sercli.neural.bases import LOCAL, MASK_EMBEDDING, Weights, loading, read_config, read_weights
from sercli.neural.batching import pad
from sercli.neural.hub import HUB_WEIGHTS_FILE, PREPROCESSOR_FILES
from sercli.neural.published_encoders import WaveformStates
from sercli.neural.speech_encoder import AST, WHISPER, flatten

# Frames of an audio spectrogram transformer: 25 ms every 10 ms.
WIN_LENGTH, HOP_LENGTH = 400, 160
# Begins what git leaves in the place of a large file that was not fetched.
LFS_POINTER = b"version https://git-lfs"
# Names of outputs that are amounts, and not labels of which one is chosen.
AMOUNTS = frozenset(("arousal", "activation", "valence", "dominance"))


class PublishedNetwork(nn.Module, ABC):
    """A network and its head as they were published.

    Parameters
    ----------
    model
        Model of `transformers`.
    extractor
        Feature extractor, from a waveform to the model's input.
    n_samples
        Number of samples to which every segment is padded or cut; None if the input is the whole
        segment without padding.
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
            One or more segments at 16 kHz, each of shape (n_samples,).
        """

    def _extract(self, waveform: FloatArray) -> FloatArray:
        name = self.extractor.model_input_names[0]
        # Whisper's extractor pads.
        is_padded = isinstance(self.extractor, WhisperFeatureExtractor)
        if len(waveform) < WIN_LENGTH and not is_padded:
            raise ConfigError(
                f"a segment has {len(waveform)} samples; expected {WIN_LENGTH} or more"
            )
        # Some extractors use matrix products of PyTorch, and fail on the results of autocast.
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            found = self.extractor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="np")[name]
        return np.asarray(found[0], np.float32)


class WaveformNetwork(PublishedNetwork):
    """wav2vec 2.0 or a relative, the mean of its projected frames, and a linear layer.

    Its output depends on the frames of a segment alone, not on padding or the rest of the batch.

    Parameters
    ----------
    model
        Model such as `transformers.Wav2Vec2ForSequenceClassification`.
    extractor
        Feature extractor, which standardises waveforms or leaves them unchanged.
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
        output, mask = self.encoder.run(*(part.to(device) for part in batch))
        if self.layer_weights is None:
            (frames,), spans = flatten((output.last_hidden_state,), mask)
        else:
            states, spans = flatten(output.hidden_states, mask)
            shares = self.layer_weights.softmax(dim=0)
            frames = torch.einsum("l,lrc->rc", shares, torch.stack(states))
        projected = self.projector(frames)
        means = torch.stack([projected[span].mean(dim=0) for span in spans])
        logits: Tensor = self.classifier(means)
        return logits


class FixedNetwork(PublishedNetwork):
    """Whisper's encoder or an audio spectrogram transformer, with the input length of its training.

    Both were trained on padded segments (Whisper to 30 s, a spectrogram transformer to its
    ``max_length`` frames, mostly 10.2 s), and the input of their heads includes the padding:
    without it, the probabilities would differ. Longer segments are cut to their beginning.

    Parameters
    ----------
    model
        Model such as `transformers.WhisperForAudioClassification`.
    extractor
        Feature extractor, which computes frames.
    n_samples
        Number of samples that the frames cover.
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
    """Load a classifier of Hugging Face from a folder, without any network connection.

    Parameters
    ----------
    folder
        Folder with ``config.json``, ``model.safetensors`` and one of `PREPROCESSOR_FILES`.

    Returns
    -------
    PublishedNetwork
        The network in float32, whatever type it was saved in.

    Raises
    ------
    ModelError
        If files or weights are missing or do not fit each other, its architecture is unknown, it is
        not a single-label classifier, or its sample rate is not 16 kHz.
    """
    source = str(folder)
    _check_files(folder)
    with loading(source, "an audio classifier with its weights as safetensors"):
        config = read_config(source, LOCAL)
        _check_task(source, config)
        weights = read_weights(source, config, LOCAL)
        _check_weights(source, weights)
        extractor = AutoFeatureExtractor.from_pretrained(source, **LOCAL)  # type: ignore[no-untyped-call]
    return _join(source, weights.model, extractor)


def _check_files(folder: Path) -> None:
    is_there = (folder / HUB_WEIGHTS_FILE).is_file()
    if not is_there and (folder / f"{HUB_WEIGHTS_FILE}.index.json").is_file():
        raise ModelError(
            f"{folder}: its weights are split over several files; expected {HUB_WEIGHTS_FILE}, as "
            "transformers saves it with a larger max_shard_size"
        )
    if is_there:
        with (folder / HUB_WEIGHTS_FILE).open("rb") as file:
            if file.read(len(LFS_POINTER)) == LFS_POINTER:
                raise ModelError(
                    f"{folder}: its {HUB_WEIGHTS_FILE} only points to the weights; get them by "
                    "`git lfs pull`"
                )
    else:
        raise ModelError(
            f"{folder}: has no {HUB_WEIGHTS_FILE}; expected the weights as safetensors in this one "
            "file, since pickles can run code. On the hub, look for a revision that has it, such "
            "as refs/pr/1"
        )
    if not any((folder / name).is_file() for name in PREPROCESSOR_FILES):
        raise ModelError(
            f"{folder}: has no {PREPROCESSOR_FILES[0]}, which describes how waveforms are "
            "prepared for the network; copy that of the encoder that it was made from"
        )


def _check_task(source: str, config: Any) -> None:
    problem, indices = config.problem_type, sorted(config.id2label or {})
    n_labels = len(indices)
    if problem not in (None, "single_label_classification") or n_labels < 2:
        raise ModelError(
            f"{source}: its problem_type is {problem!r}, with {n_labels} outputs; expected a "
            "classifier that chooses one of two or more labels"
        )
    if None in config.id2label.values():
        raise ModelError(f"{source}: its id2label has a label null; expected a name for each")
    labels = {str(label).lower() for label in config.id2label.values()}
    if amounts := sorted(AMOUNTS & labels):
        raise ModelError(
            f"{source}: its outputs {', '.join(amounts)} are amounts; expected a classifier that "
            "chooses one of two or more labels"
        )
    if (pooling := getattr(config, "pooling_mode", "mean")) != "mean":
        raise ModelError(
            f"{source}: its pooling_mode is {pooling!r}, a setting of code of its own, which is "
            "never run; expected a classifier of transformers, which takes the mean"
        )
    if indices != list(range(n_labels)):
        raise ModelError(
            f"{source}: its id2label has the indices {indices}; expected 0 to {n_labels - 1}"
        )


def _check_weights(source: str, weights: Weights) -> None:
    """Raise if weights are missing, or unknown ones suggest a different head."""
    model, config = weights.model, weights.model.config
    missing = [name for name in weights.missing if not name.endswith(MASK_EMBEDDING)]
    unexpected = [name for name in weights.unexpected if not name.endswith(MASK_EMBEDDING)]
    for own, expected in weights.sizes.values():
        if expected[0] == config.num_labels != own[0] and own[1:] == expected[1:]:
            raise ModelError(
                f"{source}: its head has {own[0]} outputs, and the id2label of its config.json "
                f"{expected[0]} labels; expected a label for each output"
            )
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
    """Return a network with its feature extractor; raise if they do not fit."""
    config: Any = model.config
    kind: type
    wanted = {"sampling_rate": SAMPLE_RATE}
    if config.model_type == WHISPER:
        kind = WhisperFeatureExtractor
        # The second convolution halves the number of frames.
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
        extractor.dither = 0.0  # makes the frames of a segment reproducible
        return FixedNetwork(model, extractor, extractor.n_samples)
    if isinstance(extractor, ASTFeatureExtractor):
        n_samples = (extractor.max_length - 1) * HOP_LENGTH + WIN_LENGTH
        return FixedNetwork(model, extractor, n_samples)
    return WaveformNetwork(model, extractor)


def _spell(kind: type, settings: dict[str, Any]) -> str:
    values = ", ".join(f"{name} {value!r}" for name, value in settings.items())
    return f"{kind.__name__} with {values}"
