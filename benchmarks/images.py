"""Images for benchmarks: noise, since the time per image does not depend on its content.

Both sides get the same decoded square images. From a folder of JPEGs, the usual recipes would decode every image in
every epoch, ours once; this is not measured here.
"""

import warnings
from collections.abc import Callable, Iterator, Sized
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler

from selftaught.data.stored import Resident, Stored

View = Callable[[Image.Image], Any]
"""A transform of one image into its view or views."""


def noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    """(count, 3, side, side) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def stored(pixels: np.ndarray) -> Stored:
    """A source of the images (N, 3, S, S) uint8."""
    return Stored("noise", Resident(pixels), torch.arange(len(pixels)), None, None, "noise")


class TransformedImages(Dataset[Any]):
    """The same images for the usual recipes: PIL images through a transform, one at a time, like torchvision's CIFAR10.

    Args:
        pixels: (N, 3, S, S) uint8.
        transform: transform of one image.
    """

    def __init__(self, pixels: np.ndarray, transform: View) -> None:
        self.pixels, self.transform = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Any:
        """The transformed image."""
        return self.transform(Image.fromarray(self.pixels[index]))


class LoaderBatches:
    """An endless stream of batches from a DataLoader, with workers, shuffling and the default collation.

    Workers run between `start` and `stop` only, so that they do not slow down the other side.

    Args:
        dataset: the transformed images, which has a length.
        batch_size: images per batch.
        workers: number of worker processes.
    """

    WARMUP = 4
    """Batches loaded before timing starts: as many as two workers prefetch, since these are available at once."""

    def __init__(self, dataset: Dataset[Any], batch_size: int, workers: int) -> None:
        sampler = RandomSampler(range(len(cast(Sized, dataset))), replacement=True, num_samples=10**9)
        with warnings.catch_warnings():  # more workers than cores; the table states their number
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            self._loader = DataLoader(dataset, batch_size, sampler=sampler, num_workers=workers)
        self._stream: Iterator[Any] = iter(())

    def start(self) -> None:
        """Start the workers and load the warm-up batches, to measure the speed in the middle of an epoch."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            self._stream = iter(self._loader)
        for _ in range(self.WARMUP):
            next(self._stream)

    def next(self) -> Any:
        """The next collated batch."""
        return next(self._stream)

    def stop(self) -> None:
        """Stop the workers."""
        self._stream = iter(())
