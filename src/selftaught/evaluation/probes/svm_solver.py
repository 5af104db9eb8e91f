"""Linear support vector machines with squared hinge loss, many at once, by Newton's method in the primal.

As the trust-region Newton solver of liblinear (Lin, Weng, Keerthi, JMLR 2008), with a line search instead of the trust
region: each step is solved by conjugate gradients, which need products with X and X' only. All problems share the
features, so the products are those of matrices, which is what makes cross-validation of many classes fast.

Letters: n images, d dimensions, c problems (columns).
"""

import torch
from torch import Tensor

from selftaught.evaluation.probes.base import transposed_product

NEWTON_STEPS, CG_STEPS, HALVINGS = 50, 50, 20
TOLERANCE = 3e-5
"""The gradient at the solution, relative to that at 0: liblinear's default where a third of the images are positive."""
FORCING = 0.1
"""Residual of a Newton step, relative to the gradient."""
ARMIJO = 1e-4


def minimize(features: Tensor, signs: Tensor, costs: Tensor, start: Tensor | None = None) -> Tensor:
    """Minimize ||w||^2 / 2 + sum_i costs_i max(0, 1 - signs_i x_i.w)^2 for every column.

    Args:
        features: (n, d) float32.
        signs: (n, c), -1 or 1.
        costs: (n, c), at least 0; 0 leaves an image out.
        start: (d, c), where to start; None for 0.

    Returns:
        (d, c).
    """
    weight = features.new_zeros(features.shape[1], signs.shape[1]) if start is None else start.clone()
    limit = TOLERANCE * (2 * transposed_product(features, costs * signs)).norm(dim=0)  # of the gradient at 0
    scores = features @ weight
    for _ in range(NEWTON_STEPS):
        active = 2 * costs * (signs * scores < 1)
        gradient = weight + transposed_product(features, active * (scores - signs))
        unsolved = gradient.norm(dim=0) > limit
        if not unsolved.any():
            break
        step = _newton_step(features, active, gradient) * unsolved
        change = features @ step
        scale = _line_search(weight, step, scores, change, signs, costs, (gradient * step).sum(0))
        if not scale.any():  # the limit of float32
            break
        weight = weight + scale * step
        scores = scores + scale * change
    return weight


def _newton_step(features: Tensor, active: Tensor, gradient: Tensor) -> Tensor:
    """(d, c): solve (I + X' diag(active) X) step = -gradient approximately, by conjugate gradients."""
    step = torch.zeros_like(gradient)
    residual = -gradient
    direction = residual.clone()
    square = residual.square().sum(0)
    limit = FORCING**2 * square
    for _ in range(CG_STEPS):
        going = square > limit
        if not going.any():
            break
        product = direction + transposed_product(features, active * (features @ direction))
        length = torch.where(going, square / (direction * product).sum(0).clamp_min(1e-30), 0.0)
        step = step + length * direction
        residual = residual - length * product
        square, before = residual.square().sum(0), square
        direction = residual + square / before.clamp_min(1e-30) * direction
    return step


def _line_search(
    weight: Tensor, step: Tensor, scores: Tensor, change: Tensor, signs: Tensor, costs: Tensor, slope: Tensor
) -> Tensor:
    """(c,): the first of 1, 1/2, 1/4 ... that lowers the objective enough (Armijo), 0 if there is none."""

    def objective(scale: Tensor) -> Tensor:
        hinge = (1 - signs * (scores + scale * change)).clamp_min(0)
        return (weight + scale * step).square().sum(0) / 2 + (costs * hinge.square()).sum(0)

    scale = torch.ones_like(slope)
    before = objective(torch.zeros_like(slope))
    for _ in range(HALVINGS):
        accepted = objective(scale) <= before + ARMIJO * scale * slope
        if accepted.all():
            return scale
        scale = torch.where(accepted, scale, scale / 2)
    return torch.where(objective(scale) < before, scale, 0.0)
