"""Random masking of a network's input frames in training (SpecAugment, Park et al. 2019)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sercli.errors import ConfigError


@dataclass(frozen=True)
class MaskingSettings:
    """Settings of the random masking of frames in training.

    Parameters
    ----------
    n_bands, n_times
        Numbers of masks over bands and over frames.
    max_bands, max_times
        Greatest width of a mask, as a share of all bands and of the segment's frames, in
        ``[0, 1]``.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    n_bands: int = 2
    n_times: int = 1
    max_bands: float = 0.125
    max_times: float = 0.2

    def __post_init__(self) -> None:
        """Check every value against its range."""
        if min(self.n_bands, self.n_times) < 0:
            raise ConfigError(
                f"stripes to hide are {self.n_bands} and {self.n_times}; expected 0 or more"
            )
        if not (0 <= self.max_bands <= 1 and 0 <= self.max_times <= 1):
            raise ConfigError(
                f"shares to hide are {self.max_bands} and {self.max_times}; expected 0 to 1"
            )


def mask_at_random(frames: Tensor, mask: Tensor, settings: MaskingSettings) -> Tensor:
    """Return frames with some bands and times set to 0, the mean of level-normalised frames.

    Parameters
    ----------
    frames
        Frames, shape (n_segments, n_bands, n_frames).
    mask
        1 for frames of the segment, 0 after its end, shape (n_segments, n_frames).
    settings
        Settings of the masking.
    """
    n_segments, n_bands, n_frames = frames.shape
    bands = torch.full((n_segments,), n_bands, device=frames.device)
    hidden = _draw_stripes(bands, n_bands, settings.n_bands, settings.max_bands)[:, :, None]
    times = mask.sum(dim=1)
    hidden = hidden | _draw_stripes(times, n_frames, settings.n_times, settings.max_times)[:, None]
    return frames.masked_fill(hidden, 0.0)


def _draw_stripes(sizes: Tensor, n_places: int, n_stripes: int, max_share: float) -> Tensor:
    """Return which of the places are masked, shape (n_segments, n_places)."""
    places = torch.arange(n_places, device=sizes.device)
    hidden = torch.zeros(len(sizes), n_places, dtype=torch.bool, device=sizes.device)
    for _ in range(n_stripes):
        # Drawn on the CPU for any device, so that a seed has the same effect everywhere.
        width, start = torch.rand(2, len(sizes)).to(sizes.device)
        # Uniform over the integers from 0 to the greatest width, inclusive.
        width = (width * ((max_share * sizes).floor() + 1)).floor()
        first = (start * (sizes - width + 1)).floor()
        inside = (places >= first[:, None]) & (places < (first + width)[:, None])
        hidden = hidden | inside
    return hidden
