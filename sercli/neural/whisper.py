"""The encoder of Whisper (Radford et al. 2023), with the names of weights in `transformers`.

Importing the implementation of `transformers` would cost every run 3 s and 200 MB; it also makes an
additional copy of the keys and values of each layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from sercli.errors import ConfigError, ModelError
from sercli.neural.devices import has_amx

# Number of queries in a block of attention; the scores of more do not fit into a CPU's cache.
QUERIES = 256
# The number of rows of a batch is rounded up to a multiple of ROWS, and that of keys in attention
# to one of STEP: a CPU prepares a bfloat16 kernel for each shape, and caches only the last few.
ROWS, STEP = 32, 16
# Least number of rows per thread on a CPU with AMX, which sums products of fewer rows in another
# order: in bfloat16, a segment's results would depend on the batch.
AMX_ROWS = 512
# Seconds between frames after the convolutions.
FRAME_S = 0.02


@dataclass(frozen=True)
class WhisperSettings:
    """Settings of the encoder, with the names and defaults of `transformers`.

    Parameters
    ----------
    num_mel_bins
        Number of mel bands.
    d_model
        Number of channels between the layers.
    encoder_layers, encoder_attention_heads, encoder_ffn_dim
        Numbers of layers, of attention heads, and of channels within a layer's feed-forward part.
    max_source_positions
        Most frames of a segment, after the second convolution has halved their number.
    dropout, attention_dropout, activation_dropout
        Dropout rates in training.
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
        """Return the settings of the encoder.

        Parameters
        ----------
        settings
            Settings of a whole model; those of its decoder are ignored.

        Raises
        ------
        ModelError
            If a value is invalid or not supported by this encoder.
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
    """Two convolutions, position embeddings, and transformer layers.

    The frames of all segments of a batch are rows of one matrix, one segment after another. So
    nothing is computed for padding, and matrix products have few different shapes, for each of
    which a CPU would have to prepare a kernel. At least one row of arbitrary content separates two
    segments.

    Parameters
    ----------
    settings
        Settings of the encoder.
    """

    def __init__(self, settings: WhisperSettings) -> None:
        super().__init__()
        width = settings.d_model
        self.conv1 = nn.Conv1d(settings.num_mel_bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(settings.max_source_positions, width)
        self.layers = nn.ModuleList(WhisperLayer(settings) for _ in range(settings.encoder_layers))
        self.layer_norm = nn.LayerNorm(width)

    def forward(self, frames: Tensor, counts: Sequence[int]) -> tuple[list[Tensor], list[slice]]:
        """Return the input of the first layer and the output of each layer.

        Parameters
        ----------
        frames
            Mel spectra, shape (n_segments, n_mels, n_frames).
        counts
            Number of frames of each segment; frames after them are ignored.

        Returns
        -------
        states : list of Tensor, each of shape (n_rows, n_channels)
            Hidden states, of which the last is normalised.
        spans : list of slice
            Rows of each segment.

        Raises
        ------
        ConfigError
            If a segment has more frames than there are positions.
        """
        prepared = torch.is_autocast_enabled(frames.device.type)
        spans, n_rows = _lay_out([(count + 1) // 2 for count in counts], rounded=prepared)
        # Not where gradients are computed: no batch of a training is computed once more.
        if prepared and frames.device.type == "cpu" and not torch.is_grad_enabled():
            n_rows = max(n_rows, count_least_rows())
        n_positions = self.embed_positions.num_embeddings
        if (longest := max(span.stop - span.start for span in spans)) > n_positions:
            raise ConfigError(
                f"a segment lasts {FRAME_S * longest:.2f} s; expected at most "
                f"{FRAME_S * n_positions:g} s"
            )
        # Zeros remain before each segment and after the last, as around a segment that is alone.
        packed = frames.new_zeros((2 * n_rows + 3, frames.shape[1]))
        inside = torch.zeros((2 * n_rows + 1, 1), dtype=torch.bool, device=frames.device)
        positions = torch.zeros(n_rows, dtype=torch.long, device=frames.device)
        for segment, count, span in zip(frames, counts, spans, strict=True):
            first = 2 * span.start + 1
            packed[first + 1 : first + 1 + count] = segment[:, :count].t()
            inside[first : first + count] = True
            positions[span] = torch.arange(span.stop - span.start, device=frames.device)
        hidden = functional.gelu(_convolve(packed, self.conv1)).masked_fill(~inside, 0.0)
        hidden = functional.gelu(_convolve(hidden, self.conv2))
        hidden = hidden.float() + self.embed_positions(positions)
        states = [hidden]
        for layer in self.layers:
            hidden = layer(hidden, spans)
            states.append(hidden)
        states[-1] = self.layer_norm(hidden)
        return states, spans


class WhisperLayer(nn.Module):
    """A pre-norm transformer layer: attention and two linear layers, with residual connections.

    Parameters
    ----------
    settings
        Settings of the encoder.
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

    def forward(self, hidden: Tensor, spans: Sequence[slice]) -> Tensor:
        """Return the rows after this layer, shape (n_rows, n_channels).

        Parameters
        ----------
        hidden
            Rows before this layer, shape (n_rows, n_channels).
        spans
            Rows of each segment, which attend to each other.
        """
        attended = self.self_attn(self.self_attn_layer_norm(hidden), spans)
        hidden = hidden + self._drop(attended, self.settings.dropout).to(hidden.dtype)
        inner = functional.gelu(self.fc1(self.final_layer_norm(hidden)))
        outer = self.fc2(self._drop(inner, self.settings.activation_dropout))
        # In one number type: a sum of two different types takes ten times as long.
        return hidden + self._drop(outer, self.settings.dropout).to(hidden.dtype)

    def _drop(self, frames: Tensor, share: float) -> Tensor:
        return functional.dropout(frames, share, self.training) if share else frames


