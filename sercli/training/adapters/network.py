"""Trainable version of `sercli.adaptation.Adapter`, which takes several groups at once."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sercli.adaptation import (
    LAYERED,
    N_EXPLANATIONS,
    count_mix_inputs,
    describe_mix,
    explain,
    find_likely_shares,
)
from sercli.arrays import FloatArray, RealArray
from sercli.training.config import AdapterConfig

# A smaller variance counts as this one, since the root has no gradient at 0: segments of a group
# may all be the same.
LEAST_VARIANCE = 1e-12


class Group(NamedTuple):
    """Inputs of the network for one group of segments.

    Parameters
    ----------
    inputs
        Standardised inputs of the segments, shape (n_segments, n_inputs).
    mix
        Mix of emotions and size, from `sercli.adaptation.describe_mix`.
    likely
        Likely mix of emotions, from `sercli.adaptation.find_likely_shares`.
    explanations
        Mixes that may explain the mean of the group, from `sercli.adaptation.explain`.
    """

    inputs: Tensor
    mix: Tensor
    likely: Tensor
    explanations: Tensor


def describe_group(inputs: FloatArray, probabilities: RealArray) -> Group:
    """Return the network's inputs for a group.

    Parameters
    ----------
    inputs
        Standardised inputs of the segments, shape (n_segments, n_inputs).
    probabilities
        The model's probabilities of each segment, shape (n_segments, n_labels).
    """
    likely = find_likely_shares(probabilities)
    described = (describe_mix(probabilities), likely, explain(probabilities, likely))
    parts = (torch.from_numpy(part.astype(np.float32)) for part in described)
    return Group(torch.from_numpy(inputs), *parts)


class AdapterNetwork(nn.Module):
    """Trainable version of `sercli.adaptation.Adapter`.

    Parameters
    ----------
    centres
        Mean standardised inputs of each label, shape (n_labels, n_inputs).
    config
        Training settings, of which the widths of the layers are used.
    shrinkage
        See `sercli.adaptation.AdapterSettings`.
    """

    centres: Tensor

    def __init__(self, centres: Tensor, config: AdapterConfig, shrinkage: float) -> None:
        super().__init__()
        n_labels, n_inputs = centres.shape
        n_hidden, n_mix = config.n_hidden, count_mix_inputs(n_labels)
        self.shrinkage = shrinkage
        self.register_buffer("centres", centres)
        self.first = nn.Linear(n_inputs, n_hidden)
        self.last = nn.Linear(n_hidden, n_labels)
        self.trust = _create_layers(n_mix + n_labels, config.n_trust, N_EXPLANATIONS)
        self.context = _create_layers(n_mix + 2 * n_hidden, config.n_context, n_hidden)

    def forward(self, groups: Sequence[Group]) -> Tensor:
        """Return scores of the segments of all groups, shape (n_segments, n_labels).

        The layers and the means are computed for all groups at once, as most of the time would go
        into calls for one small group after another.
        """
        sizes = torch.tensor([len(group.inputs) for group in groups])
        rows = torch.arange(len(groups)).repeat_interleave(sizes)
        # Groups by rows: the product with it is the mean of each group.
        averaging = functional.one_hot(rows, len(groups)).T / sizes[:, None]
        inputs = torch.cat([group.inputs for group in groups])
        mixes = torch.stack([group.mix for group in groups])
        likely = torch.stack([group.likely for group in groups])
        explanations = torch.stack([group.explanations for group in groups])
        trusts = self.trust(torch.cat((mixes, likely), dim=1)).softmax(dim=1)
        explained = (trusts[:, None] @ explanations).squeeze(1) @ self.centres
        trust = (sizes / (sizes + self.shrinkage))[:, None]
        hidden = self.first(inputs - (trust * (averaging @ inputs - explained))[rows])
        means = averaging @ hidden
        variances = averaging @ (hidden - means[rows]).square()
        deviations = variances.clamp(min=LEAST_VARIANCE).sqrt()
        hidden = hidden + self.context(torch.cat((means, deviations, mixes), dim=1))[rows]
        scores: Tensor = self.last(functional.relu(hidden))
        return scores

    def tensors(self) -> dict[str, FloatArray]:
        """Return the tensors of `sercli.adaptation.Adapter` but for ``mean`` and ``scale``."""
        with torch.inference_mode():
            found = {"centres": self.first(self.centres)}
        layers = {"first": self.first, "last": self.last}
        for name in LAYERED:
            layered = getattr(self, name)
            layers |= {f"{name}.0": layered[0], f"{name}.1": layered[-1]}
        for name, layer in layers.items():
            found |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
        return {name: tensor.numpy(force=True) for name, tensor in found.items()}


def _create_layers(n_inputs: int, n_hidden: int, n_outputs: int) -> nn.Sequential:
    """Return two layers whose output is 0 before training, so that a group is only centred."""
    last = nn.Linear(n_hidden, n_outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(n_inputs, n_hidden), nn.ReLU(), last)
