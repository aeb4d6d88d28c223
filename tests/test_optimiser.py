"""Muon for convolutions, AdamW for the rest."""

import pytest
import torch
from torch import nn

from sercli.errors import ConfigError
from sercli.training.config import NeuralConfig
from sercli.training.networks.muon import Muon, orthogonalise
from sercli.training.networks.optimiser import Optimiser

RATE = 0.01


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, bias=False),  # hears the frames
        nn.Conv2d(6, 8, (1, 5), bias=False),
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


def config(**changes: object) -> NeuralConfig:
    settings = {"optimiser": "muon", "learning_rate": RATE, "weight_decay": 0.0, **changes}
    return NeuralConfig(**settings)  # type: ignore[arg-type]


def set_gradients(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
        # One direction that dominates the others.
        parameter.grad[0] *= 30


def weights(net: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in net.parameters()]


def make(net: nn.Module, **changes: object) -> Optimiser:
    return Optimiser([(list(net.parameters()), 1.0)], config(**changes))


def test_convolution_goes_equally_far_in_every_direction() -> None:
    net = network()
    before = weights(net)
    set_gradients(net, 0)
    make(net).step()
    moved = (before[1] - weights(net)[1]).reshape(8, -1)
    # As long as a step of AdamW, whose numbers are all near the learning rate, times 0.2.
    sizes = torch.linalg.svdvals(moved) / (RATE * 0.2 * 30**0.5)
    assert sizes.min() > 0.5
    assert sizes.max() < 1.35
    gradient = list(net.parameters())[1].grad
    assert gradient is not None
    assert (moved * gradient.reshape(8, -1)).sum() > 0


def test_all_else_has_adamw() -> None:
    net = network()
    before = weights(net)
    set_gradients(net, 0)
    make(net).step()
    for index, (old, new) in enumerate(zip(before, weights(net), strict=True)):
        if index != 1:
            # The first step of AdamW is the learning rate, whatever the gradient's size.
            torch.testing.assert_close((old - new).abs(), torch.full_like(old, RATE))


def test_adamw_can_have_everything() -> None:
    net = network()
    before = weights(net)
    set_gradients(net, 0)
    make(net, optimiser="adamw").step()
    for old, new in zip(before, weights(net), strict=True):
        torch.testing.assert_close((old - new).abs(), torch.full_like(old, RATE))


def test_only_what_is_multiplied_with_is_drawn_to_zero() -> None:
    net = network()
    before = weights(net)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make(net, weight_decay=0.5).step()
    for old, new in zip(before, weights(net), strict=True):
        expected = old * (1 - RATE * 0.5) if old.ndim > 1 else old
        torch.testing.assert_close(new, expected)


def test_each_group_has_its_factor_of_the_rate() -> None:
    net = network()
    before = weights(net)
    set_gradients(net, 0)
    parameters = list(net.parameters())
    optimiser = Optimiser([(parameters[:2], 0.0), (parameters[2:], 0.5)], config())
    optimiser.set_rate(2 * RATE)
    optimiser.step()
    after = weights(net)
    torch.testing.assert_close(after[:2], before[:2], rtol=0, atol=0)
    torch.testing.assert_close((before[4] - after[4]).abs(), torch.full_like(after[4], RATE))


def test_what_is_frozen_stays() -> None:
    net = network()
    before = weights(net)
    set_gradients(net, 0)
    net[1].weight.requires_grad = False
    make(net).step()
    torch.testing.assert_close(weights(net)[1], before[1], rtol=0, atol=0)


def test_goes_on_from_its_state_as_if_never_interrupted() -> None:
    net = network()
    optimiser = make(net)
    set_gradients(net, 0)
    optimiser.step()
    other = network()
    other.load_state_dict(net.state_dict())
    resumed = make(other)
    resumed.restore({key: value.clone() for key, value in optimiser.state().items()})
    for net_, optimiser_ in ((net, optimiser), (other, resumed)):
        set_gradients(net_, 1)
        optimiser_.step()
    torch.testing.assert_close(weights(other), weights(net), rtol=0, atol=0)
    # The state counts: a new optimiser would step elsewhere.
    fresh = network()
    fresh.load_state_dict(net.state_dict())
    assert optimiser.state().keys() == resumed.state().keys() != make(fresh).state().keys()


def test_unknown_optimiser_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected muon or adamw"):
        NeuralConfig(optimiser="sgd")  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(24, 100), (100, 24), (32, 32)])
def test_gradients_are_orthogonalised_as_by_the_iteration_itself(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    # From large to what can hardly be told from zero.
    matrix = left @ torch.diag(torch.logspace(1, -5, min(shape))) @ right
    expected = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = expected @ expected.T
        expected = 3.4445 * expected + (-4.7750 * gram + 2.0315 * gram @ gram) @ expected
    torch.testing.assert_close(orthogonalise(matrix).double(), expected, rtol=0, atol=1e-3)


def test_steps_are_those_of_torch() -> None:
    """Its products are of bfloat16, so that a step is the same to two digits."""
    start = torch.randn(20, 40, generator=torch.Generator().manual_seed(0))
    found = []
    for make_muon in (
        lambda p: Muon([p], lr=RATE, weight_decay=0.1),
        lambda p: torch.optim.Muon([p], lr=RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ):
        parameter = nn.Parameter(start.clone())
        muon = make_muon(parameter)
        for seed in range(4):
            generator = torch.Generator().manual_seed(seed)
            parameter.grad = torch.randn(start.shape, generator=generator)
            muon.step()
        found.append(parameter.detach() - start)
    assert (found[0] - found[1]).norm() < 0.01 * found[1].norm()
    assert found[1].norm() > 0.2
