"""What moves the weights: Muon for convolutions, AdamW for all else.

Muon (Jordan et al. 2024) gives every direction of a convolution's weights a step of the same
length, where AdamW (Loshchilov and Hutter 2019) follows the few that dominate its gradient. A step
has the length of one of AdamW's (Liu et al. 2025), so that both have the same learning rate.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sercli.training.config import NeuralConfig
from sercli.training.networks.muon import Muon

Groups = Sequence[tuple[Sequence[nn.Parameter], float]]


class Optimiser:
    """Takes the steps of a training.

    Parameters
    ----------
    groups
        Parameters with the factor of their learning rate.
    config
        Learning rate, weight decay, and whether convolutions have Muon.
    """

    def __init__(self, groups: Groups, config: NeuralConfig) -> None:
        muon, adamw = [], []
        # Muon takes matrices: each is a view of the weights of a convolution.
        self._views: list[tuple[nn.Parameter, Tensor]] = []
        for parameters, factor in groups:
            trained = [p for p in parameters if p.requires_grad]
            matrices = [p for p in trained if config.optimiser == "muon" and _is_hidden(p)]
            views = [p.detach().view(len(p), -1) for p in matrices]
            self._views += zip(matrices, views, strict=True)
            muon.append({"params": views, "weight_decay": config.weight_decay, "factor": factor})
            chosen = {id(p) for p in matrices}
            for decayed in (True, False):
                # Only what is multiplied with is drawn to zero.
                others = [p for p in trained if id(p) not in chosen and (p.ndim > 1) == decayed]
                decay = config.weight_decay if decayed else 0.0
                adamw.append({"params": others, "weight_decay": decay, "factor": factor})
        self._parts: dict[str, torch.optim.Optimizer] = {}
        if self._views:
            self._parts["muon"] = Muon(
                [group for group in muon if group["params"]], lr=config.learning_rate
            )
        if any(group["params"] for group in adamw):
            self._parts["adamw"] = torch.optim.AdamW(
                [group for group in adamw if group["params"]], lr=config.learning_rate
            )

    def set_rate(self, rate: float) -> None:
        """Set the learning rate, of which each group has its factor."""
        for part in self._parts.values():
            for group in part.param_groups:
                group["lr"] = rate * group["factor"]

    def step(self) -> None:
        """Move the weights along their gradients."""
        for parameter, view in self._views:
            view.grad = None if parameter.grad is None else parameter.grad.reshape(view.shape)
        for part in self._parts.values():
            part.step()

    def state(self) -> dict[str, Tensor]:
        """Return what the next step needs to know of those before: ``"adamw.0.exp_avg"``."""
        return {
            f"{name}.{index}.{key}": value
            for name, part in self._parts.items()
            for index, row in part.state_dict()["state"].items()
            for key, value in row.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a `state`."""
        rows: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in self._parts}
        for place, tensor in state.items():
            name, index, key = place.split(".")
            rows[name].setdefault(int(index), {})[key] = tensor
        for name, part in self._parts.items():
            part.load_state_dict(part.state_dict() | {"state": rows[name]})


def _is_hidden(parameter: nn.Parameter) -> bool:
    """Tell whether these are weights of a convolution that does not hear the frames themselves."""
    return parameter.ndim > 2 and parameter.shape[1] > 1
