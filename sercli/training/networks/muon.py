"""Muon: an optimiser whose steps have the same length in every direction of a weight matrix.

Equivalent to `torch.optim.Muon` but for two differences. Matrix products are in float32: torch
computes them in bfloat16, which would take most of the training time on processors without
instructions for it. And most products are of the Gram matrix, which is smaller than the gradient
where a layer has more inputs than outputs.
"""

from collections.abc import Iterable
from typing import Any, Final

import torch
from torch import Tensor

MOMENTUM: Final = 0.95
# Coefficients of the quintic iteration of Jordan et al. (2024), chosen for the largest slope at
# zero.
COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
N_ITERATIONS: Final = 5
# Root mean square of a step, the same as that of AdamW's steps (Liu et al. 2025).
STEP_RMS: Final = 0.2
EPSILON: Final = 1e-7


class Muon(torch.optim.Optimizer):
    """Optimiser that steps along the orthogonal factor of the gradient (Jordan et al. 2024).

    It uses Nesterov momentum and decoupled weight decay.

    Parameters
    ----------
    params
        Matrices, or groups of matrices with their own settings.
    lr
        Learning rate, on the same scale as that of `torch.optim.AdamW`.
    weight_decay
        Weight decay; each step multiplies the weights by ``1 - lr * weight_decay``.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update the matrices that have gradients."""
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


def orthogonalise(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors, and singular values near 1.

    Each step of the Newton-Schulz iteration multiplies the matrix X by a polynomial of its Gram
    matrix X Xᵀ. These polynomials commute; so only the Gram matrix is iterated, and X is multiplied
    once, by the product of all polynomials.

    Parameters
    ----------
    matrix
        Matrix of float32, shape (n_rows, n_columns).

    Returns
    -------
    Tensor
        Matrix of the same shape. Singular values above a thousandth of the norm of `matrix` become
        0.4 to 1.25; smaller ones are multiplied by up to 485.
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
