"""What all pre-trained speech encoders have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

WHISPER, AST = "whisper", "audio-spectrogram-transformer"
WAVEFORM = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech-sat")
ARCHITECTURES = (WHISPER, AST, *WAVEFORM)


class SpeechEncoder(nn.Module, ABC):
    """From waveforms to hidden states; see `sercli.neural.encoders` for the architectures.

    Parameters
    ----------
    model
        With its layers.

    Attributes
    ----------
    n_states
        The frames that enter the first layer, and what each layer makes of them.
    n_channels
        Of each frame.
    """

    # What is in those of transformers is not known to the type checker.
    model: Any

    def __init__(self, model: nn.Module, n_states: int, n_channels: int) -> None:
        super().__init__()
        self.model = model
        self.n_states = n_states
        self.n_channels = n_channels

    @abstractmethod
    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[list[Tensor], list[slice]]:
        """Return hidden states of all frames, and which of them are of each segment.

        Parameters
        ----------
        waveforms
            At 16 kHz, zero after the end of each segment, shape (n_segments, n_samples).
        lengths
            Samples of each segment, shape (n_segments,).

        Returns
        -------
        states : list of Tensor, each of shape (n_rows, n_channels)
            `n_states` of them; each row is a frame of a segment, or of none and of any value.
        spans : list of slice
            The rows of each segment.
        """

    @property
    @abstractmethod
    def layers(self) -> nn.ModuleList:
        """Those of the transformer, from the input up."""


def flatten(states: Sequence[Tensor], mask: Tensor) -> tuple[list[Tensor], list[slice]]:
    """Return states of padded segments as `SpeechEncoder.forward` gives them.

    Parameters
    ----------
    states
        Each of shape (n_segments, n_frames, n_channels).
    mask
        True for frames of the segment, shape (n_segments, n_frames).
    """
    starts = range(0, mask.numel(), mask.shape[1])
    spans = [slice(s, s + n) for s, n in zip(starts, mask.sum(dim=1).tolist(), strict=True)]
    return [state.flatten(0, 1) for state in states], spans


def broadcast(mask: Tensor) -> Tensor | None:
    """Return which frames each frame may attend to; None if there is no padding.

    Parameters
    ----------
    mask
        True for frames of the segment, shape (n_segments, n_frames).
    """
    if bool(mask.all()):
        return None
    return mask[:, None, None].expand(-1, 1, mask.shape[1], -1)
