"""MoCo v2: Identify the other view of the same image among a queue of embeddings of earlier batches.

The queue gives many negatives at any batch size. Its embeddings (keys) stay consistent because they come from a
momentum encoder, a slowly moving average of the encoder.

He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020.
https://arxiv.org/abs/1911.05722
Chen, Fan, Girshick, He, "Improved Baselines with Momentum Contrastive Learning", 2020. https://arxiv.org/abs/2003.04297

Shuffling batch norm does not depend on the number of processes: keys are normalized in groups that are not those of the
queries, so that batch statistics do not identify the positive.

Letters: B images, S pixels along a view, K keys in the queue, D dimensions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Outputs, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import ENTRIES, FRACTION, TEMPERATURE, VIEWS, WIDTH
from selftaught.modules.augmented import TwoViewTask, split_views
from selftaught.modules.heads import mlp
from selftaught.modules.momentum import momentum_copy, update_average
from selftaught.modules.processes import processes
from selftaught.modules.queue import Queue


@dataclass(frozen=True)
class MoCo(TwoViewTask):
    """Identify the other view of the same image among a queue of embeddings of earlier batches."""

    defaults = {"batch_size": 128}  # noqa: RUF012
    shortcut_guards: ClassVar[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {
        "color": ({"jitter": (0.0,) * 4, "grayscale": 0.0}, {"jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.2}),
        "crop": ({"view_area": (1.0, 1.0)}, {"view_area": (0.2, 1.0)}),
    }

    queue: int = 4096
    """Number of keys in the queue (paper: 65,536 on ImageNet)."""
    key_momentum: float = 0.99
    """Momentum of the key encoder (paper: 0.999, for runs of a million steps)."""
    temperature: float = 0.2
    """Temperature of the cosine similarities (v2: 0.2)."""
    dimensions: int = 128
    """Dimension of the embeddings (paper: 128)."""
    groups: int = 8
    """Groups in which keys are encoded, each with its own batch statistics (paper: its 8 GPUs)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, queue=ENTRIES, temperature=TEMPERATURE, dimensions=WIDTH, groups=VIEWS)
        require_ranges(self, key_momentum=FRACTION)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projector (v2: two layers without batch norm)."""
        return mlp(encoder.last.channels, encoder.last.channels, self.dimensions, norm=False)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The projector, the key encoder with its own, and the queue."""
        projection = self.projection(encoder)
        heads = {"projection": projection, "key": momentum_copy(encoder, projection)}
        return nn.ModuleDict({**heads, "queue": Queue(self.queue, self.dimensions)})

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy of each query over its own key and the queue (InfoNCE, equation 1)."""
        first, second = split_views(views["images"])
        query = F.normalize(heads["projection"](encoder(first)).float(), dim=1)
        key = F.normalize(self._keys(heads["key"], second).float(), dim=1)
        with torch.autocast(query.device.type, enabled=False):
            own = (query * key).sum(1, keepdim=True)
            logits = torch.cat([own, query @ cast(Queue, heads["queue"]).entries.T], 1) / self.temperature
        target = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        accuracy = (logits.argmax(1) == 0).float().mean()
        return F.cross_entropy(logits, target), {"accuracy": accuracy, "keys": key, "embeddings": query}

    @torch.no_grad()
    def _keys(self, encode: nn.Module, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, D), every g-th image of the whole batch in a group; at least two images in each."""
        count, first = len(images) * processes().count, len(images) * processes().rank
        groups = max(1, min(self.groups, count // 2))
        starts = [(group - first) % groups for group in range(groups)]
        order = torch.cat([torch.arange(len(images))[start::groups] for start in starts])
        keys = torch.cat([encode(images[start::groups]) for start in starts])
        return keys[order.argsort().to(keys.device)]

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Update the key encoder, and replace the oldest keys of the queue."""
        update_average(heads["key"], encoder, heads["projection"], momentum=self.key_momentum)
        cast(Queue, heads["queue"]).replace_oldest(outputs["keys"])

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / (K + 1): the own key is as likely to be the most similar as any of the queue."""
        return {"accuracy": 1 / (self.queue + 1)}
