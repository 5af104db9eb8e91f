"""All randomness of a run is a function of (seed, what, number), so there is no random state to save or restore.

A run that was interrupted at step 700 and resumed draws in step 701 what it would have drawn anyway: crops, negatives,
dropout, drop path and all.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import blake2b

import torch
from torch import Tensor


def derived(seed: int, what: str, number: int = 0) -> int:
    """A seed of 63 bits for one purpose, unrelated to those of other purposes and numbers."""
    digest = blake2b(f"{seed}/{what}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(seed: int, what: str, number: int = 0) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derived(seed, what, number))


def forked() -> AbstractContextManager[None]:
    """Give torch's ambient generators back afterwards as they are now, those of every device."""
    return torch.random.fork_rng(devices=range(torch.cuda.device_count()))  # named, or it warns of there being many


@contextmanager
def ambient(seed: int, what: str, number: int = 0) -> Iterator[None]:
    """Seed torch's ambient generators (initial weights, dropout) within the block, and give them back afterwards."""
    with forked():
        torch.manual_seed(derived(seed, what, number))
        yield


def order(seed: int, epoch: int, population: int, weights: Tensor | None = None, draws: int | None = None) -> Tensor:
    """Which images an epoch sees: (draws,) indices, every image once and again, or in proportion to `weights` (N,).

    Without `draws` as many as there are.
    """
    generator, draws = generator_for(seed, "order", epoch), population if draws is None else draws
    if weights is None:
        passes = [torch.randperm(population, generator=generator) for _ in range(-(-draws // population))]
        return torch.cat(passes)[:draws]
    # torch.multinomial stops at 2 ** 24 categories; inverting the cumulated weights has no such end.
    total = weights.cpu().double().cumsum(0)
    places = torch.rand(draws, generator=generator, dtype=torch.float64) * total[-1]
    return torch.searchsorted(total, places, right=True).clamp(max=population - 1)
