"""Waveforms of different lengths as one tensor."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from sercli.arrays import FloatArray


class WaveformBatch(NamedTuple):
    """A padded batch of waveforms.

    Parameters
    ----------
    waveforms
        Waveforms, padded with zeros at their ends, float32, shape (n_segments, n_samples).
    lengths
        Number of samples of each waveform, int64, shape (n_segments,).
    """

    waveforms: torch.Tensor
    lengths: torch.Tensor


def mask_padding(lengths: torch.Tensor, longest: int) -> torch.Tensor:
    """Return which places of a padded batch are within their segments, not after the ends.

    Parameters
    ----------
    lengths
        Number of samples or frames of each segment, shape (n_segments,).
    longest
        Number of samples or frames with the padding.

    Returns
    -------
    Tensor of bool, shape (n_segments, longest)
    """
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def pad(waveforms: Sequence[FloatArray]) -> WaveformBatch:
    """Return waveforms as a padded batch.

    Parameters
    ----------
    waveforms
        One or more waveforms, each of shape (n_samples,).
    """
    lengths = [len(waveform) for waveform in waveforms]
    padded = np.zeros((len(waveforms), max(lengths)), np.float32)
    for row, waveform in zip(padded, waveforms, strict=True):
        row[: len(waveform)] = waveform
    return WaveformBatch(torch.from_numpy(padded), torch.tensor(lengths))
