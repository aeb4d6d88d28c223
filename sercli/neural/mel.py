"""Log-mel frames as pre-trained encoders expect them, in batches, independent of the gain."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.compliance.kaldi import fbank
from torchaudio.transforms import MelScale, Spectrogram

from sercli.audio import SAMPLE_RATE
from sercli.neural.batching import mask_padding
from sercli.neural.front_end import SILENCE, measure_power, remove_offset

NYQUIST = SAMPLE_RATE / 2
# Root mean square to which segments are scaled, that of speech which is not loud.
LEVEL = 0.05
# Low-pass filter at the band limit: an attenuation of 80 dB within a transition band of 200 Hz.
FILTER_TAPS = 401
FILTER_BETA = 7.86
FILTER_TRANSITION = 200.0
# Number of samples in a block of the filter.
FILTER_BLOCK = 2048


class WhisperMel(nn.Module):
    """Frames of Whisper (Radford et al. 2023): 25 ms every 10 ms, down to 80 dB below the loudest.

    Parameters
    ----------
    n_mels
        Number of mel bands, up to 8 kHz.
    band_limit
        Frequency in Hz above which audio is removed, so that it affects neither the bands above,
        which are at the floor, nor the level, nor, by leakage of the window, the bands below.
    """

    WIN_LENGTH = 400
    HOP_LENGTH = 160

    def __init__(self, n_mels: int, band_limit: float = NYQUIST) -> None:
        super().__init__()
        # Number of bins up to and including the band limit.
        self.n_kept = 1 + int(band_limit * self.WIN_LENGTH / SAMPLE_RATE)
        self.low_pass = LowPass(band_limit) if band_limit < NYQUIST else None
        self.spectrogram = Spectrogram(
            self.WIN_LENGTH, hop_length=self.HOP_LENGTH, power=None, pad_mode="constant"
        )
        self.mel_scale = MelScale(
            n_mels,
            SAMPLE_RATE,
            0.0,
            NYQUIST,
            n_stft=self.WIN_LENGTH // 2 + 1,
            norm="slaney",
            mel_scale="slaney",
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
        mask : Tensor of bool, shape (n_segments, n_frames)
            True for frames of the segment, False after its end.
        """
        # Without autocast, since the logarithms of levels need the full precision of float32.
        with torch.autocast(waveforms.device.type, enabled=False):
            waveforms = remove_offset(waveforms.float(), lengths)
            if self.low_pass is not None:
                waveforms = self.low_pass(waveforms, lengths)
            spectrum = self.spectrogram(level(waveforms, lengths))
            power = measure_power(spectrum)
            power[:, self.n_kept :] = 0
            levels = self.mel_scale(power)
            counts = torch.clamp(lengths // self.HOP_LENGTH, min=1)
            levels = levels[:, :, : int(counts.max())]
            mask = mask_padding(counts, levels.shape[2])
            inside = mask[:, None]
            levels = levels.clamp(min=1e-10).log10().masked_fill(~inside, -torch.inf)
            floor = levels.amax(dim=(1, 2), keepdim=True) - 8.0
            return ((torch.maximum(levels, floor) + 4.0) / 4.0) * inside, mask


class LowPass(nn.Module):
    """A zero-phase low-pass filter.

    It is the counterpart of `sercli.audio.filters.limit_band` for a batch on the device. Each
    sample depends on only a few around it, so padding has no effect. Waveforms are filtered in
    blocks of the same size (overlap-save), which is faster than filtering them at once and gives
    the same result to the last bit whatever their padding.

    Parameters
    ----------
    limit
        Stop-band edge in Hz; frequencies lower than `FILTER_TRANSITION` below it pass unchanged.
    """

    taps: Tensor

    def __init__(self, limit: float) -> None:
        super().__init__()
        cutoff = 2 * (limit - FILTER_TRANSITION / 2) / SAMPLE_RATE
        places = torch.arange(FILTER_TAPS, dtype=torch.float64) - FILTER_TAPS // 2
        window = torch.kaiser_window(
            FILTER_TAPS, periodic=False, beta=FILTER_BETA, dtype=torch.float64
        )
        taps = torch.sinc(cutoff * places) * window
        self.register_buffer("taps", (taps / taps.sum()).float(), persistent=False)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return the filtered waveforms, of the same shape and zero after their ends.

        Parameters
        ----------
        waveforms, lengths
            As for `WhisperMel.forward`.
        """
        n_samples, before = waveforms.shape[1], FILTER_TAPS // 2
        # The first outputs of each block are discarded: they wrap around (circular convolution).
        n_lost = FILTER_TAPS - 1
        step = FILTER_BLOCK - n_lost
        after = -n_samples % step + n_lost - before
        blocks = functional.pad(waveforms, (before, after)).unfold(1, FILTER_BLOCK, step)
        spectrum = torch.fft.rfft(blocks) * torch.fft.rfft(self.taps, FILTER_BLOCK)
        filtered = torch.fft.irfft(spectrum, FILTER_BLOCK)[:, :, n_lost:].flatten(1)[:, :n_samples]
        inside: Tensor = filtered * mask_padding(lengths, n_samples)
        return inside


class KaldiMel(nn.Module):
    """Frames of the audio spectrogram transformer (Gong et al. 2021): Kaldi's, standardised.

    Parameters
    ----------
    n_mels
        Number of mel bands, up to 8 kHz.
    mean, deviation
        Mean to subtract, and standard deviation, by twice which the frames are divided.
    """

    def __init__(self, n_mels: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.n_mels, self.mean, self.deviation = n_mels, mean, deviation

    def forward(self, waveforms: Tensor, lengths: Tensor, least: int) -> tuple[Tensor, Tensor]:
        """Return frames and their number for each segment.

        Parameters
        ----------
        waveforms, lengths
            As for `WhisperMel.forward`.
        least
            Least number of frames of a segment; shorter ones are padded before standardisation.

        Returns
        -------
        frames : Tensor, shape (n_segments, n_frames, n_mels)
            Standardised frames.
        counts : Tensor, shape (n_segments,)
            Number of frames of each segment.
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            levelled = level(remove_offset(waveforms.float(), lengths), lengths)
            parts = [
                fbank(
                    waveform[None, : int(length)],
                    sample_frequency=SAMPLE_RATE,
                    htk_compat=True,
                    window_type="hanning",
                    num_mel_bins=self.n_mels,
                )
                for waveform, length in zip(levelled, lengths, strict=True)
            ]
        counts = [max(len(part), least) for part in parts]
        frames = waveforms.new_zeros((len(parts), max(counts), self.n_mels))
        for row, part in zip(frames, parts, strict=True):
            row[: len(part)] = part
        standardised = (frames - self.mean) / (2 * self.deviation)
        return standardised, torch.tensor(counts, device=lengths.device)


def level(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Return waveforms scaled to the same root mean square over their own samples.

    Each is summed without its padding, since the order of a sum, and so its rounding, depends on
    the length.

    Parameters
    ----------
    waveforms, lengths
        As for `WhisperMel.forward`.
    """
    power = torch.stack(
        [
            one[:length].square().mean()
            for one, length in zip(waveforms, lengths.tolist(), strict=True)
        ]
    )
    return waveforms * (LEVEL / (power.sqrt() + SILENCE))[:, None]
