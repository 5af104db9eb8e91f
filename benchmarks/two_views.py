"""A minimal SimCLR task: classify which other view in the batch is of the same image.

Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020.
https://arxiv.org/abs/2002.05709

For timing two-view steps: the library's own contrastive tasks have memory banks and tiles, which usual recipes lack.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.views import two_views
from selftaught.contracts import Batch, Encoder, Outputs, Source, Task, Views
from selftaught.modules.heads import classifier

TEMPERATURE = 0.5
"""Chen et al. 2020, appendix B.9, on CIFAR."""
PROJECTED = 128
"""Dimension of the projection (their section 2.3)."""


@dataclass(frozen=True)
class TwoViews(Task):
    """Classify the other view of each image among the views of all other images."""

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The projection."""
        return nn.ModuleDict({"projection": projection(encoder)})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (2 * B, 3, S, S), the two views of an image in a row."""
        return {"images": two_views(batch, self.size, generator)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """See `contrastive`."""
        return contrastive(heads["projection"](encoder(views["images"])).float()), {}

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The views, pair after pair."""
        return {"views": views["images"]}


def projection(encoder: Encoder) -> nn.Module:
    """A head with one hidden layer on the pooled last layer (section 2.1)."""
    return classifier(list(encoder.layers.values())[-1].channels, PROJECTED, "mlp")


def contrastive(projected: Tensor) -> Tensor:
    """NT-Xent loss (equation 1) of (2 * B, D), pairs in a row: classify the other view of each image."""
    unit = F.normalize(projected, dim=1)
    similarities = unit @ unit.T / TEMPERATURE
    similarities = similarities.masked_fill(torch.eye(len(unit), dtype=torch.bool, device=unit.device), float("-inf"))
    pair = torch.arange(len(unit), device=unit.device) ^ 1
    return F.cross_entropy(similarities, pair)
