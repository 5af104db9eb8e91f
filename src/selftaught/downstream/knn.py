"""The `knn` protocol: weighted k nearest neighbours on every layer, a probe without training.

Wu et al. 2018 (section 3.4): cosine similarity s to every training image, and each of the k nearest votes for its
class with exp(s / temperature). Features are averaged over positions, as theirs are; raw pixels keep them.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.downstream.baselines import Pixels
from selftaught.downstream.fast import Reading
from selftaught.downstream.features import Features, Viewing, layer_features, require_labels, require_some


def knn(
    encoder: Encoder,
    train: Source,
    test: Source,
    viewing: Viewing,
    tick: Callable[[str, int], None],
    *,
    neighbors: int = 200,
    temperature: float = 0.07,
) -> dict[str, Reading]:
    """Ask the neighbours of every test image.

    Args:
        encoder: on the device; left in eval mode.
        train: labelled images that vote; their features, (N, C) float32 of every layer, must fit on the device.
        test: labelled images that ask.
        viewing: how images are shown; its dimensions are of raw pixels alone.
        tick: called with what is being done and how many images more have been read.
        neighbors: k; all training images where they are fewer.
        temperature: how much more the nearest count.

    Returns:
        Layer -> its reading, in the encoder's order.

    Raises:
        UserError: labels are missing.
    """
    classes = len(require_labels(train))
    if not isinstance(encoder, Pixels):
        viewing = replace(viewing, dimensions=1)  # so that positions are averaged
    parts = []
    for features in layer_features(encoder, train, viewing):
        parts.append(_unit(features))
        tick("reading", len(features.labels))
    require_some(sum(len(part.labels) for part in parts), train)
    voters = torch.cat([part.labels for part in parts])
    banks = {name: torch.cat([part.layers[name] for part in parts]) for name in parts[0].layers}
    right, count = dict.fromkeys(banks, 0), 0
    for features in map(_unit, layer_features(encoder, test, viewing)):
        for name, bank in banks.items():
            right[name] += _right(features.layers[name], features.labels, bank, voters, classes, neighbors, temperature)
        count += len(features.labels)
        tick("testing", len(features.labels))
    require_some(count, test)
    return {name: Reading(right[name] / count, bank.shape[1]) for name, bank in banks.items()}


def _unit(features: Features) -> Features:
    """Features at length 1."""
    return replace(features, layers={name: F.normalize(x, dim=1) for name, x in features.layers.items()})


def _right(
    queries: Tensor, labels: Tensor, bank: Tensor, voters: Tensor, classes: int, neighbors: int, temperature: float
) -> int:
    """How many of the queries (n, C) have neighbours in the bank (N, C) that vote for their label."""
    right = 0
    for rows, truth in zip(torch.split(queries, 256), torch.split(labels, 256), strict=True):
        near, which = (rows @ bank.T).topk(min(neighbors, len(bank)))
        votes = rows.new_zeros(len(rows), classes)
        votes.scatter_add_(1, voters[which], ((near - 1) / temperature).exp())  # - 1: the nearest possible votes with 1
        right += int((votes.argmax(1) == truth).sum())
    return right
