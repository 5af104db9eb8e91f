"""Test images with boxes or masks drawn on them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from selftaught.augment.warp import identity
from selftaught.data.annotated.source import IGNORED, AnnotatedSource, BoxSource, MaskSource
from selftaught.evaluation.transfer.average_precision import Boxes

COLORS = ((230, 60, 40), (30, 110, 230), (240, 190, 30), (60, 170, 80), (170, 80, 200), (20, 190, 200))
"""Of the classes, repeated if there are more. Classes of masks begin at 1: the background is not colored."""
OPACITY = 0.5


def draw_boxes(source: BoxSource, found: Sequence[Boxes]) -> Tensor:
    """The first images of a source with boxes.

    Args:
        source: the images.
        found: boxes of each of the first n images, in pixels of the original images.

    Returns:
        (n, 3, S, S) in [0, 1].
    """
    images = _canvases(source, len(found))
    drawn = []
    for number, (image, own) in enumerate(zip(images, found, strict=True)):
        scale = source.side / max(source.sizes[number])
        boxes = torch.from_numpy(own.boxes * scale).round()
        boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2])
        colors = [COLORS[label % len(COLORS)] for label in own.labels.tolist()]
        drawn.append(draw_bounding_boxes(image, boxes, colors=colors, width=2) if len(boxes) else image)
    return torch.stack(drawn).float() / 255


def draw_masks(source: MaskSource, masks: Tensor) -> Tensor:
    """The first images of a source with masks.

    Args:
        source: the images.
        masks: (n, S, S) uint8 class numbers on canvases, `IGNORED` where unknown.

    Returns:
        (n, 3, S, S) in [0, 1].
    """
    images, drawn = _canvases(source, len(masks)), []
    for image, mask in zip(images, masks, strict=True):
        classes = [number for number in mask.unique().tolist() if number not in (0, IGNORED)]
        regions = torch.stack([mask == number for number in classes]) if classes else mask.new_zeros(0, *mask.shape)
        colors = [COLORS[(number - 1) % len(COLORS)] for number in classes]
        drawn.append(draw_segmentation_masks(image, regions, OPACITY, colors) if classes else image)
    return torch.stack(drawn).float() / 255


def _canvases(source: AnnotatedSource, count: int) -> Tensor:
    """(count, 3, S, S) uint8: the first images."""
    batch = source.batch(torch.arange(count), torch.device("cpu"))
    return batch.warp(identity(count), source.side).mul(255).round().to(torch.uint8)
