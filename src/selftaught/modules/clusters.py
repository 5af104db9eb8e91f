"""Groups of features: made by k-means after a PCA that whitens, and compared by how much they tell of each other.

Caron, Bojanowski, Joulin, Douze, "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018, of whose
equations and sections the numbers below are. https://arxiv.org/abs/1807.05520

Letters: n points, D features, k groups.
"""

import math
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError


def whitened(features: Tensor, components: int) -> Tensor:
    """Features by their principal components, each of the same variance, and then every image of length 1.

    Args:
        features: (n, D).
        components: how many are kept.

    Returns:
        (n, min(components, D)) float32; 0 in directions in which the features do not vary.
    """
    if not features.isfinite().all():
        raise UserError(
            "features must be finite to be clustered, found infinity or NaN: begin a new run with a smaller "
            "--learning-rate or --precision 32."
        )
    centred = features.double() - features.double().mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    variances, directions = variances[-components:], directions[:, -components:]  # ascending: the last are the largest
    varies = variances > 1e-9 * variances[-1]  # what is less is rounding, and would be blown up to noise
    scale = torch.where(varies, variances.clamp(min=1e-300).rsqrt(), 0)
    return F.normalize(centred @ directions * scale, dim=1).float()


def kmeans(points: Tensor, count: int, iterations: int, seed: int) -> Tensor:
    """The cluster of each point: (n, D) float32 -> (n,) int64 below `count`.

    Faiss gives an empty cluster half of a large one (section 3.2: the centroid of another, slightly moved). Two calls
    agree bit for bit, whatever the number of threads (measured, and tested).
    """
    faiss = require_faiss()
    # The two bounds switch off sampling (many points) and warnings (few).
    search = faiss.Kmeans(
        points.shape[1], count, niter=iterations, seed=seed,
        max_points_per_centroid=len(points), min_points_per_centroid=1,
    )  # fmt: skip
    search.train(points.numpy())
    return torch.from_numpy(search.index.search(points.numpy(), 1)[1][:, 0])


def nmi(first: Tensor, second: Tensor) -> float:
    """Normalised mutual information of two groupings (equation 3): I / sqrt(H H), 0 to 1; 0 where either is one group.

    Args:
        first: (n,) int64, 0 or more.
        second: (n,) int64, 0 or more.
    """
    if not len(first):
        return 0.0

    def entropy(groups: Tensor) -> float:
        shares = np.unique(groups.numpy(), return_counts=True)[1] / len(groups)
        return float(-(shares * np.log(shares)).sum())

    each = entropy(first), entropy(second)
    shared = each[0] + each[1] - entropy(first * (second.max() + 1) + second)
    return shared / math.sqrt(each[0] * each[1]) if min(each) > 0 else 0.0


def adjusted_nmi(first: Tensor, second: Tensor, shuffles: int = 10) -> float:
    """NMI above that of chance, as a share of what is above it: about 0 for groupings that have nothing in common.

    Many small groups agree by chance: two random ones of 100 groups have an NMI of 0.25 on 4,000 points. As Vinh, Epps
    and Bailey 2010, with the mean over some shuffles in the place of their formula, whose cost grows with k^2.

    Args:
        first: (n,) int64, 0 or more.
        second: (n,) int64, 0 or more.
        shuffles: how many.
    """
    generator = torch.Generator().manual_seed(0)
    mixed = (second[torch.randperm(len(second), generator=generator)] for _ in range(shuffles))
    chance = sum(nmi(first, other) for other in mixed) / shuffles
    return (nmi(first, second) - chance) / (1 - chance) if chance < 1 else 0.0


def require_faiss() -> ModuleType:
    """Faiss, imported only where it is needed.

    Raises:
        UserError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError("k-means needs faiss, found it missing: pip install 'selftaught[clusters]'.") from error
    return faiss
