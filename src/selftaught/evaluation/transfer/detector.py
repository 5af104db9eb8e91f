"""Faster R-CNN on an encoder: torchvision's region proposals and box heads on one layer (`c4`) or a pyramid (`fpn`).

Ren, He, Girshick, Sun, "Faster R-CNN", NeurIPS 2015. https://arxiv.org/abs/1506.01497
Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017. https://arxiv.org/abs/1612.03144

The heads are narrower than the papers' (a box head of 256 instead of 1,024, a pyramid of 64 instead of 256 channels by
default) and there are fewer proposals, for training on a CPU; all are the same for every encoder. C4 of the papers puts
a residual network's last stage into the box head; encoders here have no such stage, so its box head is that of `fpn`.

Letters: B images, C channels, S pixels along a canvas, L levels.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from selftaught.contracts import Encoder
from selftaught.errors import UserError

Variant = Literal["c4", "fpn"]
POOLED = 7
"""Side of the features of a box."""
SMALLEST, LARGEST = 0.05, 0.8
"""Sides of the smallest and largest anchors as fractions of the canvas: 40 and 640 of 800 pixels."""
RATIOS = (0.5, 1.0, 2.0)
"""Ratios of height to width of the anchors (Ren et al., section 3.3)."""
SINGLE_SIZES, LEVEL_SIZES = 5, 2
"""Sizes of anchors on a single layer, and on each level of a pyramid; evenly spaced on a logarithmic scale."""
CANONICAL = 0.28
"""Side of a box, as a fraction of the canvas, that is pooled from the level of stride 16: 224 of 800 pixels (Lin et
al., equation 1)."""
MOST_BOXES = 100
"""Detections per image, as COCO counts them."""


def require_maps(encoder: Encoder, size: int, variant: Variant) -> dict[str, int]:
    """The layers that a detector uses, and their channels: the last one, or the last layer of each stride for `fpn`.

    Raises:
        UserError: a layer has no positions, or all layers of a pyramid would have one stride.
    """
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    with torch.no_grad():
        features = encoder.eval().features(encoder.preprocess(torch.zeros(1, 3, size, size, device=device)))
    last = list(features)[-1]
    if any(features[name].ndim != 4 for name in (features if variant == "fpn" else [last])):
        raise UserError(
            "detection and segmentation need an encoder with feature maps: use a CNN or a vision transformer."
        )
    if variant == "c4":
        return {last: features[last].shape[1]}
    strides = {feature.shape[-1]: name for name, feature in features.items()}  # the last layer of each stride
    if len(strides) < 2:
        raise UserError(
            f"fpn needs layers of different strides, but all layers of this encoder have {features[last].shape[-1]} x "
            f"{features[last].shape[-1]} positions, as those of a vision transformer: use --detector c4."
        )
    return {name: features[name].shape[1] for name in strides.values()}


def build_detector(encoder: Encoder, classes: int, size: int, variant: Variant, width: int) -> nn.ModuleDict:
    """The modules of a detector beside its encoder: `rpn`, `boxes` and, for `fpn`, `pyramid`.

    Args:
        encoder: with feature maps; unchanged.
        classes: number of classes without the background.
        size: S.
        variant: `c4` or `fpn`.
        width: of the box head; the pyramid has a quarter of it.
    """
    layers = require_maps(encoder, size, variant)
    heads = nn.ModuleDict()
    if variant == "fpn":
        channels, levels = max(1, width // 4), len(layers) + 1
        heads["pyramid"] = FeaturePyramidNetwork(list(layers.values()), channels, LastLevelMaxPool())
        steps = torch.logspace(0, 1, LEVEL_SIZES * levels, base=LARGEST / SMALLEST) * SMALLEST * size
        sizes = tuple(tuple(step.tolist()) for step in steps.reshape(levels, LEVEL_SIZES))
        pool: nn.Module = _PyramidPool(list(layers), size)
    else:
        (channels,) = layers.values()
        steps = torch.logspace(0, 1, SINGLE_SIZES, base=LARGEST / SMALLEST) * SMALLEST * size
        sizes = (tuple(steps.tolist()),)
        pool = _LayerPool(size)
    anchors = AnchorGenerator(sizes, (RATIOS,) * len(sizes))
    heads["rpn"] = RegionProposalNetwork(
        anchors,
        RPNHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=256,
        positive_fraction=0.5,
        pre_nms_top_n={"training": 1000, "testing": 1000},
        post_nms_top_n={"training": 500, "testing": 300},
        nms_thresh=0.7,
    )
    heads["boxes"] = RoIHeads(
        pool,
        TwoMLPHead(channels * POOLED**2, width),
        FastRCNNPredictor(width, classes + 1),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=128,
        positive_fraction=0.25,
        bbox_reg_weights=None,
        score_thresh=0.01,
        nms_thresh=0.5,
        detections_per_img=MOST_BOXES,
    )
    return heads


def run_detector(
    encoder: Encoder,
    heads: nn.ModuleDict,
    images: Tensor,
    content: list[tuple[int, int]],
    targets: list[dict[str, Tensor]] | None,
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Detections of images, or the losses of targets.

    Only the encoder runs under autocast: bf16 has 8 bits of precision, too few for coordinates of hundreds of pixels.

    Args:
        encoder: on the device of the images.
        heads: from `build_detector`, in training mode if and only if there are targets.
        images: (B, 3, S, S) in [0, 1].
        content: height and width of each image on its canvas.
        targets: `boxes` (n, 4) and `labels` (n,) of each image; None to detect.

    Returns:
        `boxes`, `labels` and `scores` of each image, in pixels of the canvas; and the four losses.
    """
    features = encoder.features(encoder.preprocess(images))
    with torch.autocast(images.device.type, enabled=False):
        if "pyramid" in heads:
            maps = heads["pyramid"]({name: features[name].float() for name in _layers_of(heads)})
        else:
            last = list(features)[-1]
            maps = {last: features[last].float()}
        proposals, proposal_losses = heads["rpn"](ImageList(images.float(), content), maps, targets)
        detections, box_losses = heads["boxes"](maps, proposals, content, targets)
    return detections, {**proposal_losses, **box_losses}


class _LayerPool(nn.Module):
    """Features of boxes from one layer, whatever its stride: torchvision's pool rounds strides to powers of two."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], content: list[tuple[int, int]]) -> Tensor:
        (features,) = maps.values()
        return roi_align(features, boxes, POOLED, features.shape[-1] / self.size, sampling_ratio=2, aligned=True)


class _PyramidPool(nn.Module):
    """Features of boxes from the level of a pyramid that suits their size.

    Scales are those of the whole canvas. From the size of the content, which is passed, torchvision would infer others.
    """

    def __init__(self, layers: list[str], size: int) -> None:
        super().__init__()
        self.layers, self.size = layers, size
        self.pool = MultiScaleRoIAlign(layers, POOLED, 2, canonical_scale=max(1, round(CANONICAL * size)))

    def forward(self, maps: dict[str, Tensor], boxes: list[Tensor], content: list[tuple[int, int]]) -> Tensor:
        pooled: Tensor = self.pool(maps, boxes, [(self.size, self.size)] * len(boxes))
        return pooled


def _layers_of(heads: nn.ModuleDict) -> list[str]:
    pool = heads["boxes"].box_roi_pool
    assert isinstance(pool, _PyramidPool)
    return pool.layers
