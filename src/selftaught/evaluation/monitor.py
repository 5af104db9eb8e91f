"""Monitors the last layer's features and the loss's embeddings during training, and reports when they collapse.

A loss may fall while all images get the same feature, so the loss alone does not show a collapse. Two things are
measured, at log lines only, and neither changes the training:

- the features of a fixed batch of images, compared with those of the initial weights. A task of few classes narrows
  features as well, so only a complete collapse can be distinguished from healthy training.
- the embeddings of the last step, of losses that return them (see `Outputs`). Joint-embedding losses are the ones that
  collapse, and do so in the space of their embeddings first. There a healthy loss spreads images over many directions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Outputs, Views, evenly_spaced
from selftaught.evaluation.quality import Quality, QualityStatistics, batch_statistics, effective_rank
from selftaught.training.loop import Pretraining
from selftaught.training.randomness import preserve_rng

IMAGES = 128
"""Number of images of the fixed batch; the effective rank is at most this."""
TIME_FRACTION = 0.02
"""Maximum fraction of the computation of training; a training step costs about three forward passes of its images."""
CONSTANT = 0.1
"""Standard deviation, relative to the start of training, below which features are nearly constant."""
NARROW = (0.1, 0.2)
"""Effective rank above 1, and standard deviation, both relative to the start of training, below which features lie
near a line. Strict, because a task of few classes narrows features as well: healthy rotation fell to 0.14 and 0.21 in a
small net. So a partial collapse is not reported, see results/feature-quality.md."""
EMBEDDINGS = 128
"""Maximum number of embeddings that are measured, one of each image."""
SAME = 0.1
"""Standard deviation of embeddings of unit length, relative to 1 / sqrt(D), below which they are nearly the same.
Healthy MoCo, whose projection has no batch norm, falls to 0.24 in its first steps; see results/feature-quality.md."""
FEW_DIRECTIONS = 3.0
"""Effective rank of embeddings around their mean below which they lie along few directions. SimSiam without its
stop-gradient falls below 3 within 40 steps, while its standard deviation stays above 0.35."""
SHRUNK = 0.2
"""Standard deviation of each dimension, relative to `Task.embedding_std`, below which embeddings have shrunk to a
point, although their directions may still differ. VICReg begins at 0.35 on CIFAR-10 and rises; without its variance
term it falls below 0.2 in a few steps; see results/feature-quality.md."""
FEWEST = 8
"""Number of embeddings, and of their dimensions, from which the standard deviation is meaningful."""
FEWEST_FOR_RANK = 32
"""The same for the effective rank, which is at most either number."""
RECOVERED = 2.0
"""Factor of both thresholds above which embeddings have recovered."""
LINES = 3
"""Number of consecutive log lines at which embeddings must be collapsed: single batches are not reported."""


@dataclass(frozen=True)
class Spread:
    """How far the embeddings of different images are spread."""

    rank: float
    """Effective rank around their mean: 1 on a line, at most min(n - 1, D); 0 if all are equal."""
    std: float
    """Standard deviation of embeddings of unit length, averaged over dimensions; see `Quality.std`."""
    count: int
    """n."""
    dimensions: int
    """D."""
    scale: float
    """Standard deviation of the embeddings as they are, averaged over dimensions."""

    @property
    def relative_std(self) -> float:
        """1 if embeddings are spread evenly over all directions, 0 if all are the same."""
        return self.std * math.sqrt(self.dimensions)

    def collapsed(self, target: float | None = None, factor: float = 1.0) -> bool:
        """Whether embeddings are nearly the same, or lie along few of many directions.

        Args:
            target: see `Task.embedding_std`.
            factor: of all thresholds; above 1 to report a recovery, so that reports do not alternate.
        """
        if target is not None and self.scale < factor * SHRUNK * target:
            return True
        fewest = min(self.count, self.dimensions)
        few_directions = fewest >= FEWEST_FOR_RANK and self.rank < factor * FEW_DIRECTIONS
        return few_directions or (fewest >= FEWEST and self.relative_std < factor * SAME)


def spread(embeddings: Tensor) -> Spread:
    """The spread of embeddings (n, D) of different images, of the first `EMBEDDINGS` of them."""
    z = embeddings.detach()[:EMBEDDINGS].double().cpu()
    std = F.normalize(z, dim=1).std(0, correction=0).mean()
    centered = z - z.mean(0)
    gram = centered @ centered.T if len(z) < z.shape[1] else centered.T @ centered  # cheaper than singular values
    rank = effective_rank(torch.linalg.eigvalsh(gram).clamp(min=0).sqrt())
    return Spread(rank, float(std), len(z), z.shape[1], float(z.std(0, correction=0).mean()))


class FeatureMonitor:
    """Measures effective rank and standard deviation of the last layer's features and of the loss's embeddings.

    Args:
        run: the run, whose encoder still has its initial weights: they are the reference.
        every: number of steps between two log lines.
        device: where the encoder is.
        console: where a collapse is reported.
    """

    def __init__(self, run: Pretraining, every: int, device: torch.device, console: Console) -> None:
        self.run, self.device, self.console = run, device, console
        self.chosen = evenly_spaced(IMAGES, len(run.source))
        self.interval = math.ceil(len(self.chosen) / (3 * TIME_FRACTION * run.batch_size) / every) * every
        self.collapsed = self.embeddings_collapsed = False
        self.lines = 0
        with preserve_rng(device):
            self.start = self.measure(run.encoder)

    def measure(self, encoder: Encoder) -> Quality:
        """The quality of the last layer's features, with batch norm over the fixed batch."""
        batch = self.run.source.batch(self.chosen, self.device)
        with torch.no_grad(), batch_statistics(encoder):
            features = encoder(batch.warp(identity(len(batch)), self.run.task.size))
        statistics = QualityStatistics(features.shape[1])
        statistics.add(features.float())
        return statistics.result()

    def __call__(
        self, step: int, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs
    ) -> Mapping[str, float]:
        """Values to log at this step; those of features at some lines only. See `training.loop.Watch`."""
        return {**self._watch_features(step, encoder), **self._watch_embeddings(step, outputs)}

    def _watch_features(self, step: int, encoder: Encoder) -> Mapping[str, float]:
        if step % self.interval and step != self.run.steps:
            return {}
        quality = self.measure(encoder)
        if (collapsed := has_collapsed(quality, self.start)) != self.collapsed:
            self.collapsed = collapsed
            self.console.print(self._message(step, quality) if collapsed else f"step {step:,}: features have recovered")
        return {"feature_rank": round(quality.rank, 4), "feature_std": round(quality.std, 6)}

    def _watch_embeddings(self, step: int, outputs: Outputs) -> Mapping[str, float]:
        embeddings = outputs.get("embeddings")
        if embeddings is None:
            return {}
        now, target = spread(embeddings), self.run.task.embedding_std
        most = min(now.count - 1, now.dimensions)
        self.lines = self.lines + 1 if now.collapsed(target) else 0
        if self.lines == LINES and not self.embeddings_collapsed:
            self.embeddings_collapsed = True
            shrunk = (
                "" if target is None else f"standard deviation {now.scale:.2g}, while the loss aims at {target:g}; "
            )
            self.console.print(
                f"warning: the embeddings have collapsed at step {step:,}: {shrunk}standard deviation of unit vectors "
                f"{now.relative_std:.2g} times 1 / sqrt(D), effective rank {now.rank:.1f} of at most {most:,}. "
                "Images are hardly distinguished by the loss any more, even if it falls."
            )
        elif self.embeddings_collapsed and not now.collapsed(target, RECOVERED):
            self.embeddings_collapsed = False
            self.console.print(f"step {step:,}: embeddings have recovered")
        return {"embedding_rank": round(now.rank, 4), "embedding_std": round(now.std, 6)}

    def _message(self, step: int, quality: Quality) -> str:
        return (
            f"warning: the features have collapsed at step {step:,}: effective rank {quality.rank:.2f} (at the start "
            f"{self.start.rank:.2f}), standard deviation {quality.std:.2g} ({self.start.std:.2g}). Images are hardly "
            "distinguished any more, even if the loss falls."
        )


def has_collapsed(now: Quality, start: Quality) -> bool:
    """Whether features are nearly constant or near a line, compared with the start of training."""
    rank, std = (now.rank - 1) / max(start.rank - 1, 1e-6), now.std / max(start.std, 1e-12)
    return std < CONSTANT or (rank < NARROW[0] and std < NARROW[1])
