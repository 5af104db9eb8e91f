"""Images with boxes or masks, in VOC and COCO layouts, for detection and segmentation."""

from selftaught.data.annotated.boxes import open_boxes
from selftaught.data.annotated.masks import open_masks
from selftaught.data.annotated.parts import Parts
from selftaught.data.annotated.source import BoxSource, MaskSource

__all__ = ["BoxSource", "MaskSource", "Parts", "open_boxes", "open_masks"]
