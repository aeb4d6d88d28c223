"""A pre-trained speech encoder, the statistics of all its layers, and a small head on them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sercli.errors import ConfigError
from sercli.neural.devices import round_to
from sercli.neural.encoders import create_encoder
from sercli.neural.mel import NYQUIST
from sercli.neural.pooling import pool_states

# Standardised statistics beyond this are outliers, which a head should not follow.
MAX_DEVIATION = 5.0


@dataclass(frozen=True)
class TransformerSettings:
    """The shape of a network.

    Parameters
    ----------
    encoder
        Settings of `transformers` with ``model_type``; see `sercli.neural.encoders`.
    band_limit
        Frequency in Hz above which nothing is heard.
    n_hidden
        Width of the head.
    dropout, hidden_dropout
        Shares of the statistics and of the head's hidden row that are dropped in training.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    encoder: Mapping[str, Any] = field(default_factory=dict)
    band_limit: float = NYQUIST
    n_hidden: int = 256
    dropout: float = 0.3
    hidden_dropout: float = 0.5

    def __post_init__(self) -> None:
        """Check what a damaged description could break."""
        if not (0 <= self.dropout < 1 and 0 <= self.hidden_dropout < 1) or self.n_hidden < 1:
            raise ConfigError(
                f"dropout is {self.dropout}, hidden_dropout {self.hidden_dropout}, n_hidden "
                f"{self.n_hidden}; expected shares of 0 or more and less than 1, and a width "
                "above 0"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; `from_dict` reads it back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`.

        Raises
        ------
        ConfigError
            If keys are unknown, or a value is out of range.
        """
        try:
            return cls(**data)
        except TypeError as error:
            raise ConfigError(f"the network's settings are {dict(data)!r}: {error}") from error


class Transformer(nn.Module):
    """An encoder's hidden states, their mean and deviation over time, and two linear layers.

    The layers of an encoder know different things: what they know together is worth more than a
    weighted sum of them, which would have to take the same of all.

    Parameters
    ----------
    settings
        Its shape.
    n_labels
        Number of scores.
    """

    def __init__(self, settings: TransformerSettings, n_labels: int) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = create_encoder(settings.encoder, settings.band_limit)
        self.n_features = 2 * self.encoder.n_states * self.encoder.n_channels
        self.head = create_head(settings, self.n_features, n_labels)

    @property
    def deviations(self) -> NDArray[np.bool_]:
        """Which of the features are deviations; the others are means; shape (n_features,)."""
        each = np.repeat((False, True), self.encoder.n_channels)
        return np.tile(each, self.encoder.n_states)

    def round_encoder(self) -> None:
        """Round what the encoder multiplies to what bfloat16 can hold.

        What it makes of a segment is then nearly the same wherever it runs: of what is lost in
        bfloat16, the weights are the larger part.
        """
        round_to(self.encoder, torch.bfloat16)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return statistics of all layers, shape (n_segments, n_features).

        Parameters
        ----------
        waveforms
            At 16 kHz, zero after the end of each segment, shape (n_segments, n_samples).
        lengths
            Samples of each segment, shape (n_segments,).
        """
        return pool_states(*self.encoder(waveforms, lengths))

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return scores, shape (n_segments, n_labels); parameters as for `embed`."""
        scores: Tensor = self.head(self.embed(waveforms, lengths))
        return scores


def create_head(settings: TransformerSettings, n_features: int, n_labels: int) -> nn.Sequential:
    """Return a head with random weights.

    Parameters
    ----------
    settings
        Its width and dropout.
    n_features, n_labels
        Lengths of the rows that it takes and gives.
    """
    return nn.Sequential(
        nn.BatchNorm1d(n_features, affine=False),
        nn.Hardtanh(-MAX_DEVIATION, MAX_DEVIATION),
        nn.Dropout(settings.dropout),
        nn.Linear(n_features, settings.n_hidden),
        nn.ReLU(),
        nn.Dropout(settings.hidden_dropout),
        nn.Linear(settings.n_hidden, n_labels),
    )
