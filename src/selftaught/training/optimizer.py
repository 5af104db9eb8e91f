"""Optimizers and the schedule of their learning rate, a function of the fraction of the run that is progress."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from selftaught.contracts import ParameterGroup
from selftaught.errors import UserError

OPTIMIZER_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "adamw": {"learning_rate": 3e-3, "weight_decay": 0.05},
    "sgd": {"learning_rate": 0.1, "weight_decay": 5e-4},
}
"""Defaults that differ between optimizers: decoupled decay of AdamW and the L2 penalty of SGD are different scales."""

OF_ONE_OPTIMIZER = ("learning_rate", "momentum", "beta2", "weight_decay")
"""Settings whose values for one optimizer mean nothing for the other."""


def optimizer_defaults(advised: Mapping[str, Any], optimizer: str | None = None) -> dict[str, Any]:
    """Defaults of `Optimization` for a task.

    Args:
        advised: the task's own defaults; its optimizer is AdamW unless it names one.
        optimizer: which one was chosen; None for the task's. With another one than the task's, the task's values in
            `OF_ONE_OPTIMIZER` do not apply, and that optimizer's general defaults take their place.
    """
    own = advised.get("optimizer", Optimization.optimizer)
    optimizer = optimizer or own
    kept = {name: value for name, value in advised.items() if optimizer == own or name not in OF_ONE_OPTIMIZER}
    return {**OPTIMIZER_DEFAULTS.get(optimizer, {}), **kept, "optimizer": optimizer}


@dataclass(frozen=True)
class Optimization:
    """How weights move."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum, as in the papers up to 2020."""
    learning_rate: float | None = None
    """Peak learning rate; by default 0.003 for AdamW and 0.1 for SGD."""
    momentum: float = 0.9
    """SGD momentum, or beta1 of AdamW."""
    beta2: float = 0.95
    """beta2 of AdamW; 0.95 suits short runs better than 0.999."""
    weight_decay: float | None = None
    """Weight decay of matrices and filters, none on norms and biases; by default 0.05 for AdamW, where it is decoupled,
    and 0.0005 for SGD, where it is an L2 penalty."""
    warmup: float = 0.05
    """Fraction of the run in which the rate climbs."""
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """How it falls after that: step multiplies it by `gamma` at each of `milestones`."""
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)
    """Fractions of the run at which `step` drops the rate (Gidaris et al.: epochs 30, 60, 80 of 100)."""
    gamma: float = 0.2
    """What `step` multiplies the rate by."""

    def __post_init__(self) -> None:
        """Fill in the optimizer's own defaults and check ranges."""
        for name, value in OPTIMIZER_DEFAULTS[self.optimizer].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        if not self.peak > 0:
            raise UserError(f"--learning-rate must be above 0, got {self.peak}.")
        for name, low in (("momentum", 0.0), ("beta2", 0.0), ("weight_decay", 0.0), ("gamma", 0.0)):
            if not low <= (value := getattr(self, name)) < 1:
                raise UserError(f"--{name.replace('_', '-')} must lie in [0, 1), found {value}: leave it out.")
        if not all(0 <= at <= 1 for at in self.milestones):
            raise UserError(f"--milestones must be fractions of the run, found {self.milestones}: try 0.3 0.6 0.8.")
        if not 0 <= self.warmup < 1:
            raise UserError(f"the warm-up must be a fraction of the run in [0, 1), found {self.warmup}: try 0.05.")

    @property
    def peak(self) -> float:
        """The learning rate at the peak of the schedule."""
        assert self.learning_rate is not None, "filled in by the constructor"
        return self.learning_rate

    def rate(self, progress: float) -> float:
        """The learning rate when the fraction `progress` of the run is behind us; with a warm-up it begins at 0."""
        if progress < self.warmup:
            return self.peak * progress / self.warmup
        after = (progress - self.warmup) / (1 - self.warmup)
        match self.schedule:
            case "cosine":
                factor = 0.5 * (1 + math.cos(math.pi * after))
            case "linear":
                factor = 1 - after
            case "step":
                factor = self.gamma ** sum(progress >= at for at in self.milestones)
            case "constant":
                factor = 1.0
        return self.peak * factor

    def build(self, groups: Sequence[ParameterGroup]) -> torch.optim.Optimizer:
        """An optimizer of the trainable parameters of the groups; norms and biases have no weight decay.

        Fused: one pass over each tensor and not a dozen, so that a small net's step is a few per cent shorter on a CPU.
        """
        split: list[dict[str, Any]] = []
        for group in groups:
            weights = [p for p in group.parameters if p.requires_grad]
            decaying, others = [p for p in weights if p.ndim > 1], [p for p in weights if p.ndim <= 1]
            split += [
                {"params": decaying, "weight_decay": self.weight_decay, "lr_scale": group.lr_scale},
                {"params": others, "weight_decay": 0.0, "lr_scale": group.lr_scale},
            ]
        if self.optimizer == "sgd":
            nesterov = self.momentum > 0
            return torch.optim.SGD(split, self.peak, self.momentum, nesterov=nesterov, fused=True)
        return torch.optim.AdamW(split, self.peak, (self.momentum, self.beta2), fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group: `rate` times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def forget(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    """Reset the optimizer's state (momentum, second moments, step count) of a module whose parameters start anew.

    Set to zero, which is the state before the first step, and not removed: fused SGD needs momentum for all or none.
    """
    for weight in module.parameters():
        for state in optimizer.state.get(weight, {}).values():
            if isinstance(state, torch.Tensor):
                state.zero_()
