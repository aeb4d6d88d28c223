"""Base class of all pre-trained speech encoders."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

WHISPER, AST = "whisper", "audio-spectrogram-transformer"
WAVEFORM = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech-sat")
ARCHITECTURES = (WHISPER, AST, *WAVEFORM)


class SpeechEncoder(nn.Module, ABC):
    """An encoder from waveforms to hidden states; see `sercli.neural.encoders`.

    Parameters
    ----------
    model
        Network with the layers.

    Attributes
    ----------
    n_states
        Number of hidden states: the input of the first layer, and the output of each layer.
    n_channels
        Number of channels of each frame.
    """

    # The type checker does not know the attributes of models of transformers.
    model: Any

    def __init__(self, model: nn.Module, n_states: int, n_channels: int) -> None:
        super().__init__()
        self.model = model
        self.n_states = n_states
        self.n_channels = n_channels

    @abstractmethod
    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[slice]]:
        """Return the hidden states of all frames, and the rows of each segment.

        Parameters
        ----------
        waveforms
            Waveforms at 16 kHz, zero after the end of each segment, shape (n_segments, n_samples).
        lengths
            Number of samples of each segment, shape (n_segments,).

        Returns
        -------
        states : list of Tensor, each of shape (n_rows, n_channels)
            `n_states` hidden states; a row is a frame of a segment, or padding of any value.
        spans : list of slice
            Rows of each segment.
        """

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """Layers of the transformer, starting from the input."""


def flatten(states: Sequence[Tensor], mask: Tensor) -> tuple[list[Tensor], list[slice]]:
    """Return states of padded segments in the form of `SpeechEncoder.forward`.

    Parameters
    ----------
    states
        Hidden states, each of shape (n_segments, n_frames, n_channels).
    mask
        True for frames of the segment, shape (n_segments, n_frames).
    """
    starts = range(0, mask.numel(), mask.shape[1])
    spans = [slice(s, s + n) for s, n in zip(starts, mask.sum(dim=1).tolist(), strict=True)]
    return [state.flatten(0, 1) for state in states], spans
