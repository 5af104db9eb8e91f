"""Clustering of features: whitening PCA, k-means, and adjusted mutual information between clusterings.

Equations and sections below are those of Caron, Bojanowski, Joulin, Douze, "Deep Clustering for Unsupervised Learning
of Visual Features", ECCV 2018. https://arxiv.org/abs/1807.05520

Letters: n points, D features, k clusters.
"""

import warnings

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
    require_clustering()
    import faiss

    # The two bounds disable subsampling (many points) and warnings (few points).
    search = faiss.Kmeans(
        points.shape[1], count, niter=iterations, seed=seed,
        max_points_per_centroid=len(points), min_points_per_centroid=1,
    )  # fmt: skip
    search.train(points.numpy())
    return torch.from_numpy(search.index.search(points.numpy(), 1)[1][:, 0])


def ami(first: Tensor, second: Tensor) -> float:
    """Adjusted mutual information of two clusterings, with the geometric mean of the entropies as normalizer.

    The paper's normalized mutual information (equation 3), adjusted for chance (Vinh, Epps, Bailey 2010): many small
    clusters agree by chance, and two random clusterings with 100 clusters have an NMI of 0.25 on 4,000 points.

    Args:
        first: (n,) int64.
        second: (n,) int64.

    Returns:
        1 for equal clusterings up to the names of clusters, about 0 for independent ones, 0 if n is 0.
    """
    from sklearn.metrics import adjusted_mutual_info_score

    if not len(first):
        return 0.0  # scikit-learn: 1, but two samples without common images do not show agreement
    with warnings.catch_warnings():
        # Many small clusters are no regression targets, as scikit-learn suspects.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%", UserWarning)
        return float(adjusted_mutual_info_score(first.numpy(), second.numpy(), average_method="geometric"))


def require_clustering() -> None:
    """Check that faiss and scikit-learn are installed, which are needed for clustering only.

    Raises:
        UserError: one is not installed.
    """
    try:
        import faiss  # noqa: F401
        import sklearn.metrics  # noqa: F401
    except ImportError as error:
        raise UserError("clustering needs faiss and scikit-learn: pip install 'selftaught[clusters]'.") from error
