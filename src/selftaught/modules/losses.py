"""Losses shared by several tasks. Exponentials are computed in float32, independent of the run's precision."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import Function, FunctionCtx, once_differentiable

from selftaught.modules.processes import gather, own


def nce(positive: Tensor, negatives: Tensor, log_normalizer: Tensor | None = None) -> Tensor:
    """Noise-contrastive estimation: a binary cross-entropy for the own entry and for each of the m negatives.

    With e the exponential of a score and C the normalizer, the probability of a positive pair is h = e / (e + C), and
    the loss is -log h(positive) - sum over negatives of log(1 - h(negative)). The papers differ only in C:

    - Misra & van der Maaten 2020 (PIRL): the sum of e over the negatives. Then the loss is softmax
      cross-entropy plus a second term that lies between log 2 and 1 whatever the scores.
    - Wu et al. 2018 (NPID, section 3.2): m / n * Z, from P = e / Z and noise 1 / n, with Z = n * mean of e a constant.

    Args:
        positive: (B,) score of each anchor with its own entry: cosine / temperature.
        negatives: (B, m) its scores with negatives; -inf for ignored ones.
        log_normalizer: log C, () or (B,); None for the sum over the anchor's own negatives.

    Returns:
        (B,), at least 0.
    """
    positive, negatives = positive.float(), negatives.float()
    if log_normalizer is None:
        loss: Tensor = _SumNormalizedNCE.apply(positive, negatives)
        return loss
    log_c = log_normalizer.float().expand(len(positive))
    # -log h(positive) = log(1 + C / e) and -log(1 - h(negative)) = log(1 + e / C): softplus does not overflow.
    return F.softplus(log_c - positive) + F.softplus(negatives - log_c[:, None]).sum(1)


def nt_xent(embeddings: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Normalized temperature-scaled cross-entropy: the other view of an image among all other views of the batch.

    Chen et al. 2020 (SimCLR), equation 1, averaged over both directions.

    Args:
        embeddings: (B * 2, D), the two views of an image in a row.
        temperature: of the cosine similarities.

    Returns:
        The loss, and the fraction of views that are most similar to the other view of their image.
    """
    with torch.autocast(embeddings.device.type, enabled=False):
        unit = F.normalize(embeddings.float(), dim=1)
        everything = gather(unit)
        itself = own(torch.arange(len(everything), device=unit.device))
        logits = (unit @ everything.T / temperature).scatter_(1, itself[:, None], -torch.inf)
    other = itself ^ 1  # the neighbor: 1, 0, 3, 2, ...
    return F.cross_entropy(logits, other), (logits.argmax(1) == other).float().mean()


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Soft assignments by which the images of all processes together use all prototypes equally.

    Caron et al. 2020 (SwAV), section 3.1 and appendix A.

    Args:
        scores: (B, K) similarities with K prototypes.
        epsilon: regularization; the smaller, the harder the assignments.
        iterations: of normalizing the prototypes, then the images.

    Returns:
        (B, K) in float32; every row sums to 1, and every column to about B / K.
    """
    logits = gather(scores).float() / epsilon
    q = (logits - logits.max()).exp()
    for _ in range(iterations):
        q = q / q.sum(0).clamp(min=1e-30)
        q = q / q.sum(1, keepdim=True).clamp(min=1e-30)
    return own(q)


def unit_std(embeddings: Tensor) -> Tensor:
    """Mean standard deviation of L2-normalized embeddings (B, D), times the root of D: 0 if all are alike.

    It is about 1 if they are spread evenly over all directions (Chen & He 2021, SimSiam, section 4.1).
    """
    unit = F.normalize(gather(embeddings.detach()).float(), dim=1)
    return unit.std(0, correction=0).mean() * embeddings.shape[1] ** 0.5


class _SumNormalizedNCE(Function):
    """`nce` where C is the sum of e over the negatives: e / C = p is their softmax, and at most 1.

    The gradient is written by hand, because autograd's backward pass through (B, m) exponentials, logarithms and a mask
    took five of the seven milliseconds that NPID's bank added to a step (64 images, 4,096 negatives, one thread).
    """

    @staticmethod
    def forward(ctx: FunctionCtx, positive: Tensor, negatives: Tensor) -> Tensor:
        log_c = negatives.logsumexp(1)
        p = (negatives - log_c[:, None]).exp_()
        ctx.save_for_backward(positive, log_c, p)
        return F.softplus(log_c - positive) + p.log1p().sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        positive, log_c, p = ctx.saved_tensors
        positive_grad = grad * (log_c - positive).sigmoid()  # d softplus(log C - positive) / d log C
        # d log C / d score = p, and d sum log(1 + p) / d score = p * (q - sum of p * q) with q = 1 / (1 + p).
        slope = (p + 1).reciprocal_()
        rest = positive_grad - grad * (p * slope).sum(1)
        return -positive_grad, slope.mul_(grad[:, None]).add_(rest[:, None]).mul_(p)
