"""Log-mel frames as pre-trained encoders know them, in batches, whatever the gain."""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchaudio.compliance.kaldi import fbank
from torchaudio.transforms import MelScale, Spectrogram

from sercli.neural.front_end import SILENCE, measure_power

SAMPLE_RATE = 16_000
NYQUIST = SAMPLE_RATE / 2
# Root mean square to which a segment is brought: that of speech which is not loud.
LEVEL = 0.05
# Of the filter at the band limit: 80 dB of attenuation, reached within 200 Hz.
FILTER_TAPS = 401
FILTER_BETA = 7.86
FILTER_TRANSITION = 200.0
# Samples that are filtered at once.
FILTER_BLOCK = 2048


class WhisperMel(nn.Module):
    """Frames of Whisper (Radford et al. 2023): 25 ms every 10 ms, down to 80 dB below the loudest.

    Parameters
    ----------
    n_mels
        Number of bands, up to 8 kHz.
    band_limit
        Frequency in Hz above which nothing is heard: neither in these bands, which are as soft as
        can be, nor as part of the level, nor by what a window smears to below it.
    """

    WIN_LENGTH = 400
    HOP_LENGTH = 160

    def __init__(self, n_mels: int, band_limit: float = NYQUIST) -> None:
        super().__init__()
        # Of the bins of the spectrum, which go up to and including the highest frequency.
        self.n_heard = 1 + int(band_limit * self.WIN_LENGTH / SAMPLE_RATE)
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
        """Return frames and which of them are of the segment.

        Parameters
        ----------
        waveforms
            Zero after the end of each segment, shape (n_segments, n_samples).
        lengths
            Samples of each segment, shape (n_segments,).

        Returns
        -------
        frames : Tensor, shape (n_segments, n_mels, n_frames)
            Zero after the end of each segment; their number is even, or odd for the longest alone.
        mask : Tensor of bool, shape (n_segments, n_frames)
            True for frames of the segment.
        """
        # Autocast must not touch levels: their logarithms need every bit that float32 has.
        with torch.autocast(waveforms.device.type, enabled=False):
            waveforms = waveforms.float()
            if self.low_pass is not None:
                waveforms = self.low_pass(waveforms, lengths)
            spectrum = self.spectrogram(level(waveforms, lengths))
            power = measure_power(spectrum)
            power[:, self.n_heard :] = 0
            levels = self.mel_scale(power)
            counts = torch.clamp(lengths // self.HOP_LENGTH, min=1)
            levels = levels[:, :, : int(counts.max())]
            mask = torch.arange(levels.shape[2], device=lengths.device) < counts[:, None]
            inside = mask[:, None]
            levels = levels.clamp(min=1e-10).log10().masked_fill(~inside, -torch.inf)
            floor = levels.amax(dim=(1, 2), keepdim=True) - 8.0
            return ((torch.maximum(levels, floor) + 4.0) / 4.0) * inside, mask


class LowPass(nn.Module):
    """Takes what is above a frequency from waveforms, without moving what is below in time.

    It does for a batch on the device what `sercli.audio.filters.limit_band` does for one waveform;
    and each sample depends on a few around it only, so that padding changes nothing. Waveforms are
    filtered in blocks of the same size (overlap-save), which is faster than all at once, and gives
    the same to the last bit whatever they are padded to.

    Parameters
    ----------
    limit
        In Hz; what is `FILTER_TRANSITION` below is untouched.
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
        """Return the waveforms, filtered, of the same shape and zero after their ends.

        Parameters
        ----------
        waveforms, lengths
            As for `WhisperMel.forward`.
        """
        n_samples, before = waveforms.shape[1], FILTER_TAPS // 2
        # Of each block, what is heard before its first full sum is left out.
        n_lost = FILTER_TAPS - 1
        step = FILTER_BLOCK - n_lost
        after = -n_samples % step + n_lost - before
        blocks = functional.pad(waveforms, (before, after)).unfold(1, FILTER_BLOCK, step)
        spectrum = torch.fft.rfft(blocks) * torch.fft.rfft(self.taps, FILTER_BLOCK)
        filtered = torch.fft.irfft(spectrum, FILTER_BLOCK)[:, :, n_lost:].flatten(1)[:, :n_samples]
        places = torch.arange(n_samples, device=lengths.device)
        inside: Tensor = filtered * (places < lengths[:, None])
        return inside


class KaldiMel(nn.Module):
    """Frames of the audio spectrogram transformer (Gong et al. 2021): Kaldi's, standardised.

    Parameters
    ----------
    n_mels
        Number of bands, up to 8 kHz.
    mean, deviation
        By which they are standardised.
    """

    def __init__(self, n_mels: int, mean: float, deviation: float) -> None:
        super().__init__()
        self.n_mels, self.mean, self.deviation = n_mels, mean, deviation

    def forward(self, waveforms: Tensor, lengths: Tensor, least: int) -> tuple[Tensor, Tensor]:
        """Return frames and how many each segment has.

        Parameters
        ----------
        waveforms, lengths
            As for `WhisperMel.forward`.
        least
            Frames that a segment has at least, if need be of silence.

        Returns
        -------
        frames : Tensor, shape (n_segments, n_frames, n_mels)
        counts : Tensor, shape (n_segments,)
        """
        with torch.autocast(waveforms.device.type, enabled=False):
            levelled = level(waveforms.float(), lengths)
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
    """Return waveforms of the same root mean square over their own samples.

    The order of a sum depends on its length: each is summed by itself, not with its padding.

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
