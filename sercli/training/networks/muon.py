"""Muon: steps of the same length in every direction of a matrix of weights.

As `torch.optim.Muon` does it, with two differences. The products are of float32: that of torch
computes in bfloat16, which takes most of a training's time on processors that have no instructions
for it. And most of them are of the Gram matrix, which is smaller than the gradient where a layer
has more inputs than outputs.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, overload

import torch
from torch import Tensor

MOMENTUM: Final = 0.95
# Of the quintic iteration of Jordan et al. (2024), whose slope at zero is as large as can be.
COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
N_ITERATIONS: Final = 5
# A step's root mean square is that of AdamW's (Liu et al. 2025).
STEP_RMS: Final = 0.2
EPSILON: Final = 1e-7


class Muon(torch.optim.Optimizer):
    """Moves matrices along the orthogonal factor of their gradients (Jordan et al. 2024).

    Nesterov's momentum; weight decay that is decoupled from the gradient.

    Parameters
    ----------
    params
        Matrices, or groups of them with settings of their own.
    lr
        Learning rate; it means the same as that of `torch.optim.AdamW`.
    weight_decay
        Share of the weights, times the learning rate, that a step takes away.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move the matrices that have gradients.

        Parameters
        ----------
        closure
            Evaluates the loss, with gradients, and returns it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - MOMENTUM)
                direction = orthogonalise(matrix.grad.lerp(momentum, MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                scale = STEP_RMS * max(matrix.shape) ** 0.5
                matrix.add_(direction, alpha=-group["lr"] * scale)
        return loss


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors, and singular values near 1.

    Newton and Schulz's iteration, of which each step multiplies the matrix X with a polynomial of
    its Gram matrix X Xᵀ. These polynomials commute, so that the Gram matrix can be iterated alone,
    and the matrix is multiplied once, with the product of them all.

    Parameters
    ----------
    matrix
        float32, shape (n_rows, n_columns).

    Returns
    -------
    Tensor
        Of the same shape. Singular values above a thousandth of the matrix's norm become 0.4 to
        1.25; smaller ones are raised by a factor of up to 485.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=EPSILON)
    a, b, c = COEFFICIENTS
    gram = wide @ wide.T
    product = None
    for remaining in reversed(range(N_ITERATIONS)):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if remaining:
            gram = factor @ gram @ factor
    assert product is not None
    wide = product.mm(wide)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
