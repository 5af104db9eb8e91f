"""Images for benchmarks: noise, because what stands on an image does not change how long it takes to move its pixels.

Both sides get the same decoded squares. A folder of JPEGs would cost the usual recipes a decoding per image and epoch
on top of what is measured here, and ours one per image.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.datasets import ImageFolder

from selftaught.data.stored import Resident, Stored

View = Callable[[Image.Image], Any]
"""What a recipe makes of one image."""


def noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    """(count, 3, side, side) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def stored(pixels: np.ndarray) -> Stored:
    """(N, 3, S, S) uint8 as a source of ours."""
    return Stored("noise", Resident(pixels), torch.arange(len(pixels)), None, None, "noise")


class Pictures(Dataset[Any]):
    """The same images for the usual recipes: PIL images through a transform, one at a time, as torchvision's CIFAR10.

    Args:
        pixels: (N, 3, S, S) uint8.
        transform: what is done to each.
    """

    def __init__(self, pixels: np.ndarray, transform: View) -> None:
        self.pixels, self.transform = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Any:
        """What the transform makes of one image."""
        return self.transform(Image.fromarray(self.pixels[index]))


class Loaded:
    """Batches from the usual loader, without end: workers, shuffling, the default collation.

    Workers are started by `start` and ended by `stop`, so that they work only while their side is measured.

    Args:
        pictures: the images and what is done to each.
        batch_size: images per batch.
        workers: processes.
    """

    FULL = 4
    """Batches taken before anything is timed: as many as two workers prefetch, so that no batch is had for nothing."""

    def __init__(self, pictures: Pictures | ImageFolder, batch_size: int, workers: int) -> None:
        sampler = RandomSampler(range(len(pictures)), replacement=True, num_samples=10**9)
        with warnings.catch_warnings():  # how many there are stands in the table, even if the machine has fewer cores
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            self._loader = DataLoader(pictures, batch_size, sampler=sampler, num_workers=workers)
        self._stream: Iterator[Any] = iter(())

    def start(self) -> None:
        """Start the workers and wait until they run as in the middle of an epoch."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            self._stream = iter(self._loader)
        for _ in range(self.FULL):
            next(self._stream)

    def next(self) -> Any:
        """One collated batch."""
        return next(self._stream)

    def stop(self) -> None:
        """End the workers."""
        self._stream = iter(())
