"""Rotation prediction: Classify which of K rotations was applied to the image.

Solving it requires recognizing objects and their usual orientation.

Gidaris, Singh, Komodakis, "Unsupervised Representation Learning by Predicting Image Rotations", ICLR 2018.
https://arxiv.org/abs/1803.07728

Letters: B images, K angles.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.draws import randint
from selftaught.augment.warp import affine, to_device
from selftaught.contracts import Batch, Encoder, Outputs, Source, Views
from selftaught.errors import UserError, listed
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.heads import HeadKind, classifier


@dataclass(frozen=True)
class Rotation(CroppedTask):
    """Classify the rotation that was applied to an image."""

    predicts_transformation = True

    angles: tuple[int, ...] = (0, 90, 180, 270)
    """Angles in degrees, counter-clockwise. Multiples of 90 are exact; with any other angle, all rotations resample the
    inscribed square."""
    copies: Literal["all", "one"] = "all"
    """All rotations of each image in the batch ("significantly better", section 3.1 of the paper), or a random one."""
    head: HeadKind = "linear"
    """Classification head: linear, as in the paper, or mlp."""
    inscribed: bool = False
    """Resample the inscribed square even if all angles are multiples of 90, for comparisons with other angles."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        turns = {angle % 360 for angle in self.angles}
        if len(turns) < 2 or len(turns) < len(self.angles):
            raise UserError(
                f"rotation needs at least two different angles, got {listed(self.angles)}; for example --angles 0 90 "
                "180 270."
            )

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A classifier on the pooled last layer."""
        channels = encoder.last.channels
        return nn.ModuleDict({"angle": classifier(channels, len(self.angles), self.head)})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (n, 3, s, s) and `angle` (n,), class indices; n is K * B (all angles of an image in a row) or B."""
        count, ways = len(batch), len(self.angles)
        # The crop is drawn before the rotation, so that it is independent of the class.
        crop = self.augmentation().crops(count, generator)
        if self.copies == "all":
            classes = torch.arange(ways).repeat(count, 1)
        else:
            classes = randint(ways, count, 1, generator=generator)
        if all(angle % 90 == 0 for angle in self.angles) and not self.inscribed:
            turned = self._quarter_turns(batch.warp(crop, self.side), classes)
        else:
            degrees = torch.tensor(self.angles)[classes].flatten()
            # The square inscribed in every rotation of the view, because empty corners would reveal the angle.
            # Multiples of 90 are resampled like all other angles; interpolation artifacts still distinguish angles
            # modulo 90.
            half = math.sqrt(0.5)
            turn = affine(degrees=degrees, width=half, height=half, count=len(degrees)).reshape(count, -1, 3, 3)
            turned = batch.warp(crop[:, None] @ turn, self.side)
        return {"images": turned.flatten(0, 1), "angle": to_device(classes.flatten(), turned.device)}

    def _quarter_turns(self, images: Tensor, classes: Tensor) -> Tensor:
        """Exact rotations by multiples of 90: (B, 3, S, S) and class indices (B, k) on the CPU -> (B, k, 3, S, S)."""
        turned = images[:, None].expand(-1, classes.shape[1], -1, -1, -1).contiguous()
        for way, angle in enumerate(self.angles):
            image, copy = to_device((classes == way).nonzero(), images.device).unbind(1)
            if angle % 360:
                turned[image, copy] = torch.rot90(images[image], angle // 90, (2, 3))
        return turned

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy, averaged over images and angles (equation 3)."""
        logits = heads["angle"](encoder(views["images"])).float()
        accuracy = (logits.argmax(1) == views["angle"]).float().mean()
        return F.cross_entropy(logits, views["angle"]), {"accuracy": accuracy}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / K."""
        return {"accuracy": 1 / len(self.angles)}
