"""The encoder of Whisper (Radford et al. 2023), with the names of weights that `transformers` has.

Importing theirs takes 3 s and 200 MB, which every run would pay; and it copies the keys and values
of each layer once more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from sercli.errors import ModelError

# Of frames that attend to each other. Up to these, products of whole matrices in bfloat16 take a
# CPU two thirds as long as PyTorch's attention, which never holds all scores at once.
MAX_PRODUCT = 512


@dataclass(frozen=True)
class WhisperSettings:
    """The shape of the encoder, as `transformers` spells it, with its defaults.

    Parameters
    ----------
    num_mel_bins
        Bands of a frame.
    d_model
        Channels of a frame between the layers.
    encoder_layers, encoder_attention_heads, encoder_ffn_dim
        Number of layers, of heads of their attention, and channels within a layer.
    max_source_positions
        Most frames of a segment, after the second convolution has left out every other.
    dropout, attention_dropout, activation_dropout
        Shares that are dropped in training.
    """

    num_mel_bins: int = 80
    d_model: int = 384
    encoder_layers: int = 4
    encoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    max_source_positions: int = 1500
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """Return what concerns the encoder.

        Parameters
        ----------
        settings
            Of a whole model; what concerns its decoder is left out.

        Raises
        ------
        ModelError
            If something is of another kind than this encoder has.
        """
        found = {name: settings[name] for name in cls.__dataclass_fields__ if name in settings}
        wrong = {
            name: value
            for name, value in found.items()
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0
        }
        if wrong:
            raise ModelError(f"the encoder's settings are {wrong}; expected numbers, 0 or more")
        activation = settings.get("activation_function", "gelu")
        if activation != "gelu":
            raise ModelError(f"its activation_function is {activation!r}; expected 'gelu'")
        parsed = cls(**found)
        if not parsed.encoder_attention_heads or parsed.d_model % parsed.encoder_attention_heads:
            raise ModelError(
                f"d_model is {parsed.d_model}, encoder_attention_heads "
                f"{parsed.encoder_attention_heads}; expected heads that share the channels evenly"
            )
        return parsed


class WhisperEncoder(nn.Module):
    """Two convolutions, positions, and layers of a transformer.

    Parameters
    ----------
    settings
        Its shape.
    """

    def __init__(self, settings: WhisperSettings) -> None:
        super().__init__()
        width = settings.d_model
        self.conv1 = nn.Conv1d(settings.num_mel_bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(settings.max_source_positions, width)
        self.layers = nn.ModuleList(WhisperLayer(settings) for _ in range(settings.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)


class WhisperLayer(nn.Module):
    """Attention and two linear layers, each on what was normalised, and added to what there was.

    Parameters
    ----------
    settings
        Its shape.
    """

    def __init__(self, settings: WhisperSettings) -> None:
        super().__init__()
        width = settings.d_model
        self.settings = settings
        self.self_attn = WhisperAttention(settings)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, settings.encoder_ffn_dim)
        self.fc2 = nn.Linear(settings.encoder_ffn_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, hidden: Tensor, heard: Tensor | None) -> Tensor:
        """Return the frames after this layer, shape (n_segments, n_frames, n_channels).

        Parameters
        ----------
        hidden
            Those before it.
        heard
            Which frames each may attend to, see
            `torch.nn.functional.scaled_dot_product_attention`; None: all.
        """
        attended = self.self_attn(self.self_attn_layer_norm(hidden), heard)
        hidden = hidden + self._drop(attended, self.settings.dropout).to(hidden.dtype)
        inner = functional.gelu(self.fc1(self.final_layer_norm(hidden)))
        outer = self.fc2(self._drop(inner, self.settings.activation_dropout))
        # Of one type: a sum of two takes ten times as long.
        return hidden + self._drop(outer, self.settings.dropout).to(hidden.dtype)

    def _drop(self, frames: Tensor, share: float) -> Tensor:
        return functional.dropout(frames, share, self.training) if share else frames


class WhisperAttention(nn.Module):
    """Attention of each frame to all frames of its segment (Vaswani et al. 2017).

    Parameters
    ----------
    settings
        Its shape.
    """

    def __init__(self, settings: WhisperSettings) -> None:
        super().__init__()
        width = settings.d_model
        self.n_heads = settings.encoder_attention_heads
        self.dropout = settings.attention_dropout
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: Tensor, heard: Tensor | None) -> Tensor:
        """Return what each frame takes from the others; see `WhisperLayer.forward`."""
        if torch.is_autocast_enabled(hidden.device.type):
            # Once, or each of the projections would convert the same frames.
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        query, key, value = (
            projection(hidden).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        attended = _attend(query, key, value, heard, dropout)
        taken: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return taken


def _attend(
    query: Tensor, key: Tensor, value: Tensor, heard: Tensor | None, dropout: float
) -> Tensor:
    """Return what each frame takes from the others, shape (n_segments, n_heads, n_frames, n)."""
    if query.device.type != "cpu" or query.dtype == torch.float32 or query.shape[2] > MAX_PRODUCT:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=heard, dropout_p=dropout
        )
    scores = ((query * query.shape[3] ** -0.5) @ key.transpose(2, 3)).float()
    if heard is not None:
        scores = scores.masked_fill(~heard, -torch.inf)
    shares = functional.dropout(scores.softmax(dim=3).to(value.dtype), dropout)
    return shares @ value
