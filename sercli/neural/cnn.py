"""A convolutional network of seven layers on log-mel frames."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from sercli.errors import ConfigError
from sercli.neural.front_end import LogMel, LogMelSettings
from sercli.neural.masking import MaskingSettings, mask_at_random
from sercli.neural.pooling import AttentiveStatistics

N_LAYERS = 7
# Kernel size of the layers over frequency and time, in both directions.
KERNEL = 3


@dataclass(frozen=True)
class CnnSettings:
    """Settings of a network.

    Parameters
    ----------
    log_mel
        Settings of the log-mel frames.
    channels
        Numbers of output channels of the seven layers.
    strides
        Strides of the seven layers, over frequency and time.
    n_planar
        Number of layers over frequency and time. The layers after them are convolutions over time
        alone, whose input channels are the channels of all bands.
    kernel_time
        Kernel size in frames of the layers over time alone; odd.
    dropout
        Dropout rate of the pooled row in training.
    masking
        Settings of the masking of frames in training.

    Raises
    ------
    ConfigError
        If there are not seven layers, or a number is out of range.
    """

    log_mel: LogMelSettings = field(default_factory=LogMelSettings)
    channels: tuple[int, ...] = (24, 48, 64, 256, 256, 256, 256)
    strides: tuple[tuple[int, int], ...] = ((2, 2), (2, 1), (2, 2), (1, 1), (1, 1), (1, 1), (1, 1))
    n_planar: int = 3
    kernel_time: int = 5
    dropout: float = 0.3
    masking: MaskingSettings = field(default_factory=MaskingSettings)

    def __post_init__(self) -> None:
        """Check the values that a damaged description could break."""
        strides = [number for pair in self.strides for number in pair]
        if (
            (len(self.channels), len(self.strides), len(strides)) != (N_LAYERS, N_LAYERS, 14)
            or min(self.channels) < 1
            or not set(strides) <= {1, 2}
        ):
            raise ConfigError(
                f"channels are {self.channels}, strides {self.strides}; expected numbers above 0 "
                f"and pairs of 1 or 2 for {N_LAYERS} layers"
            )
        over_time = [pair[0] for pair in self.strides[self.n_planar :]]
        if not 0 <= self.n_planar <= N_LAYERS or set(over_time) - {1}:
            raise ConfigError(
                f"n_planar is {self.n_planar}, strides {self.strides}; expected 0 to {N_LAYERS}, "
                "and a stride of 1 over frequency in the layers that follow"
            )
        if self.kernel_time < 1 or not self.kernel_time % 2:
            raise ConfigError(f"kernel_time is {self.kernel_time}; expected an odd number above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; expected 0 or more, and less than 1")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild from the result of `dataclasses.asdict`.

        Raises
        ------
        ConfigError
            If keys are missing or unknown, or a value is out of range.
        """
        try:
            return cls(
                log_mel=LogMelSettings(**data["log_mel"]),
                channels=tuple(data["channels"]),
                strides=tuple((over_frequency, time) for over_frequency, time in data["strides"]),
                n_planar=data["n_planar"],
                kernel_time=data["kernel_time"],
                dropout=data["dropout"],
                masking=MaskingSettings(**data["masking"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the network's settings are {dict(data)!r}: {error}") from error


class Cnn(nn.Module):
    """Level-normalised log-mel frames, seven convolutions, attentive statistics, a linear layer.

    A segment has the same scores alone, padded in a batch, and in any order: every layer is zero
    after its end, which equals the zero padding of a segment that is alone.

    Parameters
    ----------
    settings
        Settings of the network.
    n_labels
        Number of scores.
    """

    def __init__(self, settings: CnnSettings, n_labels: int) -> None:
        super().__init__()
        self.settings = settings
        self.front_end = LogMel(settings.log_mel)
        planar: list[ConvolutionalLayer] = []
        over_time: list[ConvolutionalLayer] = []
        n_inputs, n_bands = 1, settings.log_mel.n_mels
        for index, (n_channels, stride) in enumerate(
            zip(settings.channels, settings.strides, strict=True)
        ):
            if index < settings.n_planar:
                planar.append(ConvolutionalLayer(n_inputs, n_channels, (KERNEL, KERNEL), stride))
            else:
                kernel = (1, settings.kernel_time)
                inputs = n_inputs * n_bands
                over_time.append(
                    ConvolutionalLayer(inputs, n_channels, kernel, stride, squeeze=True)
                )
            # From the first layer over time on, the bands are flattened into the channels.
            n_bands = 1 if over_time else -(-n_bands // stride[0])
            n_inputs = n_channels
        self.planar = nn.ModuleList(planar)
        self.over_time = nn.ModuleList(over_time)
        self.pooling = AttentiveStatistics(n_inputs * n_bands)
        self.n_features = 2 * n_inputs * n_bands
        self.head = nn.Sequential(
            nn.BatchNorm1d(self.n_features),
            nn.Dropout(settings.dropout),
            nn.Linear(self.n_features, n_labels),
        )

    def embed(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return pooled rows, shape (n_segments, n_features).

        Parameters
        ----------
        waveforms
            Waveforms at the sample rate of the settings, zero after the end of each segment, shape
            (n_segments, n_samples).
        lengths
            Number of samples of each segment, shape (n_segments,).
        """
        frames, mask = self.front_end(waveforms, lengths)
        if self.training:
            frames = mask_at_random(frames, mask, self.settings.masking)
        frames = frames[:, None].contiguous(memory_format=torch.channels_last)
        for layer in self.planar:
            frames, mask = layer(frames, mask)
        frames = frames.flatten(1, 2)
        if self.over_time:
            frames = frames[:, :, None].contiguous(memory_format=torch.channels_last)
            for layer in self.over_time:
                frames, mask = layer(frames, mask)
            frames = frames.squeeze(2)
        pooled: Tensor = self.pooling(frames, mask)
        return pooled

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return scores, shape (n_segments, n_labels); parameters as for `embed`."""
        scores: Tensor = self.head(self.embed(waveforms, lengths))
        return scores


class ConvolutionalLayer(nn.Module):
    """A convolution over frequency and time, batch normalisation and ReLU.

    It has a residual connection if input and output have the same shape (He et al. 2016).

    Parameters
    ----------
    n_inputs, n_channels
        Numbers of channels of its input and output.
    kernel, stride
        Kernel sizes, which are odd, and strides, over frequency and time.
    squeeze
        Whether to add squeeze-and-excitation: weights of the channels, computed from their means
        (Hu et al. 2018).
    """

    def __init__(
        self,
        n_inputs: int,
        n_channels: int,
        kernel: tuple[int, int],
        stride: tuple[int, int],
        *,
        squeeze: bool = False,
    ) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convolution = nn.Conv2d(
            n_inputs, n_channels, kernel, stride=stride, padding=padding, bias=False
        )
        self.norm = nn.BatchNorm2d(n_channels)
        n_hidden = max(8, n_channels // 8)
        self.squeeze = (
            nn.Sequential(
                nn.Linear(n_channels, n_hidden),
                nn.ReLU(),
                nn.Linear(n_hidden, n_channels),
                nn.Sigmoid(),
            )
            if squeeze
            else None
        )
        self.adds = n_inputs == n_channels and stride == (1, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the layer's frames and their mask.

        Parameters
        ----------
        frames
            Frames, zero after the end of each segment, shape (n_segments, n_inputs, n_bands,
            n_frames).
        mask
            1 for frames of the segment, 0 after its end, shape (n_segments, n_frames).
        """
        mask = mask[:, :: self.convolution.stride[1]]
        # PyTorch 2.14 computes strided convolutions in bf16 of fewer frames than the kernel from
        # memory beside them.
        lacking = self.convolution.kernel_size[1] - frames.shape[3]
        padded = functional.pad(frames, (0, lacking)) if lacking > 0 else frames
        out = self.norm(self.convolution(padded)[..., : mask.shape[1]])
        # In the same number type, or every product with it would become float32.
        inside = mask[:, None, None].to(out.dtype)
        if self.squeeze is not None:
            count = mask.sum(dim=1)[:, None] * out.shape[2]
            means = (out * inside).sum(dim=(2, 3), dtype=torch.float32) / count
            out = out * self.squeeze(means)[:, :, None, None].to(out.dtype)
        if self.adds:
            out = out + frames
        return functional.relu(out) * inside, mask
