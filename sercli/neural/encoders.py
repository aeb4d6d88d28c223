"""Pre-trained speech encoders: from waveforms to the hidden states of all their layers.

An encoder runs on the frames that are there. What it was trained with, padding to 30 s or
statistics over padding, is replaced by masks, so that a segment has the same states alone and in
any batch.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, PreTrainedConfig, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from sercli.errors import ConfigError, ModelError
from sercli.neural.mel import NYQUIST, KaldiMel, WhisperMel
from sercli.neural.pooling import TINY

WHISPER, AST = "whisper", "audio-spectrogram-transformer"
WAVEFORM = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech-sat")
ARCHITECTURES = (WHISPER, AST, *WAVEFORM)


class SpeechEncoder(nn.Module, ABC):
    """From waveforms to hidden states; see `create_encoder` for the architectures.

    Parameters
    ----------
    model
        Of `transformers`.

    Attributes
    ----------
    n_states
        The frames that enter the first layer, and what each layer makes of them.
    n_channels
        Of each frame.
    """

    # What is in it is known to transformers, not to the type checker.
    model: Any

    def __init__(self, model: nn.Module, n_states: int, n_channels: int) -> None:
        super().__init__()
        self.model = model
        self.n_states = n_states
        self.n_channels = n_channels

    @abstractmethod
    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states and which of their frames are of the segment.

        Parameters
        ----------
        waveforms
            At 16 kHz, zero after the end of each segment, shape (n_segments, n_samples).
        lengths
            Samples of each segment, shape (n_segments,).

        Returns
        -------
        states : Tensor, shape (n_states, n_segments, n_frames, n_channels)
            Of any value after the end of a segment.
        mask : Tensor of bool, shape (n_segments, n_frames)
            True for frames of the segment.
        """

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """Those of the transformer, from the input up."""


