"""The memory bank: one unit vector per image, and how it is read, drawn from and written.

What is unusual: all images of a batch share one draw of m + 1 different entries, and each leaves one of them out: its
own where it is among them, else the last. So every image has exactly m negatives, a uniform draw without replacement
from all entries but its own, as if it had been drawn for it alone, and comparing is one matrix product instead of
gathering (B, m, D). Only the draws of two images of a batch are no longer independent. (The papers draw for each
image; the released codes may draw an image's own entry as its negative.)

Not here: several processes, whose banks would each learn of their own images only.

Letters: N images, m negatives, D dimensions, B anchors.

Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
https://arxiv.org/abs/1805.01978
"""

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Batch, Source
from selftaught.errors import UserError

BankKind = Literal["device", "half", "host"]
"""Where entries are and how exactly: float32 on the device, float16 on the device, float16 in host memory."""

SHUFFLED = 1 << 17
"""Up to this many images a draw shuffles all of them (a millisecond); above, it draws and drops what came twice."""


FILLED = 256
"""Images whose first entries are made at a time."""


class Recalled(NamedTuple):
    """What the bank says to a batch."""

    own: Tensor
    """(B, D) each image's own entry."""
    drawn: Tensor
    """(m + 1, D) the entries drawn for all."""
    dropped: Tensor
    """(B, m + 1) -inf where an entry is none of the image's m negatives, once per row, and 0 elsewhere."""

    def scores(self, anchors: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Compare unit vectors (B, D) with the entries, in float32.

        Returns:
            (B,) cosine / temperature with the own entry, and (B, m + 1) with the negatives, -inf for the one left out.
        """
        with torch.autocast(anchors.device.type, enabled=False):  # in bf16 a cosine / 0.07 is off by 0.05
            anchors = anchors.float() / temperature
            return (anchors * self.own).sum(1), torch.addmm(self.dropped, anchors, self.drawn.T)


class MemoryBank(nn.Module):
    """Unit vectors of all images, each the moving average of what the encoder last said of it.

    Args:
        images: N.
        dimensions: D.
        kind: "device" is the papers' bank. "half" is the same in half the memory: a component is rounded by at most
            2^-11 of itself, a cosine by about 0.0002. "host" keeps that bank in the memory of the host, whatever the
            device, so that a hundred million images take 26 GB of it and nothing of the device; m + 1 + B rows travel
            per step, and the device is waited for once. All three hold every image: a bank of the last entries only
            would have no entry of an image's own to compare with, since an epoch shows each image once.
    """

    entries: Tensor
    noise: Tensor
    filled: Tensor

    def __init__(self, images: int, dimensions: int = 128, kind: BankKind = "device") -> None:
        super().__init__()
        self.kind = kind
        entries = torch.empty(images, dimensions, dtype=torch.float32 if kind == "device" else torch.float16)
        for part in torch.split(entries, 1 << 16):  # in parts: a bank for the host need not fit twice
            part.copy_(unit(torch.randn(part.shape)))
        self.register_buffer("entries", entries)
        self.register_buffer("noise", torch.tensor(torch.nan))
        self.register_buffer("filled", torch.tensor(False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and convert as any module does, but leave the entries where they belong."""
        entries = self.entries if self.kind == "host" else None
        super()._apply(lambda tensor: tensor if tensor is entries else fn(tensor), recurse)  # type: ignore[no-untyped-call]
        return self

    def read(self, index: Tensor) -> Tensor:
        """Entries (n, D) in float32 on the device of `index` (n,)."""
        return self.entries[index.to(self.entries.device)].to(index.device, torch.float32)

    def recall(self, index: Tensor, drawn: Tensor) -> Recalled:
        """The entries of the images `index` (B,) and those of `drawn` (m + 1,), which `draw` gave."""
        own = drawn == index[:, None]
        own[:, -1] |= ~own.any(1)
        entries = self.read(drawn)
        dropped = torch.zeros(own.shape, device=entries.device).masked_fill_(own, -torch.inf)
        return Recalled(self.read(index), entries, dropped)

    def fill(self, source: Source, remember: Callable[[Batch], Tensor], generator: torch.Generator) -> None:
        """Begin with what an encoder says of every image, once: `remember` takes a batch to features (B, D).

        In random order: a source may be in order of class, and what batch norm takes out of a batch of one class is the
        class. And in parts of a like size, as no norm knows what to do with a batch of one.
        """
        if self.filled:
            return
        images = torch.randperm(len(source), generator=generator)
        for indices in images.chunk(max(1, len(images) // FILLED)):
            batch = source.batch(indices.sort().values, self.noise.device)
            self.update(batch.index, unit(remember(batch)), momentum=0.0)
        self.filled.fill_(True)

    def update(self, index: Tensor, features: Tensor, momentum: float) -> None:
        """Entries become unit(momentum * entry + (1 - momentum) * feature): `index` (B,), unit `features` (B, D)."""
        entries = unit(momentum * self.read(index) + (1 - momentum) * features)
        self.entries[index.to(self.entries.device)] = entries.to(self.entries)

    def constant(self, others: Tensor) -> Tensor:
        """Log of NPID's C = m / n * Z: from these scores (B, m + 1) in the first step, as then kept in `noise`.

        Wu et al. 2018, section 3.2: Z is a constant, estimated from the initial batches.
        """
        measured = others.detach().logsumexp((0, 1)) - torch.tensor(float(len(others)), device=others.device).log()
        return torch.where(self.noise.isnan(), measured, self.noise)


def unit(features: Tensor) -> Tensor:
    """Features (B, D) at length 1, in float32."""
    return F.normalize(features.float(), dim=1)


def ranked_first(own: Tensor, others: Tensor) -> Tensor:
    """Share of the anchors whose own entry is nearer than all their negatives: chance is exactly 1 / (m + 1)."""
    return (own > others.amax(1)).float().mean()


def require_bank(negatives: int, temperature: float, memory: float) -> None:
    """Refuse settings under which nothing is compared or remembered."""
    if negatives < 1:
        raise UserError(f"--negatives must be at least 1, found {negatives}: leave it out for the paper's.")
    if not temperature > 0:
        raise UserError(f"--temperature must be above 0, found {temperature}: try 0.07.")
    if not 0 <= memory < 1:
        raise UserError(f"--bank-momentum must be a share in [0, 1), found {memory}: try 0.5.")


def require_others(negatives: int, images: int) -> None:
    """Refuse a source without others, and give notice where it has fewer than were wished for.

    Raises:
        UserError: there are no others.
    """
    if images < 2:
        raise UserError(
            f"telling images apart needs at least 2 of them, found {images}: give a folder, or a photo with --crops."
        )
    if negatives >= images:
        logging.getLogger(__name__).warning(
            "%d negatives were wished for, %d other images exist: all are used", negatives, images - 1
        )


def draw(count: int, images: int, generator: torch.Generator) -> Tensor:
    """`count` different images out of `images`, in random order: (count,) int64 on the CPU, in O(count) for large N."""
    if images <= max(SHUFFLED, 4 * count):
        return torch.randperm(images, generator=generator)[:count]
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        found = _first_of_each(torch.cat([found, torch.randint(images, (count,), generator=generator)]))
    return found[:count]


def _first_of_each(values: Tensor) -> Tensor:
    """Without what came before, in order: [3, 1, 3, 2] -> [3, 1, 2]."""
    _, group = torch.unique(values, return_inverse=True)
    place = torch.arange(len(values))
    first = place.new_full((int(group.max()) + 1,), len(values)).scatter_reduce_(0, group, place, "amin")
    return values[first.sort().values]
