"""k-NN accuracy on a labeled source during training: `pretrain --monitor SOURCE`.

Whether features become more useful does not show in a pretext loss. Only training images of the source are used: some
are the neighbors, others the queries; its test part stays untouched. The measurement changes nothing of the training.
"""

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Outputs, Source, Views, pooled
from selftaught.errors import UserError
from selftaught.evaluation.features import require_one_label
from selftaught.evaluation.probes.knn import Bank, KNNProbe
from selftaught.evaluation.quality import batch_statistics
from selftaught.training.loop import Pretraining

NEIGHBORS, QUERIES = 2000, 1000
"""Maximum number of images of either kind: the standard error of an accuracy is at most 1.6 percentage points."""
TIME_FRACTION = 0.05
"""Maximum fraction of the computation of training; a training step costs about three forward passes of its images."""
PROBE = KNNProbe(k=20)
"""Fewer neighbors than the default of the probe, whose bank is many times as large."""
BATCH = 250


class KNNMonitor:
    """Measures the k-NN accuracy of every layer, with batch norm over batches of the source.

    Args:
        source: labeled training images.
        run: the run.
        every: number of steps between two log lines.
        device: where the encoder is.

    Raises:
        UserError: the source has no labels, or too few images.
    """

    def __init__(self, source: Source, run: Pretraining, every: int, device: torch.device) -> None:
        self.classes = len(require_one_label(source, "--monitor"))
        self.source, self.run, self.device = source, run, device
        self.queries = min(QUERIES, len(source) // 3)
        self.images = min(len(source), self.queries + NEIGHBORS)
        if self.queries < 1:
            raise UserError(f"--monitor needs at least 3 labeled images, but {source.name} has {len(source)}.")
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
        self.order = order[: self.images]  # the queries come first
        self.interval = math.ceil(self.images / (3 * TIME_FRACTION * run.batch_size) / every) * every
        self.first = every

    @property
    def chance(self) -> dict[str, float]:
        """The accuracy of the most frequent class of the queries."""
        labels = self.source.all_labels()[self.order[: self.queries]]
        return {"knn_accuracy": float(labels.bincount().max() / self.queries)}

    def __call__(
        self, step: int, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs
    ) -> Mapping[str, float]:
        """Accuracies to log at the first line of the log, at every interval and at the last step; see `Watch`.

        Returns:
            `knn_accuracy` of the best layer and `knn_last_layer`, 0 to 1; nothing between two measurements.
        """
        if step % self.interval and step not in (self.first, self.run.steps):
            return {}
        accuracies = self.measure(encoder)
        return {"knn_accuracy": max(accuracies.values()), "knn_last_layer": list(accuracies.values())[-1]}

    def measure(self, encoder: Encoder) -> dict[str, float]:
        """Layer -> k-NN accuracy, 0 to 1, on features averaged over positions."""
        parts: dict[str, list[Tensor]] = {name: [] for name in encoder.layers}
        labels = []
        with torch.no_grad(), batch_statistics(encoder):
            for indices in self._parts():
                batch = self.source.batch(indices, self.device)
                images = encoder.preprocess(batch.warp(identity(len(batch)), self.run.task.size))
                for name, feature in encoder.features(images).items():
                    parts[name].append(pooled(feature.float()))
                labels.append(batch.targets["label"])
            truth = torch.cat(labels)
            return {name: self._accuracy(torch.cat(own), truth) for name, own in parts.items()}

    def _parts(self) -> tuple[Tensor, ...]:
        """The indices of all images, in equal parts, because a batch norm over one or two images is no use."""
        return torch.tensor_split(self.order, math.ceil(self.images / BATCH))

    def _accuracy(self, features: Tensor, labels: Tensor) -> float:
        bank = Bank(F.normalize(features[self.queries :]), labels[self.queries :])
        predicted = PROBE.votes(bank, self.classes, features[: self.queries]).argmax(1)
        return float((predicted == labels[: self.queries]).double().mean())