class WhisperAttention(nn.Module):
    """Attention of each frame to all frames of its segment (Vaswani et al. 2017).

    Parameters
    ----------
    settings
        Settings of the encoder.
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

    def forward(self, hidden: Tensor, spans: Sequence[slice]) -> Tensor:
        """Return the attention output of each row; parameters as for `WhisperLayer.forward`."""
        if torch.is_autocast_enabled(hidden.device.type):
            # Convert once, or each of the projections would convert the same frames.
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        query, key, value = (
            projection(hidden).unflatten(1, (self.n_heads, -1)).transpose(0, 1)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.dropout if self.training else 0.0
        attend = _attend_one_by_one if hidden.device.type == "cpu" else _attend_at_once
        taken: Tensor = self.out_proj(attend(query, key, value, spans, dropout))
        return taken


def count_least_rows() -> int:
    """Return the number of rows that a CPU computes at least in bfloat16; see `AMX_ROWS`."""
    return AMX_ROWS * torch.get_num_threads() if has_amx() else 0


def _lay_out(counts: Sequence[int], *, rounded: bool) -> tuple[list[slice], int]:
    """Return the rows of each segment, and the total number of rows.

    If `rounded`, the total is a multiple of `ROWS`, so that many batches share it, and has room for
    the rows of the last segment rounded up to a multiple of `STEP`, as attention needs them.
    """
    spans, start = list[slice](), 0
    for count in counts:
        spans.append(slice(start, start + count))
        start += count + 1
    last = spans[-1]
    if not rounded:
        return spans, last.stop
    return spans, _round_up(last.start + _round_up(counts[-1], STEP), ROWS)


def _round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _convolve(rows: Tensor, convolution: nn.Conv1d) -> Tensor:
    """Return a convolution of rows, without padding, computed as a matrix product."""
    n_places, stride = convolution.kernel_size[0], convolution.stride[0]
    windows = rows.unfold(0, n_places, stride).transpose(1, 2).flatten(1)
    weights = convolution.weight.transpose(1, 2).flatten(1)
    return functional.linear(windows, weights, convolution.bias)


def _attend_one_by_one(
    query: Tensor, key: Tensor, value: Tensor, spans: Sequence[slice], dropout: float
) -> Tensor:
    """Return the attention output of each row, segment by segment, shape (n_rows, n_channels).

    Rows that belong to no segment are 0. The inputs have shape (n_heads, n_rows, n_channels per
    head).
    """
    n_heads, n_rows, n_channels = query.shape
    taken = query.new_zeros((n_rows, n_heads, n_channels))
    for span in spans:
        if query.dtype == torch.float32:
            attended = functional.scaled_dot_product_attention(
                query[None, :, span], key[None, :, span], value[None, :, span], dropout_p=dropout
            )[0]
            taken[span] = attended.transpose(0, 1)
        else:
            _attend_by_products(taken, query, key, value, span, dropout)
    return taken.flatten(1)


def _attend_by_products(
    taken: Tensor, query: Tensor, key: Tensor, value: Tensor, span: slice, dropout: float
) -> None:
    """Write the attention output of the rows of a segment into `taken`.

    On a CPU, matrix products in bfloat16 take half as long as PyTorch's attention.
    """
    n_frames = span.stop - span.start
    # May include rows of the next segment, which are masked as keys and not written as queries.
    end = span.start + _round_up(n_frames, STEP)
    # Contiguous, or the product would make a slow copy of the transposed keys.
    keys, values = key[:, span.start : end].contiguous(), value[:, span.start : end]
    for first in range(span.start, span.stop, QUERIES):
        queries = query[:, first : min(first + QUERIES, end)] * query.shape[2] ** -0.5
        scores = queries @ keys.transpose(1, 2)
        scores[:, :, n_frames:] = -torch.inf
        # Computed internally in float32 in any case, but without copies in float32.
        shares = functional.dropout(scores.softmax(dim=2), dropout)
        last = min(first + QUERIES, span.stop)
        taken[first:last] = (shares @ values)[:, : last - first].transpose(0, 1)


def _attend_at_once(
    query: Tensor, key: Tensor, value: Tensor, spans: Sequence[slice], dropout: float
) -> Tensor:
    """Return the same as `_attend_one_by_one`, computed for all segments at once, with padding.

    On a GPU, launching many small products takes longer than computing them.
    """
    longest = max(span.stop - span.start for span in spans)
    places = torch.arange(longest, device=query.device)
    starts = torch.tensor([span.start for span in spans], device=query.device)
    stops = torch.tensor([span.stop for span in spans], device=query.device)
    rows = starts[:, None] + places
    inside = rows < stops[:, None]
    rows = torch.where(inside, rows, starts[:, None])
    queries, keys, values = (part[:, rows].transpose(0, 1) for part in (query, key, value))
    mask = None if bool(inside.all()) else inside[:, None, None]
    attended = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=mask, dropout_p=dropout
    )
    taken = query.new_zeros((query.shape[1], query.shape[0], query.shape[2]))
    taken[rows[inside]] = attended.transpose(1, 2)[inside].to(taken.dtype)
    return taken.flatten(1)
