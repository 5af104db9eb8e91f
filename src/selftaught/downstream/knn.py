"""Weighted k nearest neighbours on the last feature: a probe without training.

Wu et al. 2018 (section 3.4): cosine similarity s to every training image, and each of the k nearest votes for its
class with exp(s / temperature).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Source
from selftaught.downstream.features import require_labels, require_some


def knn(
    encoder: Encoder,
    train: Source,
    test: Source,
    *,
    size: int,
    device: torch.device,
    neighbors: int = 200,
    temperature: float = 0.07,
) -> float:
    """The share of the test images whose neighbours vote for their label, 0 to 1.

    Args:
        encoder: on `device`; left in eval mode.
        train: labelled images that vote; their features, (N, D) float32, must fit on the device.
        test: labelled images that ask.
        size: side of the views in pixels.
        device: where to compute.
        neighbors: k; all training images where they are fewer.
        temperature: how much more the nearest count.

    Raises:
        UserError: labels are missing.
    """
    classes = len(require_labels(train))
    encoder.eval()
    bank, voters = _embedded(encoder, train, size, device)
    queries, labels = _embedded(encoder, test, size, device)
    right = 0
    for rows, truth in zip(torch.split(queries, 256), torch.split(labels, 256), strict=True):
        near, which = (rows @ bank.T).topk(min(neighbors, len(bank)))
        votes = rows.new_zeros(len(rows), classes)
        votes.scatter_add_(1, voters[which], ((near - 1) / temperature).exp())  # - 1: the nearest possible votes with 1
        right += int((votes.argmax(1) == truth).sum())
    return right / require_some(len(labels), test)


@torch.inference_mode()
def _embedded(encoder: Encoder, source: Source, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Unit features (n, D) and labels (n,) of the labelled images."""
    features, labels = [], []
    for batch in source.batches(256, device):
        known = batch.targets["label"] >= 0
        features.append(F.normalize(encoder(batch.warp(identity(len(batch)), size)).float(), dim=1)[known])
        labels.append(batch.targets["label"][known])
    return torch.cat(features), torch.cat(labels)
