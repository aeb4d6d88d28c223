"""Matrix products of eight-bit integers instead of floating-point numbers, on a CPU.

Each row of the weights and, at run time, each row of a layer's input has a scale of its own
(Dettmers et al. 2022, without their treatment of outliers), so that the result for a segment does
not depend on the rest of its batch.
"""

import copy

import torch
from torch import Tensor, nn

from sercli.errors import ConfigError
from sercli.neural.devices import Network

# Largest magnitude of an integer.
LARGEST = 127
# Least magnitude that a scale is computed from, so that a row of zeros has a scale above 0.
TINY = 1e-12


class QuantisedLinear(nn.Module):
    """A linear layer that multiplies eight-bit integers.

    Parameters
    ----------
    layer
        Layer whose weights are quantised.
    """

    scales: Tensor
    integers: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weights = layer.weight.detach()
        scales = weights.abs().amax(dim=1).clamp(min=TINY) / LARGEST
        integers = (weights / scales[:, None]).round().to(torch.int8)
        self.register_buffer("scales", scales)
        self.register_buffer("integers", integers.t().contiguous())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach())

    def forward(self, rows: Tensor) -> Tensor:
        """Return the products, shape (..., n_outputs).

        Parameters
        ----------
        rows
            Input, shape (..., n_inputs).
        """
        flat = rows.reshape(-1, rows.shape[-1])
        scales = flat.abs().amax(dim=1, keepdim=True).clamp_(min=TINY).div_(LARGEST)
        integers = (flat / scales).round_().to(torch.int8)
        products = torch._int_mm(integers, self.integers).float()
        products = products.mul_(scales).mul_(self.scales)
        if self.bias is not None:
            products += self.bias
        return products.view(*rows.shape[:-1], -1)


def quantise(network: Network) -> Network:
    """Return a network whose transformer layers multiply eight-bit integers.

    Parameters
    ----------
    network
        The network, which is not changed.

    Raises
    ------
    ConfigError
        If the network has no transformer layers.
    """
    quantised = copy.deepcopy(network)
    # WavLM's attention does not call its linear layers but passes their weights to a function.
    parents = [
        module
        for name, module in quantised.named_modules()
        if ".layers." in f".{name}." and type(module).__name__ != "WavLMAttention"
    ]
    n_found = 0
    for parent in parents:
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(parent, name, QuantisedLinear(layer))
                n_found += 1
    if not n_found:
        raise ConfigError(
            "precision is 'int8', and the network has no layers of a transformer; expected auto, "
            "fp32, bf16 or fp16"
        )
    return quantised
