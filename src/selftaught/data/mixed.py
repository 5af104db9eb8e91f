"""Rendered and real images in one source, for domain adaptation."""

import hashlib
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from selftaught.augment.dense import DENSE_TARGETS
from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Source
from selftaught.data.stored import LazyTargets

CHANNELS: Mapping[str, int] = {name: 3 if name == "normals" else 1 for name in DENSE_TARGETS}
"""Channels of each dense target."""


class MixedSource(Source):
    """Rendered images at even indices and real ones at odd indices.

    There are as many of each; the images of the smaller source are repeated. So a batch drawn at random is half of each
    kind on average, and an epoch uses every image. Targets are `real` (B,) bool and the dense targets of the rendered
    images, which are zero for real ones.

    Args:
        rendered: images with dense targets.
        real: any images; their own targets are not used.
    """

    def __init__(self, rendered: Source, real: Source) -> None:
        self.rendered, self.real = rendered, real
        self.name = f"{rendered.name} and {real.name}"
        both = f"{rendered.fingerprint} {real.fingerprint}"
        self.fingerprint = hashlib.blake2b(both.encode(), digest_size=16).hexdigest()
        self.classes = None
        self.targets = (rendered.targets & set(DENSE_TARGETS)) | {"real"}
        self.side = min(rendered.side, real.side)

    def __len__(self) -> int:
        return 2 * max(len(self.rendered), len(self.real))

    @property
    def content_ids(self) -> Tensor:
        """See `Source`."""
        places = torch.arange(len(self) // 2)
        ids = [source.content_ids for source in (self.rendered, self.real)]
        if not all(map(len, ids)):
            return super().content_ids
        # Image i of a source comes from digest i modulo the number of digests.
        rendered, real = (each[places % len(s) % len(each)] for each, s in zip(ids, self._sources, strict=True))
        return torch.stack([rendered, real], 1).flatten()

    @property
    def _sources(self) -> tuple[Source, Source]:
        return self.rendered, self.real

    def batch(self, indices: Tensor, device: torch.device) -> "MixedBatch":
        """See `Source`."""
        rows = [(indices % 2 == kind).nonzero().flatten() for kind in (0, 1)]
        parts = [
            None if not len(chosen) else source.batch(indices[chosen] // 2 % len(source), device)
            for source, chosen in zip(self._sources, rows, strict=True)
        ]
        return MixedBatch(parts, rows, to_device(indices, device), self.targets, len(self))


class MixedBatch(Batch):
    """A batch of rendered and real images.

    Args:
        parts: the rendered and the real images; None where there are none.
        rows: the rows of each part in the batch, (n,) int64 on the CPU.
        index: see `Batch`.
        names: names of the targets.
        population: see `Batch`.
    """

    def __init__(
        self, parts: list[Batch | None], rows: list[Tensor], index: Tensor, names: frozenset[str], population: int
    ) -> None:
        self.parts, self.rows, self.index, self.population = parts, rows, index, population
        self.order = to_device(torch.cat(rows).argsort(), index.device)
        load = {name: partial(self._dense, name) for name in names - {"real"}}
        self.targets = LazyTargets({"real": index % 2 == 1}, load)

    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        """See `Batch`; dense targets of real images are zero."""
        warped: list[Tensor] = []
        for kind, (part, rows) in enumerate(zip(self.parts, self.rows, strict=True)):
            if part is None:
                continue
            if kind == 1 and of != "image":
                shape = (len(rows), *matrix.shape[1:-2], CHANNELS[of], size, size)
                warped.append(torch.zeros(shape, device=self.index.device))
            else:
                warped.append(part.warp(matrix[rows], size, of))
        return torch.cat(warped)[self.order]

    def _dense(self, name: str) -> Tensor:
        rendered, rows = self.parts[0], self.rows[1]
        stored = None if rendered is None else rendered.targets[name]
        side = 1 if stored is None else stored.shape[-1]
        zeros = torch.zeros(len(rows), CHANNELS[name], side, side, device=self.index.device)
        values = zeros if stored is None else torch.cat([stored, zeros])
        return values[self.order]
