"""Scale prediction: Classify the size and shape of the window that was cut from the image and resized to a view.

A counterexample to rotation prediction: resizing leaves traces, such as missing fine detail, that reveal the class
without recognition of objects. The paper names them as the reason to predict rotations instead; `selftaught study
rotation-vs-scaling` compares the two.

Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018, section 2.2.
https://arxiv.org/abs/1803.07728

Letters: B images, K windows.
"""

from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.draws import rand
from selftaught.augment.warp import affine, bernoulli, to_device
from selftaught.contracts import Batch, Encoder, Outputs, Source, Task, Views
from selftaught.errors import UserError, listed, require_between
from selftaught.limits import VIEWS
from selftaught.modules.heads import HeadKind, classifier


@dataclass(frozen=True)
class Scaling(Task):
    """Classify the size and aspect ratio of the window that a view shows.

    Not marked as `predicts_transformation`: on noise the class can be predicted, from the traces of resizing.
    """

    areas: tuple[float, ...] = (0.2, 0.35, 0.6, 1.0)
    """Areas of the windows, as fractions of the image: every combination with a ratio is a class."""
    ratios: tuple[float, ...] = (1.0,)
    """Width divided by height of the windows. Windows that do not fit into the image are rejected."""
    flip: bool = True
    """Mirror half of the images."""
    head: HeadKind = "linear"
    """Classification head: linear, or mlp."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        if len(set(self.areas)) < len(self.areas) or len(set(self.ratios)) < len(self.ratios) or len(self._classes) < 2:
            raise UserError(
                "scaling needs at least two different windows, and every area and ratio once, got --areas "
                f"{listed(self.areas)} --ratios {listed(self.ratios)}; for example --areas 0.2 0.35 0.6 1."
            )
        require_between("the number of windows of scaling", len(self._classes), *VIEWS)
        for area, ratio in self._classes:
            if not (0 < area <= 1 and ratio > 0 and area * max(ratio, 1 / ratio) <= 1):
                raise UserError(
                    f"a window with an area of {area:g} and a ratio of {ratio:g} does not fit into the image; --areas "
                    "expects fractions of its area and --ratios width divided by height, such as --areas 0.4 --ratios "
                    "0.5 1 2."
                )

    @property
    def _classes(self) -> list[tuple[float, float]]:
        return list(product(self.areas, self.ratios))

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A classifier on the pooled last layer."""
        return nn.ModuleDict({"window": classifier(encoder.last.channels, len(self._classes), self.head)})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (K * B, 3, S, S), all windows of an image in a row, and `window` (K * B,), class indices.

        Windows lie anywhere in the image, each at its own position.
        """
        count, ways = len(batch), len(self._classes)
        area, ratio = torch.tensor(self._classes).repeat(count, 1).unbind(1)
        width, height = (area * ratio).sqrt(), (area / ratio).sqrt()
        x, y = rand(count, 2 * ways, generator=generator).reshape(-1, 2).mul(2).sub(1).unbind(1)
        mirrored = bernoulli(0.5, count, generator).repeat_interleave(ways) if self.flip else 0.0
        matrix = affine(
            x=(1 - width) * x, y=(1 - height) * y, width=width, height=height, flip=mirrored, count=count * ways
        )
        images = batch.warp(matrix.reshape(count, ways, 3, 3), self.size).flatten(0, 1)
        return {"images": images, "window": to_device(torch.arange(ways).repeat(count), images.device)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy, averaged over images and windows."""
        logits = heads["window"](encoder(views["images"])).float()
        accuracy = (logits.argmax(1) == views["window"]).float().mean()
        return F.cross_entropy(logits, views["window"]), {"accuracy": accuracy}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / K."""
        return {"accuracy": 1 / len(self._classes)}
