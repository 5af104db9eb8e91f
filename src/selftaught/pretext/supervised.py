"""Supervised classification: Classify the label of the image.

It is no pretext task but the baseline of all of them, with the same encoder, images and budget, and the task of
fine-tuning: layers nearer to the input can have lower learning rates or stay as they are.

Layer-wise learning-rate decay: Clark, Luong, Le, Manning, "ELECTRA", ICLR 2020, appendix on fine-tuning.
https://arxiv.org/abs/2003.10555

Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision",
CVPR 2016, section 7. https://arxiv.org/abs/1512.00567

Letters: B images, K classes, S pixels along a view.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.color import random_color, recolor, require_jitter
from selftaught.augment.warp import affine, bernoulli, uniform
from selftaught.contracts import Batch, Encoder, Outputs, ParameterGroup, Source, Views
from selftaught.errors import UserError, require_ranges
from selftaught.limits import FRACTION_BELOW_1, POSITIVE_FRACTION, Range
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.depth import fix_frozen_statistics, layer_groups, require_layer
from selftaught.modules.heads import classifier

PADDING = Range(0, 0.5)


@dataclass(frozen=True)
class Supervised(CroppedTask):
    """Classify the label of an image."""

    crop: float = 1.0
    """Side of the views as a fraction of --size."""
    padding: float = 0.0
    """Shift the whole image by up to this fraction of its side, mirrored at the border, instead of cropping and
    resizing; 0.125 is the usual 4 of 32 pixels."""
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """Color jitter: largest change of brightness, contrast, saturation (factors) and hue (fraction of the circle)."""
    label_smoothing: float = 0.0
    """Probability mass of the target that is spread over all classes (Inception: 0.1)."""
    layer_decay: float = 1.0
    """Ratio of the learning rates of neighboring layers: the classifier has the full rate, the last layer this fraction
    of it, the layer before its square, and so on."""
    freeze_until: str | None = None
    """Layer of the encoder that is not trained, nor are those before it; their batch norms use fixed statistics."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_jitter(self.jitter, 0.0)
        require_ranges(self, padding=PADDING, label_smoothing=FRACTION_BELOW_1, layer_decay=POSITIVE_FRACTION)

    def required_targets(self) -> tuple[str, ...]:
        """Labels."""
        return ("label",)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A linear classifier on the pooled last layer."""
        if self.freeze_until is not None:
            require_layer(encoder, self.freeze_until)
        classes = source.classes or ()
        if len(classes) < 2:
            raise UserError(
                f"the task supervised needs images of at least 2 classes, but {source.name} has {len(classes)}: add "
                "images of other classes."
            )
        return nn.ModuleDict({"label": classifier(encoder.last.channels, len(classes))})

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """One group per layer and one for the classifier; gradients of frozen layers are switched off here."""
        if self.layer_decay == 1 and self.freeze_until is None:
            return super().parameter_groups(encoder, heads)
        return layer_groups(encoder, heads, self.side, decay=self.layer_decay, freeze_until=self.freeze_until)

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and `label` (B,)."""
        images = batch.warp(self._frames(len(batch), generator), self.side)
        if any(self.jitter):
            factors = dict(zip(("brightness", "contrast", "saturation", "hue"), self.jitter, strict=True))
            images = recolor(images, *random_color(len(images), generator, **factors))
        return {"images": images, "label": batch.targets["label"]}

    def _frames(self, count: int, generator: torch.Generator) -> Tensor:
        """Random crops, or the whole image shifted where there is `padding`: (B, 3, 3)."""
        if not self.padding:
            return self.augmentation().crops(count, generator)
        most = 2 * self.padding  # the image is two wide
        x, y = (uniform(-most, most, count, generator) for _ in range(2))
        return affine(x=x, y=y, flip=bernoulli(0.5 * self.flip, count, generator), count=count)

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy with the smoothed label."""
        fix_frozen_statistics(encoder, self.freeze_until)
        logits = heads["label"](encoder(views["images"])).float()
        accuracy = (logits.argmax(1) == views["label"]).float().mean()
        return F.cross_entropy(logits, views["label"], label_smoothing=self.label_smoothing), {"accuracy": accuracy}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / K."""
        return {"accuracy": 1 / len(source.classes or (1,))}
