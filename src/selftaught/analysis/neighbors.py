"""Nearest neighbors of images at every layer, by cosine similarity of features averaged over positions.

Neighbors show what a layer regards as similar: color and texture, or objects. With labels, the fraction of neighbors of
the same class measures it, over all images and not only those that are drawn. Random weights are the baseline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Source, evenly_spaced, pooled
from selftaught.display.progress import Meter
from selftaught.errors import UserError, require_between, unknown
from selftaught.limits import NUM_IMAGES

BATCH = 256
UNLABELED = -1


@dataclass(frozen=True)
class LayerNeighbors:
    """Neighbors at one layer."""

    layer: str
    indices: Tensor
    """(Q, k) int64: the neighbors of each query among the images, the nearest first."""
    same_class: float | None
    """Fraction of the k neighbors of an image that have its class, over all labeled images; None without labels."""


@dataclass(frozen=True)
class NeighborTable:
    """Neighbors at every layer, of a trained encoder and of random weights."""

    data: str
    images: int
    k: int
    trained: tuple[LayerNeighbors, ...]
    random: tuple[LayerNeighbors, ...]
    chance: float | None
    """Expected fraction of the same class among images drawn at random; None without labels."""

    def to_json(self) -> dict[str, object]:
        """Plain values, as stored in `pictures/*.json` and printed by `--json`; without indices."""
        rows = [
            {"layer": ours.layer, "same_class": ours.same_class, "random": theirs.same_class}
            for ours, theirs in zip(self.trained, self.random, strict=True)
        ]
        return {"data": self.data, "images": self.images, "k": self.k, "chance": self.chance, "layers": rows}


def render(facts: Mapping[str, object]) -> Table:
    """The table for the terminal, from `NeighborTable.to_json`."""
    out = Table(
        title=f"Fraction of the {facts['k']} nearest neighbors that have the image's class, {facts['images']:,} images",
        caption=f"Chance: {facts['chance']:.3f}. Random weights: a single initialization.",
        caption_justify="left",
    )
    for name in ("layer", "same class", "random weights"):
        out.add_column(name, justify="left" if name == "layer" else "right")
    rows: Sequence[Mapping[str, object]] = facts["layers"]  # type: ignore[assignment]
    for row in rows:
        out.add_row(str(row["layer"]), f"{row['same_class']:.3f}", f"{row['random']:.3f}")
    return out


def pooled_features(
    encoder: Encoder, source: Source, chosen: Tensor, size: int, device: torch.device, meter: Meter
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Features of images, averaged over positions and of unit length, and their labels.

    Returns:
        Layer -> (n, D) on the CPU; labels (n,), -1 for images without one, or None for a source without labels.
    """
    encoder.eval()
    features: dict[str, list[Tensor]] = {}
    labels: list[Tensor] = []
    for indices in torch.split(chosen, BATCH):
        batch = source.batch(indices, device)
        with torch.inference_mode():
            inputs = encoder.preprocess(batch.warp(identity(len(batch)), size))
            for layer, feature in encoder.features(inputs).items():
                features.setdefault(layer, []).append(F.normalize(pooled(feature.float()), dim=1).cpu())
        if "label" in batch.targets:
            labels.append(batch.targets["label"].cpu())
        meter.advance(len(indices))
    return {layer: torch.cat(parts) for layer, parts in features.items()}, torch.cat(labels) if labels else None


def nearest(features: Tensor, queries: Tensor, k: int) -> Tensor:
    """The k images most similar to each query, itself excluded.

    Args:
        features: (n, D) of unit length.
        queries: (Q,) indices.
        k: number of neighbors, below n.

    Returns:
        (Q, k) int64, the most similar first.
    """
    nearest = []
    for part in torch.split(queries, BATCH):
        similarity = features[part] @ features.T
        similarity[torch.arange(len(part)), part] = -torch.inf
        nearest.append(similarity.topk(k).indices)
    return torch.cat(nearest)


def find_neighbors(
    encoder: Encoder,
    random: Encoder,
    source: Source,
    *,
    size: int,
    images: int,
    queries: int,
    k: int,
    layers: Sequence[str] = (),
    device: torch.device,
) -> tuple[NeighborTable, Tensor, Tensor]:
    """Neighbors of evenly spaced queries among evenly spaced images of a source.

    Args:
        encoder: trained; moved to `device` and left in eval mode.
        random: the same with random weights.
        source: the images; labels are used if there are any.
        size: side of the views in pixels.
        images: number of images among which neighbors are searched; they include the queries.
        queries: Q, number of queries.
        k: number of neighbors of each.
        layers: layers to use; by default all.
        device: where to compute.

    Returns:
        The table; the indices in the source of the images (n,), and the positions of the queries among them (Q,).

    Raises:
        UserError: a layer does not exist, there are too few images, or a feature is not finite.
    """
    for layer in layers:
        if layer not in encoder.layers:
            raise unknown("layer", layer, encoder.layers)
    chosen = evenly_spaced(images, len(source))
    count = len(chosen)
    require_between("--k", k, *NUM_IMAGES)
    require_between("--queries", queries, *NUM_IMAGES)
    if count <= k:
        raise UserError(f"{k} neighbors need at least {k + 1} images, but {source.name} has {count}: add images.")
    query_indices = evenly_spaced(queries, count)
    results = []
    with Meter("neighbors", 2 * count) as meter:
        for net in (encoder, random):
            features, labels = pooled_features(net.to(device), source, chosen, size, device, meter)
            if not all(feature.isfinite().all() for feature in features.values()):
                raise UserError("the features contain infinity or NaN, as the training diverged: use another run.")
            results.append(tuple(_at(layer, features[layer], labels, query_indices, k) for layer in layers or features))
    chance = None if labels is None else _chance(labels)
    trained, untrained = results
    return NeighborTable(source.name, count, k, trained, untrained, chance), chosen, query_indices


def _at(layer: str, features: Tensor, labels: Tensor | None, queries: Tensor, k: int) -> LayerNeighbors:
    indices = nearest(features, torch.arange(len(features)) if labels is not None else queries, k)
    if labels is None:
        return LayerNeighbors(layer, indices, None)
    labeled = labels != UNLABELED
    same = (labels[indices] == labels[:, None])[labeled].float().mean() if labeled.any() else torch.tensor(torch.nan)
    return LayerNeighbors(layer, indices[queries], float(same))


def _chance(labels: Tensor) -> float | None:
    """Probability that another image drawn at random has the same class, over all labeled images."""
    counts = torch.bincount(labels[labels != UNLABELED]).double()
    labeled = counts.sum()
    return None if not labeled else float((counts * (counts - 1)).sum() / (labeled * (len(labels) - 1)))
