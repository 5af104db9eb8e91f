"""A dictionary of image patches: one layer whose filters are cluster centers, without pretext task or labels.

Coates, Lee, Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", AISTATS 2011 (sections 3 and
4: contrast normalization, whitening, k-means, pooling); Coates and Ng, "The Importance of Encoding Versus Training with
Sparse Coding and Vector Quantization", ICML 2011 (soft threshold of both signs); Coates and Ng, "Learning Feature
Representations with K-means", 2012 (spherical k-means). With up to 4,000 filters and all labels of CIFAR-10 they report
0.796 to 0.815, so this is the baseline that pretraining has to beat on small images.

Letters: n patches, d numbers per patch, K filters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Layer, Source
from selftaught.encoders.preprocess import make_preprocess
from selftaught.errors import NotApplicable, UserError, require_between
from selftaught.limits import WIDTH

IMAGES, PATCHES = 10_000, 100_000
"""Maximum numbers of images (evenly spaced in the source) and of their patches."""
ITERATIONS = 10
"""Iterations of k-means, as Coates and Ng 2012 recommend."""
LOW_CONTRAST = 0.0025
"""Added to the variance of a patch: the papers' 10 for pixels from 0 to 255, in units of preprocessed channels."""
WHITENING = 0.1
"""Added to the variances of contrast-normalized patches before whitening, as in the papers."""
PATCH = 6
"""Default side of a patch in pixels, as in the papers."""
STRIDE = 4
"""Responses are averaged over 4 x 4 positions."""
POINTS = 10_000
"""Patches that are assigned to centroids at once; limits memory."""
GROUP = 64
"""Filters that are applied at once; limits memory."""


