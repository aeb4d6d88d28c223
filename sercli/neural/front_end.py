"""From waveforms to level-normalised log-mel frames, in batches, on the network's device."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelScale, Spectrogram

from sercli.errors import ConfigError
from sercli.neural.batching import mask_padding

# Added to the root mean square, so that digital silence does not divide by zero; quieter than any
# recording.
SILENCE = 1e-6
# Least constant offset that is removed, relative to the root mean square.
LEAST_OFFSET = 0.02


@dataclass(frozen=True)
class LogMelSettings:
    """Settings of log-mel frames.

    Parameters
    ----------
    sample_rate
        Sample rate of the waveforms, in Hz.
    win_length, hop_length
        Length of the Hann window and hop length, in samples.
    n_mels
        Number of mel bands.
    f_min, f_max
        Lower edge of the lowest band and upper edge of the highest, in Hz.
    floor
        Dynamic range in dB: lower levels are raised to this much below a segment's highest level.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    sample_rate: int = 16_000
    win_length: int = 512
    hop_length: int = 256
    n_mels: int = 64
    f_min: float = 50.0
    f_max: float = 4000.0
    floor: float = 80.0

    def __post_init__(self) -> None:
        """Check the values that a damaged description could break."""
        if not 0 <= self.f_min < self.f_max <= self.sample_rate / 2:
            raise ConfigError(
                f"mel bands from {self.f_min} to {self.f_max} Hz; expected limits from 0 to "
                f"{self.sample_rate / 2:g} Hz"
            )
        if not 1 <= self.hop_length <= self.win_length or self.n_mels < 1 or self.floor <= 0:
            raise ConfigError(
                f"hop_length is {self.hop_length}, win_length {self.win_length}, n_mels "
                f"{self.n_mels}, floor {self.floor}; expected 1 <= hop_length <= win_length, and "
                "the others above 0"
            )


class LogMel(nn.Module):
    """Log-mel frames that do not depend on the gain of a recording.

    Frames are centred on multiples of the hop length, with silence before the segment's start and
    after its end, whether it is alone or padded in a batch. Each segment's mean over all bands and
    frames is 0, and a difference of 10 dB is about 0.6.

    Parameters
    ----------
    settings
        Settings of the frames.
    """

    # Typical standard deviation in dB of speech levels around their mean.
    SPREAD_DB = 16.0

    def __init__(self, settings: LogMelSettings) -> None:
        super().__init__()
        self.settings = settings
        n_fft = 1 << (settings.win_length - 1).bit_length()
        self.spectrogram = Spectrogram(
            n_fft,
            win_length=settings.win_length,
            hop_length=settings.hop_length,
            power=None,
            pad_mode="constant",
        )
        self.mel_scale = MelScale(
            settings.n_mels,
            settings.sample_rate,
            settings.f_min,
            settings.f_max,
            n_stft=n_fft // 2 + 1,
        )

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return frames and their mask.

        Parameters
        ----------
        waveforms
            Waveforms, zero after the end of each segment, shape (n_segments, n_samples).
        lengths
            Number of samples of each segment, shape (n_segments,).

        Returns
        -------
        frames : Tensor, shape (n_segments, n_mels, n_frames)
            Frames, zero after the end of each segment.
        mask : Tensor, shape (n_segments, n_frames)
            1 for frames of the segment, 0 after its end.
        """
        # Without autocast, since the logarithms of levels need the full precision of float32.
        with torch.autocast(waveforms.device.type, enabled=False):
            waveforms = remove_offset(waveforms.float(), lengths)
            power = waveforms.square().sum(dim=1, keepdim=True) / lengths[:, None]
            spectrum = self.spectrogram(waveforms / (power.sqrt() + SILENCE))
            levels = self.mel_scale(measure_power(spectrum))
            counts = 1 + lengths // self.settings.hop_length
            mask = mask_padding(counts, levels.shape[2]).to(levels.dtype)
            inside = mask[:, None]
            levels = 10 * torch.log10(levels + 1e-10) * inside - 1e3 * (1 - inside)
            floor = levels.amax(dim=(1, 2), keepdim=True) - self.settings.floor
            levels = torch.maximum(levels, floor) * inside
            mean = levels.sum(dim=(1, 2), keepdim=True) / (
                inside.sum(dim=2, keepdim=True) * levels.shape[1]
            )
            return (levels - mean) / self.SPREAD_DB * inside, mask


def remove_offset(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Return waveforms without the constant offset that some sound cards add.

    It would count in the level of a segment, and leak into the lowest bands. Offsets below
    `LEAST_OFFSET` make no difference, and such waveforms stay exactly as they are.

    Parameters
    ----------
    waveforms
        Waveforms, zero after the end of each segment, shape (n_segments, n_samples).
    lengths
        Number of samples of each segment, shape (n_segments,).
    """
    mean = waveforms.sum(dim=1) / lengths
    power = waveforms.square().sum(dim=1) / lengths
    offset = torch.where(mean.square() > LEAST_OFFSET**2 * power, mean, 0.0)
    removed: Tensor = waveforms - offset[:, None] * mask_padding(lengths, waveforms.shape[1])
    return removed


def measure_power(spectrum: Tensor) -> Tensor:
    """Return the squared magnitudes of complex numbers.

    Taking the absolute value and squaring it, or summing over pairs of real and imaginary parts,
    would take half of a front end's time.

    Parameters
    ----------
    spectrum
        Complex tensor of any shape.
    """
    return spectrum.real.square() + spectrum.imag.square()
