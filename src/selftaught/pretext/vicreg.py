"""VICReg: Equal embeddings of two views of an image, with varying and uncorrelated dimensions.

Three terms: invariance attracts the views of an image, variance keeps the standard deviation of each dimension above 1,
and covariance decorrelates the dimensions. The last two prevent a collapse, without negatives or a momentum encoder.

Bardes, Ponce, LeCun, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning", ICLR 2022.
https://arxiv.org/abs/2105.04906

Letters: B images, S pixels along a view, D dimensions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Views
from selftaught.errors import require_ranges
from selftaught.limits import COEFFICIENT, POSITIVE_COEFFICIENT, WIDTH
from selftaught.modules.augmented import AsymmetricTask, TwoViewTask, split_views
from selftaught.modules.heads import mlp
from selftaught.modules.processes import gather


@dataclass(frozen=True)
class VICReg(AsymmetricTask, TwoViewTask):
    """Equal embeddings of two views of an image, with varying and uncorrelated dimensions."""

    embedding_std = 1.0
    projection_name = "expander"

    invariance: float = 25.0
    """Coefficient of the invariance term (paper: 25)."""
    variance: float = 25.0
    """Coefficient of the variance term (paper: 25); with 0 the embeddings collapse."""
    covariance: float = 1.0
    """Coefficient of the covariance term (paper: 1)."""
    dimensions: int = 512
    """Dimension of the embeddings and width of the expander's three layers (paper: 8192)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, invariance=POSITIVE_COEFFICIENT, variance=COEFFICIENT, covariance=COEFFICIENT)
        require_ranges(self, dimensions=WIDTH)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The expander: three layers."""
        return mlp(encoder.last.channels, self.dimensions, self.dimensions, layers=3)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Weighted sum of the three terms (equation 6 and algorithm 1).

        Logged: `std`, the mean standard deviation of the dimensions, whose target is 1.
        """
        z1, z2 = (gather(heads["expander"](encoder(view)).float()) for view in split_views(views["images"]))
        with torch.autocast(z1.device.type, enabled=False):
            invariance = F.mse_loss(z1, z2)
            # The sum over both views, as in the paper; the released code halves it.
            variance = _variance(z1) + _variance(z2)
            covariance = _covariance(z1) + _covariance(z2)
        loss = self.invariance * invariance + self.variance * variance + self.covariance * covariance
        return loss, {"std": z1.std(0).mean(), "embeddings": z1}


def _variance(z: Tensor) -> Tensor:
    """Mean amount by which the standard deviations of the dimensions are below 1 (equations 1 and 2)."""
    return (1 - (z.var(0) + 1e-4).sqrt()).relu().mean()


def _covariance(z: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions, divided by D (equations 3 and 4)."""
    centered = z - z.mean(0)
    matrix = centered.T @ centered / (len(z) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / z.shape[1]