class Dictionary(Encoder):
    """Thresholded responses of cluster centers of patches (fixed, without parameters): the only layer is `codes`.

    A patch is normalized to zero mean and unit variance and whitened. Its response to filter k is r_k, and the features
    are max(0, r_k - threshold) for every k, then max(0, -r_k - threshold), averaged over 4 x 4 positions. Finally every
    channel is standardized by a batch norm without affine parameters, whose statistics must be computed on images
    before an evaluation: see `evaluation/baselines/encoders.py`. Filters are random before `fit`.

    Args:
        size: side of the views in pixels. Views above 48 are averaged over 2 x 2 pixels, above 96 over 4 x 4.
        input_mode: input channels, see `preprocess.py`.
        filters: number of filters K; `codes` has 2 K channels.
        patch: side of a patch in pixels, of the averaged view.
        threshold: soft threshold of responses, which are about as large as whitened pixels.

    Raises:
        UserError: an option is invalid.
    """

    kernels: Tensor
    """(K, C, patch, patch)."""
    offsets: Tensor
    """(K,)."""

    def __init__(
        self,
        *,
        size: int = 32,
        input_mode: str = "color",
        filters: int = 256,
        patch: int = PATCH,
        threshold: float = 0.25,
    ) -> None:
        super().__init__()
        require_between("--filters of dictionary", filters, *WIDTH, hint="; the default is 256")
        self.step = 1 if size <= 48 else 2 if size <= 96 else 4
        side = size // self.step
        if side < PATCH <= patch:
            raise NotApplicable(f"dictionaries of patches need --size {PATCH} or more, got {size}.")
        if not 2 <= patch <= side:
            raise NotApplicable(f"dictionary expects --patch from 2 to {side} at --size {size}, got {patch}.")
        if not 0 <= threshold <= 10:
            raise UserError(f"dictionary expects --threshold from 0 to 10, got {threshold}.")
        self.input_mode, self.preprocess = input_mode, (preprocess := make_preprocess(input_mode))
        self.size, self.threshold = size, threshold
        shape = (filters, preprocess.channels, patch, patch)
        initial = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("kernels", initial / initial[0].numel() ** 0.5)
        self.register_buffer("offsets", torch.zeros(filters))
        self.norm = nn.BatchNorm2d(2 * filters, affine=False)
        self.layers = {"codes": Layer(2 * filters, STRIDE * self.step)}

    def fit(self, source: Source) -> None:
        """Compute the filters from patches of the images; they do not depend on the seed."""
        generator = torch.Generator().manual_seed(0)
        patches = self._sample(source, generator)
        patches = patches - patches.mean(1, keepdim=True)
        patches = patches / (patches.square().mean(1, keepdim=True) + LOW_CONTRAST).sqrt()
        center, whitening = _whitening(patches)
        points = F.normalize((patches - center) @ whitening, dim=1)
        filters = spherical_kmeans(points, len(self.kernels), generator) @ whitening
        # Applied to a patch that is not centered: the filters themselves have zero mean then.
        self.kernels.copy_((filters - filters.mean(1, keepdim=True)).view_as(self.kernels))
        self.offsets.copy_(-filters @ center)

    def fit_like(self, other: Encoder) -> None:
        """Copy the filters of another dictionary."""
        assert isinstance(other, Dictionary)
        self.kernels.copy_(other.kernels)
        self.offsets.copy_(other.offsets)

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> `codes`, (B, 2 K, h, w); h is (H / step - patch + 1) / 4, rounded up.

        Patches are inside the image, so that the maps are a little smaller than the image divided by the stride.
        """
        with torch.autocast(inputs.device.type, enabled=False):
            images = F.avg_pool2d(inputs.float(), self.step)
            contrast = self._contrast(images)
            on, off = [], []
            for kernels, offsets in zip(
                torch.split(self.kernels, GROUP), torch.split(self.offsets, GROUP), strict=True
            ):
                responses = F.conv2d(images, kernels) * contrast + offsets.view(-1, 1, 1)
                on.append(self._thresholded(responses))
                off.append(self._thresholded(-responses))
            return {"codes": self.norm(torch.cat(on + off, 1))}

    def _contrast(self, images: Tensor) -> Tensor:
        """One over the standard deviation of every patch: (B, C, H, W) -> (B, 1, h, w)."""
        averaging = torch.ones_like(self.kernels[:1]) / self.kernels[0].numel()
        variance = F.conv2d(images.square(), averaging) - F.conv2d(images, averaging).square()
        return (variance.clamp(min=0) + LOW_CONTRAST).rsqrt()

    def _thresholded(self, responses: Tensor) -> Tensor:
        """max(0, response - threshold), averaged over squares of positions: (B, k, h, w) -> (B, k, h / 4, w / 4)."""
        return F.avg_pool2d(responses.clamp(min=self.threshold), STRIDE, ceil_mode=True) - self.threshold

    def _sample(self, source: Source, generator: torch.Generator) -> Tensor:
        """(n, d): patches at random positions of images, the same number of each."""
        patches: list[Tensor] = []
        each = -(-PATCHES // min(IMAGES, len(source)))
        for batch in source.sample(IMAGES):
            views = F.avg_pool2d(self.preprocess(batch.warp(identity(len(batch)), self.size)), self.step)
            unfolded = F.unfold(views, self.kernels.shape[-1])  # (B, d, positions)
            chosen = torch.randint(unfolded.shape[2], (len(views), 1, each), generator=generator)
            patches.append(unfolded.gather(2, chosen.expand(-1, unfolded.shape[1], -1)).transpose(1, 2).flatten(0, 1))
        return torch.cat(patches)


def _whitening(patches: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of patches (n, d) and the symmetric matrix (d, d) that whitens them (ZCA)."""
    center = patches.mean(0)
    variances, directions = torch.linalg.eigh((patches - center).T @ (patches - center) / len(patches))
    scale = (variances.clamp(min=0) + WHITENING).rsqrt()
    return center, directions * scale @ directions.T


def spherical_kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Centroids of unit vectors by cosine similarity (Coates and Ng 2012): (n, d) -> (count, d), of length 1.

    They start at distinct random points; an empty cluster keeps its centroid.
    """
    centroids = points[torch.randperm(len(points), generator=generator)[:count].to(points.device)]
    for _ in range(ITERATIONS):
        # In parts: all similarities at once would be gigabytes for thousands of centroids.
        nearest = torch.cat([(part @ centroids.T).argmax(1) for part in torch.split(points, POINTS)])
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        lengths = sums.norm(dim=1, keepdim=True)
        centroids = torch.where(lengths > 1e-6, sums / lengths.clamp(min=1e-6), centroids)
    return centroids
