"""A pre-trained speech encoder with a small head on the statistics of all its layers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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

# The head clips standardised statistics to this, to limit the effect of outliers.
MAX_DEVIATION = 5.0


@dataclass(frozen=True)
class TransformerSettings:
    """Settings of a network.

    Parameters
    ----------
    encoder
        Settings of `transformers` with ``model_type``; see `sercli.neural.encoders`.
    band_limit
        Frequency in Hz above which audio is removed.
    n_hidden
        Width of the head's hidden layer.
    dropout, hidden_dropout
        Dropout rates of the statistics and of the head's hidden layer in training.

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
        """Check the values that a damaged description could break."""
        if not (0 <= self.dropout < 1 and 0 <= self.hidden_dropout < 1) or self.n_hidden < 1:
            raise ConfigError(
                f"dropout is {self.dropout}, hidden_dropout {self.hidden_dropout}, n_hidden "
                f"{self.n_hidden}; expected shares of 0 or more and less than 1, and a width "
                "above 0"
            )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from the result of `dataclasses.asdict`.

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

    The layers of an encoder carry different information, so their statistics are concatenated: a
    weighted sum of the layers would have to use the same features of all.

    Parameters
    ----------
    settings
        Settings of the network.
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
        """Mask of the features that are deviations, not means, shape (n_features,)."""
        each = np.repeat((False, True), self.encoder.n_channels)
        return np.tile(each, self.encoder.n_states)

    def round_encoder(self) -> None:
        """Round the encoder's weights of matrix products, in place, to bfloat16.

        Its output is then nearly the same with any number type: most of the error of bfloat16 comes
        from rounding the weights.
        """
        round_to(self.encoder, torch.bfloat16)

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return statistics of all layers, shape (n_segments, n_features).

        Parameters
        ----------
        waveforms
            Waveforms at 16 kHz, zero after the end of each segment, shape (n_segments, n_samples).
        lengths
            Number of samples of each segment, shape (n_segments,).
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
        Settings with the head's width and dropout rates.
    n_features, n_labels
        Numbers of inputs and outputs.
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
