"""Detection: train an encoder as the backbone of Faster R-CNN, and measure the average precision of its boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selftaught.augment.warp import bernoulli, identity
from selftaught.contracts import Batch, Encoder, Outputs, ParameterGroup, Source, Task, Views
from selftaught.data.annotated.canvas import flip_boxes, flip_matrices
from selftaught.data.annotated.source import BoxSource
from selftaught.errors import require_ranges, unknown
from selftaught.evaluation.transfer.average_precision import (
    Boxes,
    average_precision,
    match,
    precision_by_class,
    resampled_ap,
)
from selftaught.evaluation.transfer.contract import EXAMPLES, PREDICTED, Predictions, Transfer
from selftaught.evaluation.transfer.detector import Variant, build_detector, run_detector
from selftaught.evaluation.transfer.drawing import draw_boxes
from selftaught.limits import Range
from selftaught.modules.depth import fix_frozen_statistics, layer_groups, require_layer

HEAD_WIDTH = Range(8, 8192)
SHOWN = 0.5
"""Score from which a detection is drawn."""


@dataclass(frozen=True)
class Detection(Task):
    """Detect the boxes of an image. The views are whole images on canvases, half of them mirrored."""

    detector: Variant = "c4"
    """Boxes from the last layer, or from a feature pyramid over the layers."""
    head_width: int = 256
    """Width of the box head; the pyramid has a quarter of it."""
    freeze_until: str | None = None
    """Layer of the encoder that is not trained, nor are those before it; their batch norms use fixed statistics."""

    def required_targets(self) -> tuple[str, ...]:
        """Boxes with classes."""
        return ("boxes",)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The detector's heads, with random weights."""
        if self.freeze_until is not None:
            require_layer(encoder, self.freeze_until)
        return build_detector(encoder, len(source.classes or ()), self.size, self.detector, self.head_width)

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """One learning rate for all; gradients of frozen layers are switched off here."""
        return layer_groups(encoder, heads, self.size, freeze_until=self.freeze_until)

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), and `content`, `boxes` and `box_labels` as in `BoxSource`."""
        content, flipped = batch.targets["content"], bernoulli(0.5, len(batch), generator)
        images = batch.warp(flip_matrices(content.cpu(), flipped, self.size), self.size)
        boxes = flip_boxes(batch.targets["boxes"], content, flipped.to(content.device))
        return {"images": images, "content": content, "boxes": boxes, "box_labels": batch.targets["box_labels"]}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """The sum of the four losses of Faster R-CNN, which have equal weight (Ren et al. 2015, equation 1)."""
        fix_frozen_statistics(encoder, self.freeze_until)
        targets = [
            {"boxes": boxes[labels > 0], "labels": labels[labels > 0]}
            for boxes, labels in zip(views["boxes"], views["box_labels"], strict=True)
        ]
        _, losses = run_detector(encoder, heads, views["images"], _heights(views["content"]), targets)
        return torch.stack(list(losses.values())).sum(), losses

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The augmented images."""
        return {"views": views["images"]}


@dataclass(frozen=True)
class DetectionTransfer(Transfer[BoxSource]):
    """Transfer to detection, measured by COCO's average precision."""

    name = "detection"
    metrics: ClassVar[Mapping[str, str]] = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}

    detector: Variant = "c4"
    """Boxes from the last layer, or from a feature pyramid over the layers."""
    head_width: int = 256
    """Width of the box head; the pyramid has a quarter of it."""

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.detector not in ("c4", "fpn"):
            raise unknown("detector", self.detector, ["c4", "fpn"])
        require_ranges(self, head_width=HEAD_WIDTH)

    def task(self, size: int, freeze_until: str | None) -> Detection:
        """See `Transfer`."""
        return Detection(size, self.detector, self.head_width, freeze_until)

    def predict(self, encoder: Encoder, heads: nn.ModuleDict, source: BoxSource, device: torch.device) -> Predictions:
        """`image` (n,), `boxes` (n, 4) in pixels of the original images, `labels` (n,) from 0 and `scores` (n,)."""
        encoder.eval(), heads.eval()
        parts: dict[str, list[NDArray[np.generic]]] = {"image": [], "boxes": [], "labels": [], "scores": []}
        with torch.no_grad():
            for batch in source.batches(PREDICTED, device):
                content = batch.targets["content"]
                images = batch.warp(identity(len(batch)), source.side)
                found, _ = run_detector(encoder, heads, images, _heights(content), None)
                for number, size, each in zip(batch.index.tolist(), content.cpu(), found, strict=True):
                    scale = torch.tensor(source.sizes[number] * 2) / size.repeat(2)
                    parts["image"].append(np.full(len(each["scores"]), number, np.int32))
                    parts["boxes"].append((each["boxes"].cpu() * scale).numpy())
                    parts["labels"].append((each["labels"].cpu() - 1).numpy().astype(np.int16))
                    parts["scores"].append(each["scores"].cpu().numpy())
        return {name: np.concatenate(values) for name, values in parts.items()}

    def score(self, predictions: Predictions, source: BoxSource) -> dict[str, float]:
        """AP, AP50 and AP75."""
        return average_precision(truths(source), by_image(predictions, len(source)), len(source.classes or ()))

    def by_class(self, predictions: Predictions, source: BoxSource) -> tuple[float | None, ...]:
        """AP of every class."""
        return precision_by_class(truths(source), by_image(predictions, len(source)), len(source.classes or ()))

    def examples(self, predictions: Predictions, source: BoxSource) -> Tensor | None:
        """See `Transfer`: detections with a score of at least `SHOWN`."""
        found = by_image(predictions, len(source))[:EXAMPLES]
        return draw_boxes(source, [each.chosen(each.scores >= SHOWN) for each in found])

    def annotated(self, source: BoxSource) -> Tensor:
        """See `Transfer`."""
        return draw_boxes(source, [each.chosen(each.scores > 0) for each in truths(source)[:EXAMPLES]])

    def resampled(self, predictions: Predictions, source: BoxSource, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """AP, see `Transfer`."""
        found = by_image(predictions, len(source))
        return resampled_ap(match(truths(source), found, len(source.classes or ())), counts)


def truths(source: BoxSource) -> list[Boxes]:
    """The annotated boxes of every image, in pixels of the original images."""
    return [
        Boxes(item.boxes, numbers, 1.0 - item.ignored.astype(np.float64))
        for item, numbers in zip(source.items, source.numbers, strict=True)
    ]


def by_image(predictions: Predictions, images: int) -> list[Boxes]:
    """Detections of each image."""
    image, boxes, labels, scores = (predictions[name] for name in ("image", "boxes", "labels", "scores"))
    chosen: Sequence[NDArray[np.bool_]] = [image == number for number in range(images)]
    return [
        Boxes(boxes[each].astype(np.float64), labels[each].astype(np.int64), scores[each].astype(np.float64))
        for each in chosen
    ]


def _heights(content: Tensor) -> list[tuple[int, int]]:
    """Height and width of each image on its canvas, in torchvision's order."""
    return [(int(height), int(width)) for width, height in content.tolist()]
