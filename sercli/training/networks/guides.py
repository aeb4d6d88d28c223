"""Guides: auxiliary regression targets that a network learns in addition to the labels.

They are principal components of the features of each unchanged clip. A network that also has to
predict them from any augmented version of the clip learns sooner which properties of a voice
matter. The layer that predicts them is dropped after training.
"""

import numpy as np
import torch
from scipy.linalg import eigh
from torch import Tensor, nn

from sercli.arrays import FloatArray, RealArray
from sercli.neural.cnn import Cnn
from sercli.training.networks.loop import Loss

# Standardised features and guides are clipped here: a squared error would follow outliers.
MAX_DEVIATION = 5.0
MAX_GUIDE = 4.0
# Components with less than this share of the largest variance are rounding errors.
RANK_TOLERANCE = 1e-6


def make_guides(features: RealArray, n_components: int) -> FloatArray:
    """Return principal components of standardised features, each scaled to unit variance.

    Parameters
    ----------
    features
        Features of the clips, shape (n_clips, n_features).
    n_components
        Maximum number of components, the largest first; few clips give fewer.

    Returns
    -------
    ndarray of float32, shape (n_clips, n_guides)
        The components, clipped to ``[-MAX_GUIDE, MAX_GUIDE]``.
    """
    n_clips, n_features = features.shape
    rows = features.astype(np.float64)
    rows -= rows.mean(axis=0)
    scale = rows.std(axis=0)
    rows /= np.where(scale > 0, scale, 1)
    np.clip(rows, -MAX_DEVIATION, MAX_DEVIATION, out=rows)
    rows -= rows.mean(axis=0)
    # With fewer clips than features, the smaller Gram matrix gives the same components.
    few = n_clips < n_features
    products = (rows @ rows.T if few else rows.T @ rows) / n_clips
    size = len(products)
    wanted = (max(0, size - n_components), size - 1)
    variances, vectors = eigh(products, subset_by_index=wanted)
    real = variances > RANK_TOLERANCE * variances[-1]
    variances, vectors = variances[real][::-1], vectors[:, real][:, ::-1]
    whitened = vectors * np.sqrt(n_clips) if few else rows @ vectors / np.sqrt(variances)
    guides: FloatArray = np.clip(whitened, -MAX_GUIDE, MAX_GUIDE).astype(np.float32)
    return guides


class GuidedNetwork(nn.Module):
    """A network that also predicts the guides during training.

    Parameters
    ----------
    network
        Network from waveforms to logits.
    n_guides
        Number of guides.
    """

    def __init__(self, network: Cnn, n_guides: int) -> None:
        super().__init__()
        self.network = network
        self.guide = nn.Linear(network.n_features, n_guides)

    def forward(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Return logits, in training mode followed by guides: (n_clips, n_scores + n_guides).

        Parameters
        ----------
        waveforms, lengths
            As for `Cnn.embed`.
        """
        if not self.training:
            logits: Tensor = self.network(waveforms, lengths)
            return logits
        head = self.network.head
        levelled = head[0](self.network.embed(waveforms, lengths))
        return torch.cat((head[1:](levelled), self.guide(levelled)), dim=1)


def guided_loss(find_loss: Loss, n_scores: int, weight: float) -> Loss:
    """Return the loss of a guided network: that of the scores plus the guides' squared error.

    Parameters
    ----------
    find_loss
        Loss of the scores.
    n_scores
        Number of columns of outputs and targets before those of the guides.
    weight
        Weight of the guides' mean squared error.
    """

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        missed = outputs[:, n_scores:].float() - targets[:, n_scores:]
        told = find_loss(outputs[:, :n_scores], targets[:, :n_scores])
        return told + weight * missed.square().mean()

    return loss
