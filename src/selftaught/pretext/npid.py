"""NPID: which of all the images is this? To know one again in every crop and colour, one must see what it shows.

Each image is a class of its own, and the weights of its class are what the encoder said of it last time: the memory
bank. What looks alike is confused, and so ends side by side.

Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
https://arxiv.org/abs/1805.01978

Letters: B images, N all images, m negatives, D dimensions.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from selftaught.augment.color import random_color, recolor, require_jitter
from selftaught.augment.warp import moved, random_crop, require_shares
from selftaught.bank import BankKind, MemoryBank, draw, ranked_first, require_bank, require_others, unit
from selftaught.contracts import Batch, Encoder, Outcome, Source, Task, Views
from selftaught.errors import UserError
from selftaught.losses import nce


@dataclass(frozen=True)
class NPID(Task):
    """Tell each image from all others."""

    negatives: int = 4096
    """Other images that each image is compared with in a step (paper: 4096); at most all there are."""
    temperature: float = 0.07
    """What cosines are divided by (paper: 0.07); lower minds only the most similar images."""
    # Not the paper's: with its constant 600 steps of 64 on 30,000 images of CIFAR-10 raised the loss from 10 to 157 and
    # left every layer below random. Untrained features all lie in one direction, so once entries are features every e
    # is far above the Z that random entries gave, and to flee that direction is all that is learned.
    normalizer: Literal["sum", "constant"] = "sum"
    """What an exponential is held against: each image's own sum at each step, as in PIRL, or m / n * Z with a constant
    Z from the first batch, as in the paper, with which our short runs learned nothing."""
    memory: float = 0.5
    """Share of an entry that stays when it is renewed: 0.5 as in the released code, 0 in the paper."""
    proximal: float = 0.0
    """Weight of the squared distance to the own entry, which calms the bank (paper: up to 50; released code: none)."""
    dimensions: int = 128
    """Length of what is remembered of an image."""
    bank: BankKind = "device"
    """Where the memory bank is kept: on the device; half: there in half precision; host: in half precision in
    the memory of the host."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Share of the image's area that is shown, smallest and largest."""
    flip: bool = True
    """Mirror half of the images."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """How far brightness, contrast, saturation (factors about 1) and hue (share of the circle) are changed (released
    code: 0.4 of each)."""
    grey: float = 0.2
    """Share of the images that lose all colour, without which colour alone would tell images apart."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        require_bank(self.negatives, self.temperature, self.memory)
        require_shares("--scale", self.scale)
        require_jitter(self.jitter, self.grey)
        if self.proximal < 0:
            raise UserError(f"--proximal must be at least 0, found {self.proximal}: leave it out.")

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The projection and the bank."""
        require_others(self.negatives, len(source))
        channels = list(encoder.layers.values())[-1].channels
        return nn.ModuleDict(
            {
                "project": nn.Linear(channels, self.dimensions),
                "bank": MemoryBank(len(source), self.dimensions, self.bank),
            }
        )

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), `index` (B,), and `drawn` (m + 1,), the negatives of all: see `bank`."""
        crop = random_crop(len(batch), generator, scale=self.scale, flip=0.5 * self.flip)
        images = batch.warp(crop, self.size)
        factors = dict(zip(("brightness", "contrast", "saturation", "hue"), self.jitter, strict=True))
        color = random_color(len(batch), generator, **factors, grey=self.grey)
        drawn = draw(min(self.negatives + 1, batch.population), batch.population, generator)
        return {"images": recolor(images, *color), "index": batch.index, "drawn": moved(drawn, batch.index.device)}

    def loss(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> tuple[Tensor, Outcome]:
        """Noise contrastive estimation against the bank (section 3.2), and the proximal term (3.3)."""
        features = unit(heads["project"](encoder(views["images"])))
        bank = cast(MemoryBank, heads["bank"])
        recalled = bank.recall(views["index"], views["drawn"])
        own, others = recalled.scores(features, self.temperature)
        noise = bank.constant(others) if self.normalizer == "constant" else None
        loss = nce(own, others, noise)
        if self.proximal:
            loss = loss + self.proximal * (features - recalled.own).square().sum(1)
        outcome = {"accuracy": ranked_first(own, others), "features": features}
        return loss.mean(), outcome if noise is None else {**outcome, "noise": noise}

    def after_step(self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outcome: Outcome) -> None:
        """Renew the entries of these images."""
        bank = cast(MemoryBank, heads["bank"])
        bank.update(views["index"], outcome["features"], self.memory)
        bank.noise.copy_(outcome.get("noise", bank.noise))

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The images as they were compared."""
        return {"views": views["images"]}

    def chance(self, source: Source) -> dict[str, float]:
        """One in m + 1: a random entry is as likely to come first as any other."""
        return {"accuracy": 1 / min(self.negatives + 1, len(source))}
