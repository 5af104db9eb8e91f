"""The memory bank: one unit vector per image, with lookup, sampling of negatives and momentum updates.

Unlike in the papers, all images of a batch share one draw of m + 1 different entries, of which each image ignores one:
its own if it was sampled, else the last. So every image has exactly m negatives, a uniform draw without replacement
from all entries but its own, as if drawn for it alone, and the comparison is one matrix product instead of gathering
(B, m, D). Only the draws of two images of a batch are no longer independent. (The papers draw for each image; their
released codes may draw an image's own entry as its negative.)

Letters: N images, m negatives, D dimensions, B anchors.

Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
https://arxiv.org/abs/1805.01978
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Source
from selftaught.modules.processes import gather, in_parts, processes

BankKind = Literal["device", "half", "host"]
"""Storage of the entries: float32 on the device, float16 on the device (half), or float16 in host memory (host)."""

PERMUTED = 1 << 17
"""Number of images up to which a draw permutes all of them (a millisecond); above, it draws with replacement and drops
duplicates."""

INIT_BATCH = 256
"""Batch size for the initial entries."""


class BankEntries(NamedTuple):
    """Entries of the bank for a batch."""

    positive: Tensor
    """(B, D) the entry of each image."""
    sampled: Tensor
    """(m + 1, D) the sampled entries, shared by the batch."""
    mask: Tensor
    """(B, m + 1) -inf for the one entry per row that is not among the image's m negatives, and 0 elsewhere."""

    def scores(self, anchors: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Scaled cosine similarities of unit vectors (B, D) and the entries, in float32.

        Returns:
            (B,) cosine / temperature with the positive entry, and (B, m + 1) with the negatives; -inf for the ignored.
        """
        with torch.autocast(anchors.device.type, enabled=False):  # in bf16 a cosine / 0.07 is off by 0.05
            anchors = anchors.float() / temperature
            return (anchors * self.positive).sum(1), torch.addmm(self.mask, anchors, self.sampled.T)


class MemoryBank(nn.Module):
    """Unit vectors of all images, each the moving average of the image's embeddings.

    Args:
        images: N.
        dimensions: D.
        kind: "device" is the papers' bank. "half" needs half the memory: a component is rounded by at most 2^-11 of its
            value, a cosine by about 0.0002. "host" stores the half-precision bank in host memory, so that a hundred
            million images take 26 GB there and nothing on the device; m + 1 + B rows are copied per step, with one
            synchronization. All three hold every image: a bank of the latest entries only would contain no entry of an
            image itself, since an epoch uses each image once.
    """

    entries: Tensor
    """(N, D) unit vectors."""
    log_normalizer: Tensor
    """() log of NPID's constant C; NaN before its estimation."""
    initialized: Tensor
    """() bool: whether the entries are embeddings."""

    def __init__(self, images: int, dimensions: int = 128, kind: BankKind = "device") -> None:
        super().__init__()
        self.kind = kind
        entries = torch.empty(images, dimensions, dtype=torch.float32 if kind == "device" else torch.float16)
        for part in torch.split(entries, 1 << 16):  # in parts, because a bank in host memory may not fit twice
            part.copy_(unit(torch.randn(part.shape)))
        self.register_buffer("entries", entries)
        self.register_buffer("log_normalizer", torch.tensor(torch.nan))
        self.register_buffer("initialized", torch.tensor(False))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and convert like any module, except for entries in host memory."""
        entries = self.entries if self.kind == "host" else None
        super()._apply(lambda tensor: tensor if tensor is entries else fn(tensor), recurse)  # type: ignore[no-untyped-call]
        return self

    def lookup(self, index: Tensor) -> Tensor:
        """Entries (n, D) in float32 on the device of `index` (n,)."""
        return self.entries[index.to(self.entries.device)].to(index.device, torch.float32)

    def gather(self, index: Tensor, sampled: Tensor) -> BankEntries:
        """Entries of the images `index` (B,) and those at `sampled` (m + 1,), which come from `sample_distinct`."""
        ignored = sampled == index[:, None]
        ignored[:, -1] |= ~ignored.any(1)
        entries = self.lookup(sampled)
        mask = torch.zeros(ignored.shape, device=entries.device).masked_fill_(ignored, -torch.inf)
        return BankEntries(self.lookup(index), entries, mask)

    def initialize(self, source: Source, embed: Callable[[Batch], Tensor], generator: torch.Generator) -> None:
        """Initialize the entries with embeddings of every image, once: `embed` maps a batch to (B, D).

        In random order, because sources may be sorted by class, and batch norm would remove from a batch of one class
        what its images have in common. In batches of similar size, because batch norm needs more than one image.
        """
        if self.initialized:
            return
        images = torch.randperm(len(source), generator=generator)
        for indices in images.chunk(max(1, len(images) // INIT_BATCH)):
            indices = indices.sort().values
            embedded = in_parts(indices, lambda part: unit(embed(source.batch(part, self.log_normalizer.device))))
            self.update(to_device(indices, embedded.device), embedded, momentum=0.0)
        self.initialized.fill_(True)

    def update(self, index: Tensor, features: Tensor, momentum: float) -> None:
        """Set entries to unit(momentum * entry + (1 - momentum) * feature): `index` (B,), unit `features` (B, D)."""
        entries = unit(momentum * self.lookup(index) + (1 - momentum) * features)
        self.entries[index.to(self.entries.device)] = entries.to(self.entries)

    def estimate_log_normalizer(self, negatives: Tensor) -> Tensor:
        """Log of NPID's C = m / n * Z: estimated from these scores (B, m + 1) in the first step, then constant.

        Wu et al. 2018, section 3.2: Z is a constant, estimated from the initial batches.
        """
        count = torch.tensor(float(len(negatives) * processes().count), device=negatives.device)
        estimate = gather(negatives.detach().logsumexp((0, 1))[None]).logsumexp(0) - count.log()
        return torch.where(self.log_normalizer.isnan(), estimate, self.log_normalizer)


def unit(features: Tensor) -> Tensor:
    """L2-normalize features (B, D), in float32."""
    return F.normalize(features.float(), dim=1)


def top1_accuracy(positive: Tensor, negatives: Tensor) -> Tensor:
    """Fraction of anchors whose positive score (B,) is above all negative ones (B, m + 1): chance is 1 / (m + 1)."""
    return (positive > negatives.amax(1)).float().mean()


def sample_distinct(count: int, images: int, generator: torch.Generator) -> Tensor:
    """`count` different images out of `images`, in random order: (count,) int64 on the CPU, in O(count) for large N."""
    if images <= max(PERMUTED, 4 * count):
        return torch.randperm(images, generator=generator)[:count]
    sampled = torch.empty(0, dtype=torch.int64)
    while len(sampled) < count:
        sampled = _first_of_each(torch.cat([sampled, torch.randint(images, (count,), generator=generator)]))
    return sampled[:count]


def _first_of_each(values: Tensor) -> Tensor:
    """Drop duplicates, keeping the order: [3, 1, 3, 2] -> [3, 1, 2]."""
    _, group = torch.unique(values, return_inverse=True)
    place = torch.arange(len(values))
    first = place.new_full((int(group.max()) + 1,), len(values)).scatter_reduce_(0, group, place, "amin")
    return values[first.sort().values]
