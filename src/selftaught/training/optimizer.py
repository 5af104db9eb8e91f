"""Optimizers and learning-rate schedules; the schedule is a function of the completed fraction of the run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from selftaught.contracts import ParameterGroup
from selftaught.errors import require_between
from selftaught.limits import FRACTION, FRACTION_BELOW_1, LEARNING_RATE
from selftaught.training.muon import Muon, hidden_matrices

OPTIMIZER_DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "adamw": {"learning_rate": 3e-3, "weight_decay": 0.05},
    "muon": {"learning_rate": 3e-3, "weight_decay": 0.05},
    "sgd": {"learning_rate": 0.1, "weight_decay": 5e-4},
}
"""Defaults per optimizer: the decoupled weight decay of AdamW and Muon and SGD's L2 penalty have different scales."""

OF_ONE_OPTIMIZER = ("learning_rate", "momentum", "beta2", "weight_decay")
"""Settings whose values for one optimizer do not apply to another."""


def optimizer_defaults(advised: Mapping[str, Any], optimizer: str | None = None) -> dict[str, Any]:
    """Defaults of `Optimization` for a task.

    Args:
        advised: the task's own defaults; its optimizer is AdamW by default.
        optimizer: the chosen optimizer; None for the task's. If it is not the task's, the task's values of
            `OF_ONE_OPTIMIZER` are replaced by the general defaults of the chosen optimizer.
    """
    own = advised.get("optimizer", Optimization.optimizer)
    optimizer = optimizer or own
    applicable = {name: value for name, value in advised.items() if optimizer == own or name not in OF_ONE_OPTIMIZER}
    return {**OPTIMIZER_DEFAULTS.get(optimizer, {}), **applicable, "optimizer": optimizer}


@dataclass(frozen=True)
class Optimization:
    """Optimizer and learning-rate schedule."""

    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    """AdamW; SGD with Nesterov momentum, as in the papers up to 2020; or Muon, which orthogonalizes the updates of
    hidden matrices and filters and leaves the first and last layers, norms and biases to AdamW."""
    learning_rate: float | None = None
    """Peak learning rate; by default 0.003 for AdamW and Muon and 0.1 for SGD."""
    momentum: float = 0.9
    """Momentum of SGD and Muon; beta1 of AdamW."""
    beta2: float = 0.95
    """beta2 of AdamW; 0.95 suits short runs better than 0.999."""
    weight_decay: float | None = None
    """Weight decay of matrices and filters (not of norms and biases); by default 0.05 for AdamW and Muon (decoupled)
    and 0.0005 for SGD (L2 penalty)."""
    warmup: float = 0.05
    """Warm-up, as a fraction of all steps."""
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    """Learning-rate decay after the warm-up; step multiplies the rate by `gamma` at each of `milestones`."""
    milestones: tuple[float, ...] = (0.3, 0.6, 0.8)
    """Fractions of the run at which the step schedule decays the rate (Gidaris et al.: epochs 30, 60, 80 of 100)."""
    gamma: float = 0.2
    """Decay factor of the step schedule."""

    def __post_init__(self) -> None:
        """Fill in the optimizer's own defaults and check ranges."""
        for name, value in OPTIMIZER_DEFAULTS[self.optimizer].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        require_between("--learning-rate", self.peak, *LEARNING_RATE)
        for name in ("momentum", "beta2", "weight_decay", "gamma", "warmup"):
            require_between(f"--{name.replace('_', '-')}", getattr(self, name), *FRACTION_BELOW_1)
        for milestone in self.milestones:
            require_between("--milestones, fractions of the run,", milestone, *FRACTION, hint="; try 0.3 0.6 0.8")

    @property
    def peak(self) -> float:
        """Peak learning rate."""
        assert self.learning_rate is not None, "filled in by the constructor"
        return self.learning_rate

    def rate(self, progress: float) -> float:
        """The learning rate at the fraction `progress` of the run; with a warm-up it starts at 0."""
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
        """Build an optimizer of the trainable parameters of the groups, without weight decay on norms and biases.

        Muon's first and last layers are those of all groups together.

        The fused implementations update each tensor in one pass, so a step of a small net is a few percent shorter on a
        CPU.
        """
        trained = [(group, [p for p in group.parameters if p.requires_grad]) for group in groups]
        muon = self.optimizer == "muon"
        hidden = {id(p) for p in hidden_matrices(p for _, weights in trained for p in weights)} if muon else set()
        split: list[dict[str, Any]] = []
        for group, weights in trained:
            decaying, others = [p for p in weights if p.ndim > 1], [p for p in weights if p.ndim <= 1]
            decays = {"weight_decay": self.weight_decay, "lr_scale": group.lr_scale}
            split += [
                {"params": [p for p in decaying if id(p) not in hidden], **decays},
                {"params": others, "weight_decay": 0.0, "lr_scale": group.lr_scale},
            ]
            if muon:
                split.append({"params": [p for p in decaying if id(p) in hidden], **decays, "orthogonal": True})
        if muon:
            return Muon(split, self.peak, (self.momentum, self.beta2))
        if self.optimizer == "sgd":
            nesterov = self.momentum > 0
            return torch.optim.SGD(split, self.peak, self.momentum, nesterov=nesterov, fused=True)
        return torch.optim.AdamW(split, self.peak, (self.momentum, self.beta2), fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group: `rate` times the group's own factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def reset_state(optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    """Reset the optimizer's state (momentum, second moments, step count) of a module whose parameters were reset.

    The state is set to zero, as before the first step, and not removed: fused SGD requires momentum buffers for all
    parameters or for none.
    """
    for weight in module.parameters():
        for state in optimizer.state.get(weight, {}).values():
            if isinstance(state, torch.Tensor):
                state.zero_()
