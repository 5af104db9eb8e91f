"""SwAV: Predict the cluster assignment of one view of an image from another view.

Assignments ("codes") to learned prototypes are computed online, so that each batch uses all prototypes equally. Several
small crops per image (multi-crop) make it predict the whole from a part, at low cost.

Caron, Misra, Mairal, Goyal, Bojanowski, Joulin, "Unsupervised Learning of Visual Features by Contrasting Cluster
Assignments", NeurIPS 2020. https://arxiv.org/abs/2006.09882

Not included: the queue of features, with which the paper computes codes in batches smaller than the number of
prototypes, and frozen prototypes in the first epoch.

Letters: B images, S pixels along a global view, V views of an image, K prototypes.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import ITERATIONS, OUTPUTS, TEMPERATURE, WIDTH
from selftaught.modules.augmented import MultiCropTask, cross_view_entropy, embed_views
from selftaught.modules.heads import Prototypes, mlp
from selftaught.modules.losses import sinkhorn
from selftaught.modules.processes import gather


@dataclass(frozen=True)
class SwAV(MultiCropTask):
    """Predict the cluster assignment of one view of an image from another view."""

    defaults = {"batch_size": 256}  # noqa: RUF012

    view_area: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest area of a global view, as a fraction of the image (paper: from 0.14)."""
    local_area: tuple[float, float] = (0.1, 0.3)
    """Smallest and largest area of a local view (paper: 0.05 to 0.14)."""
    prototypes: int = 128
    """Number of prototypes, K (paper: 3000); at most about the number of images per step."""
    temperature: float = 0.1
    """Temperature of the predictions (paper: 0.1)."""
    epsilon: float = 0.05
    """Regularization of the Sinkhorn-Knopp algorithm: the smaller, the harder the codes (paper: 0.05)."""
    iterations: int = 3
    """Iterations of the Sinkhorn-Knopp algorithm (paper: 3)."""
    dimensions: int = 128
    """Dimension of the embeddings (paper: 128)."""
    hidden: int = 512
    """Width of the projector's hidden layer (paper: 2048)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, prototypes=OUTPUTS, temperature=TEMPERATURE, epsilon=TEMPERATURE, iterations=ITERATIONS)
        require_ranges(self, dimensions=WIDTH, hidden=WIDTH)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projector: two layers."""
        return mlp(encoder.last.channels, self.hidden, self.dimensions)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The projector and the prototypes."""
        projection = self.projection(encoder)
        return nn.ModuleDict({"projection": projection, "prototypes": Prototypes(self.dimensions, self.prototypes)})

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy between the code of each global view and the prediction from each other view (equation 2).

        Logged: `used`, the fraction of prototypes that are most similar to at least one view.
        """
        embedded = embed_views(nn.Sequential(encoder, heads["projection"]), views)
        scores = [heads["prototypes"](view) for view in embedded]  # V times (B, K)
        codes = [sinkhorn(each, self.epsilon, self.iterations) for each in scores[:2]]
        loss = cross_view_entropy(codes, [each / self.temperature for each in scores])
        nearest = F.one_hot(gather(scores[0].argmax(1)), self.prototypes)
        return loss, {"used": nearest.amax(0).float().mean(), "embeddings": embedded[0]}
