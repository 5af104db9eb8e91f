"""Batch norm over the whole batch of several processes.

`torch.nn.SyncBatchNorm` needs GPUs, and communicates even where one process computes for itself.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from selftaught.errors import UserError
from selftaught.modules.processes import processes


def synchronize_norms(module: nn.Module) -> None:
    """Let all batch norms of a module normalize over all processes; weights and their names stay as they are.

    Raises:
        UserError: there is a kind of batch norm that cannot be synchronized.
    """
    for norm in module.modules():
        if not isinstance(norm, _BatchNorm) or isinstance(norm, SynchronizedNorm):
            continue
        if type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d):
            norm.__class__ = SynchronizedNorm  # in place: a task may have other references to it
        elif hasattr(norm, "drop") and hasattr(norm, "act"):
            norm.__class__ = SynchronizedNormAct
        else:
            raise UserError(
                f"{type(norm).__name__} of this encoder cannot be synchronized between processes: use one process, or "
                "choose another --encoder."
            )


class SynchronizedNorm(_BatchNorm):
    """Batch norm whose statistics in training are those of all processes together (Ioffe & Szegedy 2015)."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, ...), the same shape; processes may have different B, even none."""
        if processes().count == 1 or not self.training:
            return super().forward(input)
        mean, variance, count = _statistics(input)
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._update_running(mean, variance * (count / (count - 1)))
        normalized: Tensor = _Normalize.apply(input, mean, variance, self.eps, count)
        if not self.affine:
            return normalized
        shape = (1, -1, *[1] * (input.ndim - 2))
        weight, bias = self.weight.view(shape), self.bias.view(shape)
        return torch.addcmul(bias, normalized, weight).to(normalized.dtype)

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_(variance.to(self.running_var), share)


class SynchronizedNormAct(SynchronizedNorm):
    """The same for timm's batch norms that include an activation."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W), the same shape."""
        dropped: Tensor = self.get_submodule("drop")(super().forward(input))
        activated: Tensor = self.get_submodule("act")(dropped)
        return activated


@torch.no_grad()
def _statistics(input: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,) and biased variance (C,) over all processes, and the number of values per channel ().

    From the mean and variance of each process, which is accurate where the mean is large (Chan, Golub, LeVeque 1983).
    """
    values = input.float() if input.dtype != torch.float64 else input
    variance, mean = torch.var_mean(values, [0, *range(2, input.ndim)], correction=0)
    count = mean.new_full((1,), input.numel() / input.shape[1])
    if not len(input):
        variance, mean = torch.zeros_like(variance), torch.zeros_like(mean)
    each = processes().gather(torch.cat([mean, variance, count])[None])
    means, variances, counts = torch.split(each, [len(mean), len(mean), 1], 1)
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), counts.sum()


class _Normalize(Function):
    """(x - mean) / sqrt(variance + eps), with the gradient through mean and variance, which are those of all x."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, mean: Tensor, variance: Tensor, eps: float, count: Tensor) -> Tensor:
        normalized = F.batch_norm(input, mean, variance, None, None, False, 0.0, eps)
        ctx.save_for_backward(normalized, (variance + eps).rsqrt(), count)
        return normalized

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        normalized, scale, count = ctx.saved_tensors
        over, shape = [0, *range(2, grad.ndim)], (1, -1, *[1] * (grad.ndim - 2))
        precise = grad.to(scale.dtype)
        sums = torch.stack([precise.sum(over), (precise * normalized).sum(over)])
        sums = processes().total(sums) / count
        offset, slope = (each.view(shape) for each in sums)
        passed = (precise - offset - normalized * slope) * scale.view(shape)
        return passed.to(grad.dtype), None, None, None, None
