"""Pre-trained speech encoders: from waveforms to the hidden states of all their layers.

An encoder runs only on the frames of a segment. The padding to 30 s, or statistics over padding,
with which it was trained are left out or masked, so that a segment has the same states alone and in
any batch.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from sercli.errors import ModelError
from sercli.neural.mel import NYQUIST, WhisperMel
from sercli.neural.speech_encoder import ARCHITECTURES, WHISPER, SpeechEncoder
from sercli.neural.whisper import WhisperEncoder, WhisperSettings


class WhisperStates(SpeechEncoder):
    """The encoder of Whisper (Radford et al. 2023), without padding to 30 s.

    Parameters
    ----------
    settings
        Settings of the encoder.
    band_limit
        Frequency in Hz above which audio is removed.
    """

    def __init__(self, settings: WhisperSettings, band_limit: float) -> None:
        super().__init__(WhisperEncoder(settings), settings.encoder_layers + 1, settings.d_model)
        self.front_end = WhisperMel(settings.num_mel_bins, band_limit)

    @property
    def layers(self) -> nn.ModuleList:
        """Layers of the transformer, starting from the input."""
        layers: nn.ModuleList = self.model.layers
        return layers

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[slice]]:
        """Return hidden states and each segment's rows; see `SpeechEncoder.forward`."""
        frames, mask = self.front_end(waveforms, lengths)
        found: tuple[list[Tensor], list[slice]] = self.model(frames, mask.sum(dim=1).tolist())
        return found


def create_encoder(config: Mapping[str, Any], band_limit: float = NYQUIST) -> SpeechEncoder:
    """Return an encoder with random weights.

    Parameters
    ----------
    config
        Settings of `transformers`, whose ``model_type`` is one of `ARCHITECTURES`; for an audio
        spectrogram transformer, also the ``mean`` and ``deviation`` of its frames.
    band_limit
        Frequency in Hz above which audio is removed; other encoders than Whisper's support only
        the Nyquist frequency.

    Raises
    ------
    ModelError
        If the architecture is unknown, the settings are invalid, or the band limit is not
        supported.
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
            f"band_limit is {band_limit:g} Hz; expected {NYQUIST:g} Hz, since {kind} uses the "
            "whole band"
        )
    # transformers takes seconds to load.
    from sercli.neural.published_encoders import create_published

    return create_published(settings, kind)
