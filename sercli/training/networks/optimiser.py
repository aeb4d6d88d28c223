"""The optimiser: Muon for convolutions, AdamW for all other parameters.

Muon (Jordan et al. 2024) takes a step of the same length in every direction of a convolution's
weight matrix, whereas AdamW (Loshchilov and Hutter 2019) follows the few directions that dominate
the gradient. Muon's steps are scaled to the length of AdamW's (Liu et al. 2025), so that both use
the same learning rate.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sercli.training.config import NeuralConfig
from sercli.training.networks.muon import Muon

ParameterGroups = Sequence[tuple[Sequence[nn.Parameter], float]]


class Optimiser:
    """Optimiser of all parameters of a network.

    Parameters
    ----------
    groups
        Groups of parameters, each with the factor of its learning rate.
    config
        Training settings, of which optimiser, learning rate and weight decay are used.
    """

    def __init__(self, groups: ParameterGroups, config: NeuralConfig) -> None:
        muon, adamw = [], []
        # Muon takes matrices: views of the weights of the convolutions.
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        for parameters, factor in groups:
            trained = [p for p in parameters if p.requires_grad]
            matrices = [p for p in trained if config.optimiser == "muon" and _is_hidden(p)]
            views = [p.detach().view(len(p), -1) for p in matrices]
            self._views += zip(matrices, views, strict=True)
            muon.append({"params": views, "weight_decay": config.weight_decay, "factor": factor})
            chosen = {id(p) for p in matrices}
            for decayed in (True, False):
                # No weight decay for biases and other vectors.
                others = [p for p in trained if id(p) not in chosen and (p.ndim > 1) == decayed]
                decay = config.weight_decay if decayed else 0.0
                adamw.append({"params": others, "weight_decay": decay, "factor": factor})
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if rows := [group for group in muon if group["params"]]:
            self._parts["muon"] = Muon(rows, lr=config.learning_rate)
        if rows := [group for group in adamw if group["params"]]:
            self._parts["adamw"] = torch.optim.AdamW(rows, lr=config.learning_rate)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate; each group multiplies it by its own factor."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate * group["factor"]

    def step(self) -> None:
        """Update the parameters from their gradients."""
        for parameter, view in self._views:
            view.grad = None if parameter.grad is None else parameter.grad.reshape(view.shape)
        for part in self._parts.values():
            part.step()

    def state(self) -> dict[str, Tensor]:
        """Return the state of the optimisers as tensors, by names such as ``"adamw.0.exp_avg"``."""
        return {
            f"{name}.{index}.{key}": value
            for name, part in self._parts.items()
            for index, row in part.state_dict()["state"].items()
            for key, value in row.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore a state returned by `state`."""
        rows: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self._parts}
        for place, tensor in state.items():
            name, index, key = place.split(".")
            rows[name].setdefault(int(index), {})[key] = tensor
        for name, part in self._parts.items():
            part.load_state_dict(part.state_dict() | {"state": rows[name]})


def _is_hidden(parameter: nn.Parameter) -> bool:
    """Return whether this is the weight of a convolution of several input channels.

    The first layer, on the frames, has a single one.
    """
    return parameter.ndim > 2 and parameter.shape[1] > 1
