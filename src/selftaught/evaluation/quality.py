"""Feature quality without labels: effective rank, standard deviation, alignment, uniformity and dead channels.

All statistics are sums over batches, so memory depends on the number of channels D and not on that of the images.
Features are averaged over positions, as in `Encoder.forward`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from selftaught.errors import UserError

EPSILON = 1e-7
"""Added to the normalized singular values (Garrido et al. 2023, equation 1)."""
CONSTANT = 1e-6
"""Range of a channel's activations, relative to their magnitude, up to which it is constant: rounding of float32."""


@dataclass(frozen=True)
class Quality:
    """Statistics of the features of one layer."""

    channels: int
    """D."""
    images: int
    rank: float
    """RankMe, the effective rank of the (n, D) features: 1 to min(n, D). See `effective_rank`."""
    std: float
    """Standard deviation over images of features of unit length, averaged over channels (SimSiam, Chen and He 2021,
    section 4.1): 0 if all images have the same feature, 1/sqrt(D) if features are isotropic."""
    alignment: float | None
    """Mean squared distance between unit features of two views of an image, 0 to 4 (Wang and Isola 2020, alpha = 2);
    None if no second views were given."""
    uniformity: float | None
    """Log of the mean of exp(-2 * squared distance) over pairs of unit features of different images, at most 0 (ibid.,
    t = 2): 0 if all images have the same feature, lower if they spread over the sphere. None for a single image."""
    dead: int
    """Number of channels with the same activation for all images."""


def effective_rank(singular_values: Tensor) -> float:
    """RankMe: the exponential of the entropy of the normalized singular values.

    Garrido, Balestriero, Najman and LeCun, "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", ICML 2023, https://arxiv.org/abs/2210.02885, equation 1.

    Args:
        singular_values: (k,), nonnegative. If all are 0, the rank is 0.
    """
    total = singular_values.sum()
    if not total > 0:
        return 0.0
    shares = singular_values / total + EPSILON
    return float(torch.exp(-(shares * shares.log()).sum()))


class QualityStatistics:
    """Accumulates the statistics of one layer over batches, in float64 on the CPU."""

    def __init__(self, channels: int) -> None:
        self.count, self.pairs = 0, 0
        self.gram = torch.zeros(channels, channels, dtype=torch.float64)
        self.sum, self.squares = torch.zeros(2, channels, dtype=torch.float64)
        self.low, self.high = torch.full((2, channels), math.inf, dtype=torch.float64) * torch.tensor([[1.0], [-1.0]])
        self.distance, self.potential, self.aligned = 0.0, 0.0, 0

    def add(self, features: Tensor, views: tuple[Tensor, Tensor] | None = None) -> None:
        """Add a batch.

        Pairs of different images are those within a batch, as in the paper's code: memory would otherwise grow with
        the images. So a batch must not be sorted by content.

        Args:
            features: (B, D) of the images.
            views: (B, D) each: features of two views of each image.
        """
        x = features.detach().double().cpu()
        unit = F.normalize(x, dim=1)
        self.count += len(x)
        self.gram += x.T @ x
        self.sum += unit.sum(0)
        self.squares += unit.square().sum(0)
        self.low, self.high = torch.minimum(self.low, x.amin(0)), torch.maximum(self.high, x.amax(0))
        if len(unit) > 1:
            self.potential += float(torch.pdist(unit).square().mul(-2).exp().sum())
            self.pairs += len(unit) * (len(unit) - 1) // 2
        if views is not None:
            first, second = (F.normalize(view.detach().double().cpu(), dim=1) for view in views)
            self.distance += float((first - second).square().sum())
            self.aligned += len(first)

    def result(self) -> Quality:
        """The statistics of all images added so far.

        Raises:
            UserError: a feature was not finite.
        """
        if not self.gram.isfinite().all():
            raise UserError(
                "the features contain infinity or NaN: the training of the encoder diverged; pretrain again with a "
                "lower --learning-rate."
            )
        magnitude = torch.maximum(self.low.abs(), self.high.abs())
        variance = (self.squares / self.count - (self.sum / self.count).square()).clamp(min=0)
        return Quality(
            channels=len(self.gram),
            images=self.count,
            # Eigenvalues of the Gram matrix are squared singular values; in float64 half of the digits remain.
            rank=effective_rank(torch.linalg.eigvalsh(self.gram).clamp(min=0).sqrt()),
            std=float(variance.sqrt().mean()),
            alignment=self.distance / self.aligned if self.aligned else None,
            uniformity=math.log(self.potential / self.pairs) if self.pairs else None,
            dead=int((self.high - self.low <= CONSTANT * magnitude).sum()),
        )


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Eval mode, except that batch norm uses the statistics of each batch; no buffer changes.

    For features of an encoder in training: running statistics are arbitrary before the first step, and those of tiles
    after pretraining on tiles.
    """
    training = [(each, each.training) for each in module.modules()]
    module.eval()
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm) and each.track_running_stats]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for each, mode in training:
            each.training = mode
