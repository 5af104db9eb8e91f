"""Average precision and area under the ROC curve of class scores, as scikit-learn defines them.

Equal scores are one step of the curve, whatever the order of the images. A class without positives has no average
precision, and one without negatives no area: their value is NaN, and means leave them out.

Letters: n images, c classes, S samples.
"""

import torch
from torch import Tensor

ROWS = 25
"""Samples that are computed together, which limits memory."""


def average_precision(scores: Tensor, positive: Tensor) -> Tensor:
    """Average precision of every class: mean over the positives of the precision at their score.

    Args:
        scores: (n, c), floating point.
        positive: (n, c) bool.

    Returns:
        (c,) in [0, 1], NaN without positives.
    """
    order = scores.argsort(0, descending=True)
    hits = positive.gather(0, order).to(scores.dtype)
    ranks = torch.arange(1, len(scores) + 1, device=scores.device, dtype=scores.dtype)[:, None]
    precision = (hits.cumsum(0) / ranks).gather(0, _last_equal(scores.gather(0, order)))
    return (precision * hits).sum(0) / hits.sum(0)


def roc_auc(scores: Tensor, positive: Tensor) -> Tensor:
    """Area under the ROC curve of every class, from sums of ranks.

    It is the probability that a positive has a higher score than a negative; equal scores count half.

    Args:
        scores: (n, c) on the CPU.
        positive: (n, c) bool.

    Returns:
        (c,) in [0, 1], NaN without positives or without negatives.
    """
    from scipy.stats import rankdata  # here, because importing it takes a second

    ranks = torch.from_numpy(rankdata(scores.numpy(), axis=0))
    count = positive.sum(0).double()
    above = (ranks * positive).sum(0) - count * (count + 1) / 2
    return above / (count * (len(scores) - count))


def resampled_map(scores: Tensor, positive: Tensor, counts: Tensor) -> Tensor:
    """Mean average precision of resampled images.

    Args:
        scores: (n, c) on the CPU.
        positive: (n, c) bool.
        counts: (S, n) int64, how often each image is in each sample.

    Returns:
        (S,) float64: the mean over the classes that the sample has; NaN if it has none.
    """
    values = torch.stack([_resampled(scores[:, k], positive[:, k], counts) for k in range(scores.shape[1])])
    return values.nanmean(0)


def _resampled(scores: Tensor, positive: Tensor, counts: Tensor) -> Tensor:
    """Average precision of one class in every sample, (S,), where image i counts as `counts[:, i]` images."""
    order = scores.argsort(descending=True)
    places = positive[order].nonzero().flatten()
    if not len(places):
        return torch.full((len(counts),), torch.nan, dtype=torch.float64)
    ends = _last_equal(scores[order][:, None])[places, 0]
    last = torch.searchsorted(places, ends, right=True) - 1  # the last positive of equal score
    values = []
    for part in torch.split(counts[:, order], ROWS):
        weight = part[:, places].double()
        right, all_ = weight.cumsum(1)[:, last], part.cumsum(1)[:, ends]
        values.append((weight * right / all_.clamp(min=1)).sum(1) / weight.sum(1))
    return torch.cat(values)


def _last_equal(ordered: Tensor) -> Tensor:
    """(n, c) int64: the last rank with the same score as each rank, of scores in descending order."""
    count = len(ordered)
    ends = torch.ones_like(ordered, dtype=torch.bool)
    ends[:-1] = ordered[:-1] != ordered[1:]
    ranks = torch.arange(count, device=ordered.device)[:, None]
    return torch.where(ends, ranks, count).flip(0).cummin(0).values.flip(0)