class WhisperStates(SpeechEncoder):
    """The encoder of Whisper (Radford et al. 2023), on as many frames as there are.

    Parameters
    ----------
    config
        Of `transformers`.
    band_limit
        Frequency in Hz above which nothing is heard.
    """

    def __init__(self, config: WhisperConfig, band_limit: float) -> None:
        model = WhisperEncoder(config)
        super().__init__(model, config.encoder_layers + 1, config.d_model)
        self.front_end = WhisperMel(config.num_mel_bins, band_limit)

    @property
    def layers(self) -> nn.ModuleList:
        """Those of the transformer, from the input up."""
        layers: nn.ModuleList = self.model.layers
        return layers

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states and their mask; see `SpeechEncoder.forward`."""
        model = self.model
        frames, mask = self.front_end(waveforms, lengths)
        inside = mask[:, None].to(frames.dtype)
        hidden = functional.gelu(model.conv1(frames)) * inside
        hidden = functional.gelu(model.conv2(hidden)).transpose(1, 2)
        mask = mask[:, ::2]
        n_frames, n_positions = hidden.shape[1], model.embed_positions.num_embeddings
        if n_frames > n_positions:
            raise ConfigError(
                f"a segment has {n_frames} frames; expected at most {n_positions}, of 20 ms each"
            )
        hidden = hidden + model.embed_positions.weight[:n_frames]
        heard = _broadcast(mask)
        states = [hidden]
        for layer in model.layers:
            hidden = layer(hidden, heard)
            states.append(hidden)
        states[-1] = model.layer_norm(hidden)
        return torch.stack(states), mask


class WaveformStates(SpeechEncoder):
    """wav2vec 2.0 (Baevski et al. 2020) and its relatives, which hear waveforms.

    Parameters
    ----------
    model
        Of `transformers`; it is changed.
    standardise
        Whether waveforms are to have the mean 0 and the deviation 1 before they are heard.
    """

    def __init__(self, model: Any, standardise: bool = True) -> None:
        config = model.config
        # Its own draws come from elsewhere than the seed of a training.
        config.apply_spec_augment = False
        config.layerdrop = 0.0
        super().__init__(model, config.num_hidden_layers + 1, config.hidden_size)
        self.standardise = standardise
        self._mask: Tensor | None = None
        for layer in model.feature_extractor.conv_layers:
            if isinstance(getattr(layer, "layer_norm", None), nn.GroupNorm):
                layer.layer_norm = MaskedNorm(layer.layer_norm)
        for layer in getattr(model.encoder.pos_conv_embed, "layers", ()):
            layer.register_forward_hook(self._silence)
        batch_norm = getattr(model.encoder.pos_conv_embed, "batch_norm", None)
        if batch_norm is not None:
            batch_norm.register_forward_hook(self._silence)

    @property
    def layers(self) -> nn.ModuleList:
        """Those of the transformer, from the input up."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states and their mask; see `SpeechEncoder.forward`."""
        model = self.model
        inside = torch.arange(waveforms.shape[1], device=lengths.device) < lengths[:, None]
        heard = (_standardise(waveforms, lengths) if self.standardise else waveforms) * inside
        n_frames = lengths
        for layer, kernel, stride in zip(
            model.feature_extractor.conv_layers,
            model.config.conv_kernel,
            model.config.conv_stride,
            strict=True,
        ):
            n_frames = (n_frames - kernel) // stride + 1
            if isinstance(getattr(layer, "layer_norm", None), MaskedNorm):
                layer.layer_norm.n_frames = n_frames
        found = model._get_feat_extract_output_lengths(waveforms.shape[1])
        self._mask = torch.arange(int(found), device=lengths.device) < n_frames[:, None]
        with warnings.catch_warnings():
            # WavLM's attention in transformers mixes types of masks, which torch deprecates.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            output = model(heard, attention_mask=inside.long(), output_hidden_states=True)
        return torch.stack(output.hidden_states), self._mask

    def _silence(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Keep what one layer puts after the end of a segment from the next convolution."""
        assert self._mask is not None
        return output * self._mask[:, None].to(output.dtype)


class SpectrogramStates(SpeechEncoder):
    """The audio spectrogram transformer (Gong et al. 2021), on as many frames as there are.

    Its frames are the means over the patches of all bands; after the last position, positions
    start anew.

    Parameters
    ----------
    config
        Of `transformers`.
    mean, deviation
        Of the frames that it was trained on.
    """

    def __init__(self, config: PreTrainedConfig, mean: float, deviation: float) -> None:
        model = _build(config)
        super().__init__(model, config.num_hidden_layers + 1, config.hidden_size)
        self.front_end = KaldiMel(config.num_mel_bins, mean, deviation)

    @property
    def layers(self) -> nn.ModuleList:
        """Those of the transformer, from the input up."""
        layers: nn.ModuleList = self.model.layers
        return layers

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return hidden states and their mask; see `SpeechEncoder.forward`."""
        model, config = self.model, self.model.config
        frames, counts = self.front_end(waveforms, lengths, config.patch_size)
        embeddings = model.embeddings
        patches = embeddings.patch_embeddings.projection(frames.transpose(1, 2)[:, None])
        n_segments, _, n_bands, n_times = patches.shape
        n_table = (config.max_length - config.patch_size) // config.time_stride + 1
        places = torch.arange(n_times, device=patches.device)
        mask = places < ((counts - config.patch_size) // config.time_stride + 1)[:, None]
        table = embeddings.position_embeddings
        positions = table[0, 2:].view(n_bands, n_table, -1)[:, places % n_table]
        hidden = patches.permute(0, 2, 3, 1) + positions
        first = torch.cat((embeddings.cls_token, embeddings.distillation_token), 1) + table[:, :2]
        hidden = torch.cat((first.expand(n_segments, -1, -1), hidden.flatten(1, 2)), 1)
        hidden = embeddings.dropout(hidden)
        ahead = mask.new_ones((n_segments, 2))
        heard = _broadcast(torch.cat((ahead, mask.repeat(1, n_bands)), 1))
        states = [hidden]
        for layer in model.layers:
            hidden = layer(hidden, heard)
            states.append(hidden)
        states[-1] = model.layernorm(hidden)
        stacked = torch.stack(states)[:, :, 2:]
        return stacked.view(len(states), n_segments, n_bands, n_times, -1).mean(dim=2), mask


class MaskedNorm(nn.Module):
    """Each channel's mean and deviation over the frames of its segment, without padding.

    Parameters
    ----------
    norm
        Whose weights it has, and which it replaces.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.n_frames: Tensor | None = None

    def forward(self, frames: Tensor) -> Tensor:
        """Return normalised frames, zero after the end of each segment.

        Parameters
        ----------
        frames
            Shape (n_segments, n_channels, n_frames).
        """
        assert self.n_frames is not None
        places = torch.arange(frames.shape[2], device=frames.device)
        inside = (places < self.n_frames[:, None])[:, None]
        count = self.n_frames[:, None, None]
        frames = frames.float() * inside
        mean = frames.sum(dim=2, keepdim=True) / count
        centred = (frames - mean) * inside
        variance = centred.square().sum(dim=2, keepdim=True) / count
        levelled = centred * (variance + self.eps).rsqrt()
        return (levelled * self.weight[:, None] + self.bias[:, None]) * inside


def create_encoder(config: Mapping[str, Any], band_limit: float = NYQUIST) -> SpeechEncoder:
    """Return an encoder with random weights.

    Parameters
    ----------
    config
        The settings of `transformers`: ``model_type`` is one of `ARCHITECTURES`; and ``mean`` and
        ``deviation`` of the frames of an audio spectrogram transformer.
    band_limit
        Frequency in Hz above which nothing is heard; the highest there is for all but Whisper.

    Raises
    ------
    ModelError
        If the settings are of another architecture, or not understood.
    """
    settings = dict(config)
    kind = settings.pop("model_type", None)
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"the encoder's architecture is {kind!r}; expected one of {', '.join(ARCHITECTURES)}"
        )
    if kind != WHISPER and band_limit != NYQUIST:
        raise ModelError(
            f"band_limit is {band_limit:g} Hz; expected {NYQUIST:g} Hz, since {kind} hears all"
        )
    mean, deviation = settings.pop("mean", 0.0), settings.pop("deviation", 0.5)
    try:
        parsed = AutoConfig.for_model(kind, **settings)
        parsed._attn_implementation = choose_attention(kind)
        if isinstance(parsed, WhisperConfig):
            return WhisperStates(parsed, band_limit)
        if kind == AST:
            return SpectrogramStates(parsed, mean, deviation)
        return WaveformStates(_build(parsed))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(f"the encoder's settings are not understood: {error}") from error


def choose_attention(kind: str) -> str:
    """Return how `transformers` is to compute the attention of an architecture.

    Settings of others could name a kernel on the hub instead, which would be code.

    Parameters
    ----------
    kind
        One of `ARCHITECTURES`.
    """
    return "eager" if kind == "wavlm" else "sdpa"


def _build(config: PreTrainedConfig) -> Any:
    return AutoModel.from_config(config)  # type: ignore[no-untyped-call]


def _broadcast(mask: Tensor) -> Tensor | None:
    """Return which frames each frame may attend to; None if there is no padding."""
    if bool(mask.all()):
        return None
    return mask[:, None, None].expand(-1, 1, mask.shape[1], -1)


def _standardise(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Return waveforms of mean 0 and deviation 1 over their own samples."""
    count = lengths[:, None]
    inside = torch.arange(waveforms.shape[1], device=lengths.device) < count
    mean = waveforms.sum(dim=1, keepdim=True) / count
    centred = (waveforms - mean) * inside
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / (variance + TINY * TINY).sqrt()
