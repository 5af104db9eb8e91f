"""EMP-SSL: Equal embeddings of many small patches of an image, spread as widely as possible over the images.

Patches are attracted to the mean embedding of their image, and the total coding rate over images prevents a collapse.
Many patches per image make few passes over the images enough.

Tong, Chen, Ma, LeCun, "EMP-SSL: Towards Self-Supervised Learning in One Training Epoch", preprint, 2023.
https://arxiv.org/abs/2304.03977

Letters: B images, S pixels along a patch, n patches of an image, D dimensions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Batch, Encoder, Outputs, Views
from selftaught.errors import require_ranges
from selftaught.limits import POSITIVE_COEFFICIENT, VIEWS, WIDTH, Range
from selftaught.modules.augmented import AugmentedTask
from selftaught.modules.heads import mlp
from selftaught.modules.processes import gather

PATCHES = Range(2, VIEWS.high)
EPSILON = Range(0.01, 1000)
"""Below, the matrix of `coding_rate` would be singular in float32."""


@dataclass(frozen=True)
class EMP(AugmentedTask):
    """Equal embeddings of many small patches of an image, spread as widely as possible over the images."""

    view_area: tuple[float, float] = (0.25, 0.25)
    """Smallest and largest area of a patch, as a fraction of the image (paper: a quarter)."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)
    """Strength of brightness, contrast, saturation and hue jitter, applied to 80 % of the patches (paper: the same)."""
    blur: float = 0.1
    """Probability of a Gaussian blur of at most 2 of 224 pixels (paper: 0.1)."""
    patches: int = 8
    """Patches per image, n (paper: 20 to 200)."""
    invariance: float = 200.0
    """Coefficient of the similarity to the mean embedding (released code: 200)."""
    epsilon: float = 0.2
    """Distortion of the coding rate, squared (released code: 0.2)."""
    dimensions: int = 128
    """Dimension of the embeddings (released code: 1024)."""
    hidden: int = 512
    """Width of the projector's two hidden layers (released code: 4096)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, patches=PATCHES, invariance=POSITIVE_COEFFICIENT, epsilon=EPSILON)
        require_ranges(self, dimensions=WIDTH, hidden=WIDTH)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projector: three layers."""
        return mlp(encoder.last.channels, self.hidden, self.dimensions, layers=3)

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B * n, 3, S, S), the patches of an image in a row."""
        return {"images": self.augmentation().views(batch, self.size, generator, self.patches)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Minus the weighted cosine similarity and the total coding rate, as in the released code.

        Logged: `similarity` of patches to the mean embedding of their image, and the `coding_rate`.
        """
        z = gather(F.normalize(heads["projection"](encoder(views["images"])).float(), dim=1))
        patches = z.reshape(-1, self.patches, self.dimensions)  # (B, n, D)
        similarity = F.cosine_similarity(patches, patches.mean(1, keepdim=True), dim=2).mean()
        rate = coding_rate(patches.transpose(0, 1), self.epsilon).mean()
        logged = {"similarity": similarity, "coding_rate": rate, "embeddings": patches[:, 0]}
        return -self.invariance * similarity - rate, logged

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Patches, those of an image in a row."""
        return {"patches": views["images"]}


def coding_rate(z: Tensor, epsilon: float) -> Tensor:
    """Total coding rate, log det(I + D / (B epsilon) Z^T Z) / 2: (..., B, D) -> (...)."""
    count, dimensions = z.shape[-2:]
    with torch.autocast(z.device.type, enabled=False):
        gram = z.transpose(-1, -2) @ z * (dimensions / (count * epsilon))
        # The matrix is at least the identity, so its Cholesky factor exists.
        factor = torch.linalg.cholesky(gram + torch.eye(dimensions, device=z.device))
    return factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
