"""Segmentation: train an encoder with a fully convolutional head, and measure its mean intersection over union.

Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic Segmentation", CVPR 2015 (FCN-32s: one head on the
last layer, whose class scores are upsampled). https://arxiv.org/abs/1411.4038
The head is torchvision's: a 3 x 3 convolution to a quarter of the channels, batch norm, ReLU, dropout of 0.1, and a
1 x 1 convolution.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.segmentation.fcn import FCNHead

from selftaught.augment.warp import bernoulli, identity
from selftaught.contracts import Batch, Encoder, Outputs, ParameterGroup, Source, Task, Views
from selftaught.data.annotated.canvas import flip_matrices
from selftaught.data.annotated.source import IGNORED, MaskSource
from selftaught.evaluation.transfer.contract import EXAMPLES, PREDICTED, Predictions, Transfer
from selftaught.evaluation.transfer.detector import require_maps
from selftaught.evaluation.transfer.drawing import draw_masks
from selftaught.modules.depth import fix_frozen_statistics, layer_groups, require_layer


@dataclass(frozen=True)
class Segmentation(Task):
    """Classify every pixel of an image. The views are whole images on canvases, half of them mirrored."""

    freeze_until: str | None = None
    """Layer of the encoder that is not trained, nor are those before it; their batch norms use fixed statistics."""

    def required_targets(self) -> tuple[str, ...]:
        """The class of every pixel."""
        return ("mask",)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The head, with random weights."""
        if self.freeze_until is not None:
            require_layer(encoder, self.freeze_until)
        (channels,) = require_maps(encoder, self.size, "c4").values()
        return nn.ModuleDict({"mask": FCNHead(channels, len(source.classes or ()))})

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """One learning rate for all; gradients of frozen layers are switched off here."""
        return layer_groups(encoder, heads, self.size, freeze_until=self.freeze_until)

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and `mask` (B, S, S) int64."""
        flipped = bernoulli(0.5, len(batch), generator)
        matrix = flip_matrices(batch.targets["content"].cpu(), flipped, self.size)
        mask = batch.warp(matrix, self.size, of="mask")[:, 0].long()
        return {"images": batch.warp(matrix, self.size), "mask": mask}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy, averaged over the pixels that are not ignored; 0 where all are."""
        fix_frozen_statistics(encoder, self.freeze_until)
        scores, mask = class_scores(encoder, heads, views["images"]), views["mask"]
        counted = mask != IGNORED
        total = F.cross_entropy(scores, mask, ignore_index=IGNORED, reduction="sum")
        number = counted.sum().clamp(min=1)
        return total / number, {"pixel_accuracy": ((scores.argmax(1) == mask) & counted).sum() / number}

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The augmented images."""
        return {"views": views["images"]}


@dataclass(frozen=True)
class SegmentationTransfer(Transfer[MaskSource]):
    """Transfer to segmentation, measured by mean intersection over union and pixel accuracy."""

    name = "segmentation"
    metrics: ClassVar[Mapping[str, str]] = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}

    def task(self, size: int, freeze_until: str | None) -> Segmentation:
        """See `Transfer`."""
        return Segmentation(size, freeze_until)

    def predict(self, encoder: Encoder, heads: nn.ModuleDict, source: MaskSource, device: torch.device) -> Predictions:
        """Pixels of each image and class at the resolution of the masks, and the first masks on canvases.

        Returns:
            `shared`, `predicted` and `labeled` (N, K), and `examples` (n, S, S).
        """
        encoder.eval(), heads.eval()
        classes = len(source.classes or ())
        counts: list[NDArray[np.int64]] = []
        examples: list[NDArray[np.uint8]] = []
        with torch.no_grad():
            for batch in source.batches(PREDICTED, device):
                scores = class_scores(encoder, heads, batch.warp(identity(len(batch)), source.side))
                sizes = batch.targets["content"].long().tolist()
                for number, each, (width, height) in zip(batch.index.tolist(), scores, sizes, strict=True):
                    mask = source.load(source.masks[number])
                    upsampled = F.interpolate(each[None, :, :height, :width], mask.shape, mode="bilinear")
                    if len(examples) < EXAMPLES:
                        examples.append(each.argmax(0).to(torch.uint8).cpu().numpy())
                    counts.append(pixel_counts(upsampled[0].argmax(0).cpu().numpy(), mask, classes))
        shared, predicted, labeled = np.stack(counts, 1)
        return {"shared": shared, "predicted": predicted, "labeled": labeled, "examples": np.stack(examples)}

    def score(self, predictions: Predictions, source: MaskSource) -> dict[str, float]:
        """Mean intersection over union over the classes that occur in the masks, and pixel accuracy."""
        whole = np.ones((1, len(source)), np.int64)
        accuracy = float(predictions["shared"].sum() / predictions["labeled"].sum())
        return {"mean_iou": float(self.resampled(predictions, source, whole)[0]), "pixel_accuracy": accuracy}

    def by_class(self, predictions: Predictions, source: MaskSource) -> tuple[float | None, ...]:
        """Intersection over union of every class."""
        shared, predicted, labeled = (
            predictions[name].astype(np.int64).sum(0) for name in ("shared", "predicted", "labeled")
        )
        pairs = zip(shared.tolist(), (predicted + labeled - shared).tolist(), labeled.tolist(), strict=True)
        return tuple(own / union if present else None for own, union, present in pairs)

    def examples(self, predictions: Predictions, source: MaskSource) -> Tensor | None:
        """See `Transfer`."""
        if "examples" not in predictions:
            return None
        return draw_masks(source, torch.from_numpy(predictions["examples"].astype(np.uint8)))

    def annotated(self, source: MaskSource) -> Tensor:
        """See `Transfer`."""
        return draw_masks(source, source.annotations(range(min(EXAMPLES, len(source))))["mask"][:, 0])

    def resampled(self, predictions: Predictions, source: MaskSource, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean intersection over union, see `Transfer`: from the pixels of all images together, as VOC counts."""
        shared, predicted, labeled = (
            counts @ predictions[name].astype(np.int64) for name in ("shared", "predicted", "labeled")
        )
        union, present = predicted + labeled - shared, labeled > 0
        iou = np.divide(shared, union, out=np.zeros(union.shape), where=present)
        return np.divide(iou.sum(1), present.sum(1), out=np.full(len(counts), np.nan), where=present.any(1))


def class_scores(encoder: Encoder, heads: nn.ModuleDict, images: Tensor) -> Tensor:
    """(B, 3, S, S) in [0, 1] -> (B, K, S, S) float32: scores of each class at every pixel."""
    scores: Tensor = heads["mask"](encoder.last_features(images))
    return F.interpolate(scores.float(), images.shape[-2:], mode="bilinear")


def pixel_counts(predicted: NDArray[np.int64], mask: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(3, K): pixels of each class that are right, predicted and labeled; ignored pixels are left out.

    Args:
        predicted: (H, W) class numbers.
        mask: (H, W) class numbers or `IGNORED`.
        classes: K.
    """
    counted = mask != IGNORED
    ours, theirs = predicted[counted], mask[counted].astype(np.int64)
    parts = ours[ours == theirs], ours, theirs
    return np.stack([np.bincount(part, minlength=classes) for part in parts])
