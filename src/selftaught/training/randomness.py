"""All randomness of a run is a function of (seed, what, number), so there is no random state to save or restore.

A run that was interrupted at step 700 and resumed draws in step 701 what it would have drawn anyway: crops, negatives,
dropout, drop path and all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def ambient(seed: int, what: str, number: int = 0) -> Iterator[None]:
    """Seed torch's ambient generators (initial weights, dropout) within the block, and give them back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(derived(seed, what, number))
        yield


def order(seed: int, epoch: int, population: int, weights: Tensor | None = None) -> Tensor:
    """Which images an epoch sees: (N,) indices, every image once, or N draws in proportion to `weights` (N,)."""
    generator = generator_for(seed, "order", epoch)
    if weights is None:
        return torch.randperm(population, generator=generator)
    # torch.multinomial stops at 2 ** 24 categories; inverting the cumulated weights has no such end.
    total = weights.cpu().double().cumsum(0)
    draws = torch.rand(population, generator=generator, dtype=torch.float64) * total[-1]
    return torch.searchsorted(total, draws, right=True).clamp(max=population - 1)
