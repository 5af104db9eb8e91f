"""Random numbers of the images of a batch: the same for each image, however many processes share the batch.

A function that draws for images takes their number and returns one row per image (or K rows per image). If processes
share a batch, each makes the views of its part only, but draws for the whole batch and keeps the rows of its images, so
the views of an image do not depend on the number of processes. Numbers that all images of a batch have in common are
drawn from `common(generator)`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class PartGenerator(torch.Generator):
    """The generator of a process that makes the views of one part of a batch.

    Args:
        part: number of this part, from 0.
        parts: number of parts, all of the same size.
    """

    def __new__(cls, part: int, parts: int) -> "PartGenerator":
        """A generator on the CPU."""
        return super().__new__(cls)

    def __init__(self, part: int, parts: int) -> None:
        self.part, self.parts = part, parts
        self.whole = torch.Generator()

    def manual_seed(self, seed: int) -> "PartGenerator":
        """Seed the draws of the whole batch."""
        self.whole.manual_seed(seed)
        return self


def rand(*size: int, generator: torch.Generator, axis: int = 0) -> Tensor:
    """Uniform draws in [0, 1): `torch.rand` of `size`, where images are along `axis`."""
    return _part(torch.rand, size, generator, axis)


def randn(*size: int, generator: torch.Generator, axis: int = 0) -> Tensor:
    """Normal draws: `torch.randn` of `size`, where images are along `axis`."""
    return _part(torch.randn, size, generator, axis)


def randint(high: int, *size: int, generator: torch.Generator, axis: int = 0) -> Tensor:
    """Integers below `high`: `torch.randint` of `size`, where images are along `axis`."""

    def draw(size: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return torch.randint(high, size, generator=generator)

    return _part(draw, size, generator, axis)


def common(generator: torch.Generator) -> torch.Generator:
    """The generator of numbers that all images of a batch share; it gives the same numbers in all processes."""
    return generator.whole if isinstance(generator, PartGenerator) else generator


def _part(draw: Callable[..., Tensor], size: tuple[int, ...], generator: torch.Generator, axis: int) -> Tensor:
    if not isinstance(generator, PartGenerator):
        return draw(size, generator=generator)
    rows = size[axis]
    whole = draw((*size[:axis], rows * generator.parts, *size[axis + 1 :]), generator=generator.whole)
    return whole.narrow(axis, rows * generator.part, rows)


class OnlyTheseDraws(TorchFunctionMode):
    """Within the block, drawing directly from a `PartGenerator` is an error: images of all parts would be alike."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(kwargs.get("generator"), PartGenerator):
            raise TypeError(
                f"torch.{func.__name__} draws the same numbers in every process: use rand, randn or randint of "
                "selftaught.augment.draws for numbers of images, and common(generator) for those of the whole batch"
            )
        return func(*args, **kwargs)
