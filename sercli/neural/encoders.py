"""Pre-trained speech encoders: from waveforms to the hidden states of all their layers.

An encoder runs on the frames that are there. What it was trained with, padding to 30 s or
statistics over padding, is left out or replaced by masks, so that a segment has the same states
alone and in any batch.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sercli.errors import ModelError
from sercli.neural.mel import NYQUIST, WhisperMel
from sercli.neural.speech_encoder import ARCHITECTURES, WHISPER, SpeechEncoder
from sercli.neural.whisper import WhisperEncoder, WhisperSettings


class WhisperStates(SpeechEncoder):
    """The encoder of Whisper (Radford et al. 2023), on as many frames as there are.

    Parameters
    ----------
    settings
        Its shape.
    band_limit
        Frequency in Hz above which nothing is heard.
    """

    def __init__(self, settings: WhisperSettings, band_limit: float) -> None:
        super().__init__(WhisperEncoder(settings), settings.encoder_layers + 1, settings.d_model)
        self.front_end = WhisperMel(settings.num_mel_bins, band_limit)

    @property
    def layers(self) -> nn.ModuleList:
        """Those of the transformer, from the input up."""
        layers: nn.ModuleList = self.model.layers
        return layers

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[slice]]:
        """Return hidden states and the rows of each segment; see `SpeechEncoder.forward`."""
        frames, mask = self.front_end(waveforms, lengths)
        found: tuple[list[Tensor], list[slice]] = self.model(frames, mask.sum(dim=1).tolist())
        return found


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
    if kind == WHISPER:
        return WhisperStates(WhisperSettings.parse(settings), band_limit)
    if band_limit != NYQUIST:
        raise ModelError(
            f"band_limit is {band_limit:g} Hz; expected {NYQUIST:g} Hz, since {kind} hears all"
        )
    from sercli.neural.published_encoders import (
        create_published,  # transformers takes seconds to load
    )

    return create_published(settings, kind)
