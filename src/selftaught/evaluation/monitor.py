"""Monitors the features of the last layer during training, and reports when they collapse.

A loss may fall while all images get the same feature, so the loss alone does not show a collapse. The measurement uses
a fixed batch of images, changes nothing of the training, and happens at log lines only.
"""

import math
from collections.abc import Mapping

import torch
from rich.console import Console
from torch import nn

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Views, evenly_spaced
from selftaught.evaluation.quality import Quality, QualityStatistics, batch_statistics
from selftaught.training.loop import Pretraining
from selftaught.training.randomness import preserve_rng

IMAGES = 128
"""Number of images of the fixed batch; the effective rank is at most this."""
SHARE = 0.02
"""Maximum share of the computation of training; a training step costs about three forward passes of its images."""
CONSTANT = 0.1
"""Standard deviation, relative to the start of training, below which features are nearly constant."""
NARROW = (0.1, 0.2)
"""Effective rank above 1, and standard deviation, both relative to the start of training, below which features lie
near a line. Strict, because a task of few classes narrows features as well: healthy rotation fell to 0.14 and 0.21 in a
small net. So a partial collapse is not reported, see results/feature-quality.md."""


class FeatureMonitor:
    """Measures effective rank and standard deviation of the last layer's features.

    Args:
        run: the run, whose encoder still has its initial weights: they are the reference.
        every: number of steps between two log lines.
        device: where the encoder is.
        console: where a collapse is reported.
    """

    def __init__(self, run: Pretraining, every: int, device: torch.device, console: Console) -> None:
        self.run, self.device, self.console = run, device, console
        self.chosen = evenly_spaced(IMAGES, len(run.source))
        self.interval = math.ceil(len(self.chosen) / (3 * SHARE * run.batch_size) / every) * every
        self.collapsed = False
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

    def __call__(self, step: int, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> Mapping[str, float]:
        """Values to log at this step, none between two measurements; see `training.loop.Watch`."""
        if step % self.interval and step != self.run.steps:
            return {}
        quality = self.measure(encoder)
        if (collapsed := has_collapsed(quality, self.start)) != self.collapsed:
            self.collapsed = collapsed
            self.console.print(self._message(step, quality) if collapsed else f"step {step:,}: features have recovered")
        return {"feature_rank": round(quality.rank, 4), "feature_std": round(quality.std, 6)}

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
