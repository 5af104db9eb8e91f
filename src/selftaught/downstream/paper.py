"""The `paper` protocol: batch normalisation and a linear layer on every layer's feature, all trained together by SGD.

Zhang et al. 2016 (section 4.1 and its released prototxt): batch normalisation without scale and shift, then one inner
product; all heads at once on random crops and mirrors; tested on the centre crop. Schedule of Goyal et al. 2019 as in
VISSL: 28 epochs, rate 0.01 per 256 images, a tenth after 8, 16 and 24, Nesterov momentum 0.9, weight decay 5e-4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import affine, coin, identity, uniform
from selftaught.contracts import Batch, Encoder, Source
from selftaught.downstream.fast import Reading
from selftaught.downstream.features import Viewing, pool, require_labels, require_some


@dataclass(frozen=True)
class Recipe:
    """How the heads are trained."""

    epochs: int = 28
    learning_rate: float = 0.01
    """Per 256 images of a batch."""
    drops: tuple[float, ...] = (8 / 28, 16 / 28, 24 / 28)
    """Shares of the steps after which the rate falls to a tenth."""
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def rate(self, done: float, batch_size: int) -> float:
        """The learning rate when this share of the steps (0 to 1) is done."""
        return self.learning_rate * batch_size / 256 * 0.1 ** sum(done >= drop for drop in self.drops)


def paper(
    encoder: Encoder,
    train: Source,
    test: Source,
    viewing: Viewing,
    seed: int,
    tick: Callable[[str, int], None],
    recipe: Recipe | None = None,
) -> dict[str, Reading]:
    """Probe every layer as the papers do.

    Args:
        encoder: on the device; left in eval mode, its weights as they were.
        train: the images that teach the probe.
        test: the images that judge it, read once when training is over.
        viewing: how images are shown; its `batch_size` is that of SGD.
        seed: of the heads' weights, the order of the images and their crops.
        tick: called with what is being done and how many images more have been read.
        recipe: how the heads are trained, `Recipe()` where None.

    Returns:
        Layer -> its reading, in the encoder's order.

    Raises:
        UserError: labels are missing.
    """
    recipe = recipe or Recipe()
    generator = torch.Generator().manual_seed(seed)
    classes = len(require_labels(train))
    encoder.eval()
    sizes = {name: x.shape[1] for name, x in _features(encoder, train.batch(torch.arange(1), viewing.device), viewing)}
    heads = nn.ModuleList(_head(size, classes, generator) for size in sizes.values()).to(viewing.device)
    _train(heads, encoder, train, viewing, recipe, generator, tick)
    right, count = _tested(heads, encoder, test, viewing, tick)
    return {name: Reading(hits / count, sizes[name]) for name, hits in zip(sizes, right, strict=True)}


def shifted_crop(count: int, side: int, size: int, generator: torch.Generator) -> Tensor:
    """Windows of `size` out of `side` pixels anywhere in the image, half of them mirrored: (count, 3, 3).

    Where the image is no larger than the view, it is moved by up to an eighth of its side, as by the padding of 4
    pixels that is usual at 32 (what comes in is mirrored, not black).
    """
    window = min(1.0, size / side)
    reach = 1 - window if window < 1 else 0.25
    x, y = uniform(-reach, reach, count, generator), uniform(-reach, reach, count, generator)
    return affine(x=x, y=y, width=window, height=window, flip=coin(0.5, count, generator), count=count)


def _train(
    heads: nn.ModuleList,
    encoder: Encoder,
    train: Source,
    viewing: Viewing,
    recipe: Recipe,
    generator: torch.Generator,
    tick: Callable[[str, int], None],
) -> None:
    optimizer = torch.optim.SGD(
        heads.parameters(), momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay
    )
    heads.train()
    for epoch in range(recipe.epochs):
        # The rest that fills no batch is left out, unless it is all there is: batch normalisation needs a batch.
        batches = torch.split(torch.randperm(len(train), generator=generator), viewing.batch_size)
        batches = batches[: max(1, len(train) // viewing.batch_size)]
        for step, indices in enumerate(batches):
            batch = train.batch(indices, viewing.device)
            crop = shifted_crop(len(batch), train.side, viewing.size, generator)
            known = batch.targets["label"] >= 0
            if known.sum() > 1:
                seen = _features(encoder, batch, viewing, crop)
                losses = [
                    F.cross_entropy(head(x[known]), batch.targets["label"][known])
                    for head, (_, x) in zip(heads, seen, strict=True)
                ]
                done = (epoch + step / len(batches)) / recipe.epochs
                optimizer.param_groups[0]["lr"] = recipe.rate(done, viewing.batch_size)
                optimizer.zero_grad()
                torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            tick(f"epoch {epoch + 1} of {recipe.epochs}", len(batch))


@torch.inference_mode()
def _tested(
    heads: nn.ModuleList, encoder: Encoder, test: Source, viewing: Viewing, tick: Callable[[str, int], None]
) -> tuple[list[int], int]:
    """How many test images each head reads rightly, of how many."""
    heads.eval()
    right, count = [0] * len(heads), 0
    window = min(1.0, viewing.size / test.side)
    for batch in test.batches(viewing.batch_size, viewing.device):
        labels = batch.targets["label"]
        seen = _features(encoder, batch, viewing, affine(width=window, height=window, count=len(batch)))
        for place, (head, (_, x)) in enumerate(zip(heads, seen, strict=True)):
            right[place] += int((head(x).argmax(1) == labels).sum())
        count += int((labels >= 0).sum())
        tick("testing", len(batch))
    return right, require_some(count, test)


@torch.no_grad()
def _features(
    encoder: Encoder, batch: Batch, viewing: Viewing, matrix: Tensor | None = None
) -> list[tuple[str, Tensor]]:
    """Layer and pooled feature, in order."""
    matrix = identity(len(batch)) if matrix is None else matrix
    seen = encoder.features(encoder.look(batch.warp(matrix, viewing.size)))
    return [(name, pool(x, viewing.dimensions, viewing.kind)) for name, x in seen.items()]


def _head(size: int, classes: int, generator: torch.Generator) -> nn.Module:
    """Batch normalisation without scale and shift, one linear layer; weights N(0, 0.01) and no bias to begin with."""
    linear = nn.Linear(size, classes, device="meta").to_empty(device="cpu")  # draws nothing from the global generator
    with torch.no_grad():
        linear.weight.normal_(0, 0.01, generator=generator)
        linear.bias.zero_()
    # The encoder is frozen, so the statistics stand still: their plain average (momentum None) is soon right.
    return nn.Sequential(nn.BatchNorm1d(size, affine=False, momentum=None), linear)
