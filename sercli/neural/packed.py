"""Linear layers whose weights lie in the order in which a CPU multiplies bfloat16.

PyTorch brings weights into this order for every product, and copies the bias into the result before
it. With packed weights, oneDNN, by which PyTorch multiplies, does neither. PyTorch itself packs
weights only in what `torch.compile` makes, which takes a minute.
"""

import copy
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn

from sercli.neural.devices import Network, has_amx, has_avx512_bf16
from sercli.neural.whisper import WhisperAttention, WhisperLayer


class PackedLinear(nn.Linear):
    """A linear layer for inference in bfloat16, with packed weights.

    Parameters
    ----------
    layer
        Layer whose weights are packed.
    """

    def __init__(self, layer: nn.Linear) -> None:
        with_bias = layer.bias is not None
        # On that device, no random weights are drawn, which would advance the generator.
        super().__init__(layer.in_features, layer.out_features, bias=with_bias, device="meta")
        weights = layer.weight.detach().to(torch.bfloat16)
        packed = torch.ops.mkldnn._reorder_linear_weight(weights)
        self.weight = nn.Parameter(packed, requires_grad=False)
        if with_bias:
            self.bias = nn.Parameter(layer.bias.detach().to(torch.bfloat16), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the output in bfloat16, shape (n_rows, n_outputs).

        Parameters
        ----------
        rows
            Input, shape (n_rows, n_inputs).
        """
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows.to(torch.bfloat16), self.weight, self.bias, "none", [], ""
        )
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a layer with the same weights, which PyTorch cannot copy."""
        copied = copy.copy(self)
        copied._parameters = dict(self._parameters)
        return copied


def can_pack() -> bool:
    """Return whether this CPU multiplies bfloat16 faster with packed weights.

    With AMX, little is gained, and the results for a segment could depend on its batch.
    """
    built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return built and has_avx512_bf16() and not has_amx()


def pack(network: Network) -> Network:
    """Return a network with packed weights in the layers of a `WhisperEncoder`.

    It gives the same results as the original in bfloat16.

    Parameters
    ----------
    network
        The network, which is not changed. All other weights are shared with it.
    """
    shared = {id(one): one for one in chain(network.parameters(), network.buffers())}
    packed = copy.deepcopy(network, shared)
    for parent in packed.modules():
        if isinstance(parent, WhisperLayer | WhisperAttention):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear):
                    setattr(parent, name, PackedLinear(layer))
    return packed
