"""Pooling of the frames of a segment of any length into one row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Added under a square root, so that a constant channel has a finite gradient.
TINY = 1e-5
# Width of the network that computes attentive weights.
N_HIDDEN = 128


class AttentiveStatistics(nn.Module):
    """Weighted mean and standard deviation over time (Okabe et al. 2018).

    Each channel has weights of its own, which also depend on the mean and deviation of the whole
    segment (Desplanques et al. 2020).

    Parameters
    ----------
    n_channels
        Number of channels of the frames.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.hidden = nn.Conv1d(3 * n_channels, N_HIDDEN, 1)
        self.scores = nn.Conv1d(N_HIDDEN, n_channels, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return means, then deviations, shape (n_segments, 2 * n_channels).

        Parameters
        ----------
        frames
            Frames, shape (n_segments, n_channels, n_frames).
        mask
            1 for frames of the segment, 0 after its end, shape (n_segments, n_frames).
        """
        inside = mask[:, None]
        even = inside / inside.sum(dim=2, keepdim=True)
        whole = [part[:, :, None].expand_as(frames) for part in weighted_statistics(frames, even)]
        scores = self.scores(self.hidden(torch.cat([frames, *whole], dim=1)).tanh()).float()
        weights = scores.masked_fill(inside == 0, float("-inf")).softmax(dim=2)
        return torch.cat(weighted_statistics(frames, weights), dim=1)


def weighted_statistics(frames: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation over time, each of shape (n_segments, n_channels).

    Parameters
    ----------
    frames
        Frames, shape (n_segments, n_channels, n_frames).
    weights
        Weights of the frames, summing to 1 over time; of the same shape, or with a single channel.
    """
    mean = (frames * weights).sum(dim=2)
    variance = ((frames - mean[:, :, None]).square() * weights).sum(dim=2)
    return mean, (variance + TINY).sqrt()


def statistics(rows: Tensor, spans: Sequence[slice]) -> Tensor:
    """Return the mean and standard deviation over time of each segment.

    Segments are processed one by one, so that results do not depend on the rest of the batch, to
    the last bit.

    Parameters
    ----------
    rows
        Frames, shape (n_rows, n_channels).
    spans
        Rows of each segment.

    Returns
    -------
    Tensor, shape (n_segments, 2 * n_channels)
    """
    found = []
    for span in spans:
        frames = rows[span].float()
        mean = frames.mean(dim=0)
        variance = (frames - mean).square().mean(dim=0)
        found.append(torch.cat((mean, (variance + TINY).sqrt())))
    return torch.stack(found)


def pool_states(states: Sequence[Tensor], spans: Sequence[slice]) -> Tensor:
    """Return the statistics over time of all hidden states, shape (n_segments, n_features).

    Parameters
    ----------
    states, spans
        Output of an encoder, see `sercli.neural.speech_encoder.SpeechEncoder.forward`.
    """
    return torch.cat([statistics(state, spans) for state in states], dim=1)
