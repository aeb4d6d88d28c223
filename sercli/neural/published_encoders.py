"""Encoders of `transformers`, with masks for padding."""

import warnings
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from sercli.errors import ModelError
from sercli.neural.batching import mask_padding
from sercli.neural.mel import KaldiMel
from sercli.neural.pooling import TINY
from sercli.neural.speech_encoder import AST, SpeechEncoder, flatten


class WaveformStates(SpeechEncoder):
    """wav2vec 2.0 (Baevski et al. 2020) and its relatives, whose input is waveforms.

    Parameters
    ----------
    model
        Model of `transformers`; it is modified.
    standardise
        Whether waveforms are scaled to mean 0 and standard deviation 1.
    """

    def __init__(self, model: Any, standardise: bool = True) -> None:
        config = model.config
        # These draw from generators that the seed of a training does not control.
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
        # Otherwise, gradients are also computed through frozen layers, down to the waveform.
        model.feature_extractor._requires_grad = False

    @property
    def layers(self) -> nn.ModuleList:
        """Layers of the transformer, starting from the input."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but HuBERT's batch norm, whose statistics would include padding."""
        super().train(mode)
        batch_norm = getattr(self.model.encoder.pos_conv_embed, "batch_norm", None)
        if batch_norm is not None:
            batch_norm.eval()
        return self

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[slice]]:
        """Return hidden states and each segment's rows; see `SpeechEncoder.forward`."""
        output, mask = self.run(waveforms, lengths)
        return flatten(output.hidden_states, mask)

    def run(self, waveforms: Tensor, lengths: Tensor) -> tuple[Any, Tensor]:
        """Return the output of the model and the mask of its frames, for `flatten`.

        Its ``last_hidden_state`` may be normalised, unlike the last of its ``hidden_states``.

        Parameters
        ----------
        waveforms, lengths
            As for `SpeechEncoder.forward`.
        """
        model = self.model
        inside = mask_padding(lengths, waveforms.shape[1])
        inputs = (_standardise(waveforms, lengths) if self.standardise else waveforms) * inside
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
        self._mask = mask_padding(n_frames, int(found))
        with warnings.catch_warnings():
            # WavLM's attention in transformers mixes types of masks, for which torch warns.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            output = model(inputs, attention_mask=inside.long(), output_hidden_states=True)
        return output, self._mask

    def _silence(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        """Set a layer's output after the end of each segment to zero, for the next convolution."""
        assert self._mask is not None
        return output * self._mask[:, None].to(output.dtype)


class SpectrogramStates(SpeechEncoder):
    """The audio spectrogram transformer (Gong et al. 2021), without padding to a fixed length.

    A frame of its hidden states is the mean over the patches of all frequency bands. After the last
    time position, the position embeddings repeat from the first.

    Parameters
    ----------
    model
        Network of `transformers`.
    mean, deviation
        Mean and standard deviation of the frames that it was trained on.
    """

    def __init__(self, model: Any, mean: float, deviation: float) -> None:
        config = model.config
        super().__init__(model, config.num_hidden_layers + 1, config.hidden_size)
        self.front_end = KaldiMel(config.num_mel_bins, mean, deviation)

    @property
    def layers(self) -> nn.ModuleList:
        """Layers of the transformer, starting from the input."""
        layers: nn.ModuleList = self.model.layers
        return layers

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[slice]]:
        """Return hidden states and each segment's rows; see `SpeechEncoder.forward`."""
        model, config = self.model, self.model.config
        frames, counts = self.front_end(waveforms, lengths, config.patch_size)
        embeddings = model.embeddings
        patches = embeddings.patch_embeddings.projection(frames.transpose(1, 2)[:, None])
        n_segments, _, n_bands, n_times = patches.shape
        n_table = (config.max_length - config.patch_size) // config.time_stride + 1
        mask = mask_padding((counts - config.patch_size) // config.time_stride + 1, n_times)
        table = embeddings.position_embeddings
        places = torch.arange(n_times, device=patches.device)
        positions = table[0, 2:].view(n_bands, n_table, -1)[:, places % n_table]
        hidden = patches.permute(0, 2, 3, 1) + positions
        first = torch.cat((embeddings.cls_token, embeddings.distillation_token), 1) + table[:, :2]
        hidden = torch.cat((first.expand(n_segments, -1, -1), hidden.flatten(1, 2)), 1)
        hidden = embeddings.dropout(hidden)
        ahead = mask.new_ones((n_segments, 2))
        inside = torch.cat((ahead, mask.repeat(1, n_bands)), 1)
        # Without padding, attention needs no mask.
        visible = (
            None if bool(inside.all()) else inside[:, None, None].expand(-1, 1, inside.shape[1], -1)
        )
        states = [hidden]
        for layer in model.layers:
            hidden = layer(hidden, visible)
            states.append(hidden)
        states[-1] = model.layernorm(hidden)
        patches_of = [state[:, 2:].view(n_segments, n_bands, n_times, -1) for state in states]
        return flatten([patch.mean(dim=1) for patch in patches_of], mask)


class MaskedNorm(nn.Module):
    """Normalisation of each channel over the frames of a segment, without padding.

    Parameters
    ----------
    norm
        Layer that it replaces, whose weights it uses.
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
            Frames, shape (n_segments, n_channels, n_frames).
        """
        assert self.n_frames is not None
        inside = mask_padding(self.n_frames, frames.shape[2])[:, None]
        count = self.n_frames[:, None, None]
        frames = frames.float() * inside
        mean = frames.sum(dim=2, keepdim=True) / count
        centred = (frames - mean) * inside
        variance = centred.square().sum(dim=2, keepdim=True) / count
        levelled = centred * (variance + self.eps).rsqrt()
        return (levelled * self.weight[:, None] + self.bias[:, None]) * inside


def create_published(settings: Mapping[str, Any], kind: str) -> SpeechEncoder:
    """Return an encoder with random weights.

    Parameters
    ----------
    settings
        Settings as for `sercli.neural.encoders.create_encoder`, without ``model_type``.
    kind
        Architecture, other than Whisper.

    Raises
    ------
    ModelError
        If the settings are invalid.
    """
    known = dict(settings)
    mean, deviation = known.pop("mean", 0.0), known.pop("deviation", 0.5)
    try:
        parsed = AutoConfig.for_model(kind, **known)
        parsed._attn_implementation = choose_attention(kind)
        model: Any = AutoModel.from_config(parsed)  # type: ignore[no-untyped-call]
        if kind == AST:
            return SpectrogramStates(model, mean, deviation)
        return WaveformStates(model)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise ModelError(f"the encoder's settings are invalid: {error}") from error


def choose_attention(kind: str) -> str:
    """Return the attention implementation that `transformers` uses for an architecture.

    It is always set, since a checkpoint's settings could name a kernel on the hub, which is code.

    Parameters
    ----------
    kind
        Architecture, one of `ARCHITECTURES`.
    """
    return "eager" if kind == "wavlm" else "sdpa"


def _standardise(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Return waveforms with mean 0 and standard deviation 1 over their own samples."""
    count = lengths[:, None]
    inside = mask_padding(lengths, waveforms.shape[1])
    mean = waveforms.sum(dim=1, keepdim=True) / count
    centred = (waveforms - mean) * inside
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / (variance + TINY * TINY).sqrt()
