"""Muon: momentum whose update is orthogonalized, for hidden matrices and filters; AdamW for everything else.

Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/. Updates have the root mean square that those of
AdamW have in practice (Liu et al. 2025, arXiv 2502.16982, section 2.2), so all weights share one learning rate and one
weight decay, those of AdamW.

`torch.optim.Muon` is not used: it takes matrices only, so no filters, and always multiplies in bfloat16, which CPUs
without bf16 instructions emulate.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration, chosen by Jordan et al. for the largest slope at 0: singular values end in 0.7 to 1.2, and
need not converge to 1."""
ITERATIONS = 5
UPDATE_RMS = 0.2
"""Root mean square of an update at a learning rate of 1."""
EPSILON = 1e-8


def hidden_matrices(weights: Iterable[nn.Parameter]) -> list[nn.Parameter]:
    """The matrices and filters between the first and the last one, in the order in which data pass them.

    The first and the last one are connected to pixels and to classes, and are left to AdamW, as in the paper. In `gpt`
    the table of positions counts as the first one.
    """
    return [weight for weight in weights if weight.ndim in (2, 4)][1:-1]


def orthogonalize(matrix: Tensor) -> Tensor:
    """Replace all singular values by about 1, by a Newton-Schulz iteration of order five.

    Args:
        matrix: (m, n), of any scale; singular values below about 0.001 of its norm remain smaller.

    Returns:
        (m, n), the same singular vectors; zero for a matrix of zeros.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=1e-30)
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        wide = a * wide + torch.addmm(gram, gram, gram, beta=b, alpha=c) @ wide
    return wide.T if len(matrix) > matrix.shape[1] else wide


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for the groups with `orthogonal=True`, AdamW for the others.

    Args:
        groups: parameter groups; those with `orthogonal=True` have parameters of two or four dimensions.
        rate: learning rate.
        betas: momentum, which is beta1 of AdamW as well, and beta2 of AdamW.
    """

    def __init__(self, groups: list[dict[str, Any]], rate: float, betas: tuple[float, float]) -> None:
        # `fused` keeps the step counts of AdamW float tensors on the device when a state is loaded.
        super().__init__(groups, {"lr": rate, "betas": betas, "weight_decay": 0.0, "orthogonal": False, "fused": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            (self._muon if group["orthogonal"] else self._adamw)(group, weights)
        return loss

    def _muon(self, group: dict[str, Any], weights: list[nn.Parameter]) -> None:
        momentum = group["betas"][0]
        for weight in weights:
            gradient, state = weight.grad, self.state[weight]
            assert gradient is not None, "chosen by the caller"
            if not state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            average = state["momentum_buffer"]
            average.lerp_(gradient, 1 - momentum)
            update = orthogonalize(gradient.lerp(average, momentum).flatten(1))
            scale = UPDATE_RMS * max(update.shape) ** 0.5  # its root mean square is 1 / sqrt(max(m, n))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(update.view(weight.shape), alpha=-group["lr"] * scale)

    def _adamw(self, group: dict[str, Any], weights: list[nn.Parameter]) -> None:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "step": torch.zeros((), device=weight.device),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }
        states = [self.state[weight] for weight in weights]
        beta1, beta2 = group["betas"]
        adamw(
            list(weights), [weight.grad for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states], [state["exp_avg_sq"] for state in states], [],
            [state["step"] for state in states], fused=True, amsgrad=False, beta1=beta1, beta2=beta2,
            lr=group["lr"], weight_decay=group["weight_decay"], eps=EPSILON, maximize=False,
        )  # fmt: skip
