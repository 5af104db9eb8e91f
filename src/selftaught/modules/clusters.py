"""Clustering of features: whitening PCA, k-means, and normalized mutual information between clusterings.

Equations and sections below are those of Caron, Bojanowski, Joulin, Douze, "Deep Clustering for Unsupervised Learning
of Visual Features", ECCV 2018. https://arxiv.org/abs/1807.05520

Letters: n points, D features, k clusters.
"""

import math
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError


def whitened(features: Tensor, components: int) -> Tensor:
    """Whitening PCA: principal components, each scaled to the same variance, then rows normalized to length 1.

    Args:
        features: (n, D).
        components: number of components to keep.

    Returns:
        (n, min(components, D)) float32; 0 in directions without variance.
    """
    if not features.isfinite().all():
        raise UserError(
            "cannot cluster features that contain NaN or infinity; start a new run with a smaller --learning-rate or "
            "--precision 32."
        )
    centered = features.double() - features.double().mean(0)
    variances, directions = torch.linalg.eigh(centered.T @ centered / len(centered))
    variances, directions = variances[-components:], directions[:, -components:]  # ascending: the last are the largest
    varies = variances > 1e-9 * variances[-1]  # smaller variances are rounding errors, which whitening would amplify
    scale = torch.where(varies, variances.clamp(min=1e-300).rsqrt(), 0)
    return F.normalize(centered @ directions * scale, dim=1).float()


def kmeans(points: Tensor, count: int, iterations: int, seed: int) -> Tensor:
    """Cluster index of each point: (n, D) float32 -> (n,) int64 below `count`.

    Faiss splits a large cluster where one is empty (section 3.2: the centroid of another, slightly perturbed). Results
    are bit-identical between calls, for any number of threads (measured and tested).
    """
    faiss = require_faiss()
    # The two bounds disable subsampling (many points) and warnings (few points).
    search = faiss.Kmeans(
        points.shape[1], count, niter=iterations, seed=seed,
        max_points_per_centroid=len(points), min_points_per_centroid=1,
    )  # fmt: skip
    search.train(points.numpy())
    return torch.from_numpy(search.index.search(points.numpy(), 1)[1][:, 0])


def nmi(first: Tensor, second: Tensor) -> float:
    """Normalized mutual information of two clusterings (equation 3), I / sqrt(H H), 0 to 1; 0 if either is one cluster.

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
    """NMI adjusted for chance, (NMI - chance) / (1 - chance): about 0 for independent clusterings.

    Many small clusters agree by chance: two random clusterings with 100 clusters have an NMI of 0.25 on 4,000 points.
    As Vinh, Epps and Bailey 2010, with the mean over shuffles instead of their formula, whose cost grows with k^2.

    Args:
        first: (n,) int64, 0 or more.
        second: (n,) int64, 0 or more.
        shuffles: number of random shuffles.
    """
    generator = torch.Generator().manual_seed(0)
    mixed = (second[torch.randperm(len(second), generator=generator)] for _ in range(shuffles))
    chance = sum(nmi(first, other) for other in mixed) / shuffles
    return (nmi(first, second) - chance) / (1 - chance) if chance < 1 else 0.0


def require_faiss() -> ModuleType:
    """Import faiss, which is needed for clustering only.

    Raises:
        UserError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise UserError("k-means needs faiss: pip install 'selftaught[clusters]'.") from error
    return faiss
