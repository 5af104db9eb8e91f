"""Rotation: Classify which of K rotations was applied to the image.

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

from selftaught.augment.warp import affine, to_device
from selftaught.contracts import Batch, Encoder, Outcome, Source, Views
from selftaught.errors import UserError
from selftaught.modules.crops import CropTask
from selftaught.modules.heads import HeadKind, classifier, require_readable


@dataclass(frozen=True)
class Rotation(CropTask):
    """Classify the angle by which an image was turned."""

    predicts_transformation = True

    angles: tuple[int, ...] = (0, 90, 180, 270)
    """Degrees, counter-clockwise. Multiples of 90 are exact; others make all resample the inscribed square."""
    copies: Literal["all", "one"] = "all"
    """All angles of each image in the batch ("significantly better", section 3.1 of the paper), or one at random."""
    head: HeadKind = "linear"
    """Linear, as in the paper, or mlp."""
    inscribed: bool = False
    """Turn by resampling the inscribed square even where no angle asks for it: for comparisons with angles that do."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        super().__post_init__()
        turns = {angle % 360 for angle in self.angles}
        if len(turns) < 2 or len(turns) < len(self.angles):
            raise UserError(
                f"rotation needs at least two different angles, found {', '.join(map(str, self.angles)) or 'none'}: "
                "give --angles 0 90 180 270, for example."
            )

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """One classifier on the pooled last layer."""
        require_readable(encoder, self.side, "crop")
        channels = encoder.last.channels
        return nn.ModuleDict({"angle": classifier(channels, len(self.angles), self.head)})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (n, 3, s, s) and `angle` (n,), an index; n is K * B with the angles of one image in a row, or B."""
        count, ways = len(batch), len(self.angles)
        crop = self.windows(count, generator)  # before the turn, so that it says nothing of it
        if self.copies == "all":
            asked = torch.arange(ways).repeat(count, 1)
        else:
            asked = torch.randint(ways, (count, 1), generator=generator)
        if all(angle % 90 == 0 for angle in self.angles) and not self.inscribed:
            turned = self._quarter_turns(batch.warp(crop, self.side), asked)
        else:
            degrees = torch.tensor(self.angles)[asked].flatten()
            # The square inscribed in every turn of the unit square: empty corners would be the answer. Quarter turns
            # are resampled like all others; what the lattice leaves in the others still tells angles modulo 90 apart.
            half = math.sqrt(0.5)
            turn = affine(degrees=degrees, width=half, height=half, count=len(degrees)).reshape(count, -1, 3, 3)
            turned = batch.warp(crop[:, None] @ turn, self.side)
        return {"images": turned.flatten(0, 1), "angle": to_device(asked.flatten(), turned.device)}

    def _quarter_turns(self, images: Tensor, asked: Tensor) -> Tensor:
        """Exact turns by moving pixels: (B, 3, S, S) and (B, k) indices on the CPU -> (B, k, 3, S, S)."""
        turned = images[:, None].expand(-1, asked.shape[1], -1, -1, -1).contiguous()
        for way, angle in enumerate(self.angles):
            image, copy = to_device((asked == way).nonzero(), images.device).unbind(1)
            if angle % 360:
                turned[image, copy] = torch.rot90(images[image], angle // 90, (2, 3))
        return turned

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Cross-entropy, averaged over images and angles (equation 3)."""
        logits = heads["angle"](encoder(views["images"])).float()
        accuracy = (logits.argmax(1) == views["angle"]).float().mean()
        return F.cross_entropy(logits, views["angle"]), {"accuracy": accuracy}

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The turned images, angle after angle."""
        return {"views": views["images"]}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """One in K."""
        return {"accuracy": 1 / len(self.angles)}
