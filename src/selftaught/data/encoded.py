"""Images kept encoded: decoded whenever a batch needs them, by threads, to the pixels that the decode cache has.

Every image is compared with its digest when it is decoded (see `checked.py`), so one that changed ends a run instead of
changing it. Memory is that of a batch, and of one image for each thread while it is decoded.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.augment.warp import to_device
from selftaught.data.arrays import ARRAYS
from selftaught.data.brightness import Ranges
from selftaught.data.parallel import BLOCK, Usable, decode_one, threads
from selftaught.data.reader import Indices, Reader, readable
from selftaught.data.stored import Pixels
from selftaught.errors import UserError


class Encoded(Pixels):
    """The images of a reader, or one of their dense targets, decoded on the fly.

    Args:
        reader: the images.
        side: side of the squares in pixels.
        ranges: see `decode`.
        usable: the images that can be decoded; row i is the i-th of them.
        target: name of the dense target; "images" for the images themselves.
    """

    ahead = True

    def __init__(self, reader: Reader, side: int, ranges: Ranges, usable: Usable, target: str = "images") -> None:
        self.side = side
        self._reader, self._ranges, self._usable, self._target = reader, ranges, usable, target

    def take(self, rows: Tensor, device: torch.device) -> Tensor:
        """See `Pixels`.

        Raises:
            UserError: an image is not the one that it was when the source was opened.
        """
        channels, kind = ARRAYS[self._target]
        distinct, place = np.unique(rows.numpy(), return_inverse=True)  # ascending, as readers are fastest
        decoded = np.empty((len(distinct), channels, self.side, self.side), kind)
        size = max(1, min(BLOCK, -(-len(distinct) // threads())))
        parts = [slice(start, start + size) for start in range(0, len(distinct), size)]
        for done in [_workers().submit(self._decode, distinct[part], decoded[part]) for part in parts]:
            done.result()
        images = torch.from_numpy(decoded)
        out = torch.empty((len(rows), *images.shape[1:]), dtype=images.dtype, pin_memory=device.type == "cuda")
        return to_device(torch.index_select(images, 0, torch.from_numpy(place), out=out), device)

    def _decode(self, rows: Indices, out: NDArray[np.generic]) -> None:
        """Decode the images at some rows into an array."""
        indices, of_image = self._usable.indices[rows], self._target == "images"
        raws = self._reader.stream(indices)
        targets = Reader.stream_dense(self._reader, indices) if of_image else self._reader.stream_dense(indices)
        for place, (raw, own) in enumerate(zip(raws, targets, strict=True)):
            result = decode_one(raw, own, self.side, self._ranges, self._reader.conventions)
            if isinstance(result.image, str) or result.content_id != self._usable.content_ids[rows[place]]:
                title = readable(self._reader.title(int(indices[place])))
                why = f": it {result.image}" if isinstance(result.image, str) else ""
                raise UserError(
                    f"{title} in {self._reader.name} is not the image that was there when the source was opened{why}; "
                    "restore it, then continue with --resume."
                )
            out[place] = result.image if of_image else result.dense[self._target]


@cache
def _workers() -> ThreadPoolExecutor:
    """The threads that decode, shared by all sources of this process."""
    return ThreadPoolExecutor(threads(), "decode")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # the threads do not exist in a forked child
