"""Momentum encoders: copies whose parameters are exponential moving averages (EMA) of another network's.

As in the released code of MoCo, BYOL and DINO, only parameters are averaged. Batch norms of the copy normalize with the
statistics of its own batches, and its running statistics come from these, because heads are in training mode.
"""

import copy
import math

import torch
from torch import nn


def momentum_copy(*modules: nn.Module) -> nn.Sequential:
    """A chain of copies of the modules, with the same parameters and without gradients."""
    return nn.Sequential(*map(copy.deepcopy, modules)).requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, *modules: nn.Module, momentum: float) -> None:
    """Average <- momentum * average + (1 - momentum) * parameters.

    Args:
        average: the `momentum_copy` of the modules.
        modules: the trained modules.
        momentum: from 0 to 1; 1 leaves the average as it is.
    """
    current = [weight for module in modules for weight in module.parameters()]
    for mean, weight in zip(average.parameters(), current, strict=True):
        mean.lerp_(weight, 1 - momentum)


def cosine_momentum(start: float, progress: float) -> float:
    """Momentum that rises from `start` to 1 by a cosine (Grill et al. 2020, section 3.2)."""
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
