"""Deterministic randomness: every random number of a run is a function of (seed, purpose, number).

There is no random state to save or restore: a run that was interrupted and resumed samples the same crops, negatives
and dropout masks as an uninterrupted one.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from threading import RLock

import numpy as np
import torch
from torch import Tensor

CPU = torch.device("cpu")
_LOCK = RLock()
"""Held while global generators are seeded or used, because all threads of the process share them."""


def derive_seed(seed: int, what: str, number: int = 0) -> int:
    """A 63-bit seed for one purpose and number, independent of all others."""
    digest = blake2b(f"{seed}/{what}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(seed: int, what: str, number: int = 0) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, what, number))


@contextmanager
def preserve_rng(device: torch.device = CPU) -> Iterator[None]:
    """Restore the global generators of torch (of the CPU and of `device`), NumPy and Python after the block.

    Only one thread at a time can be within such a block, so code that draws from global generators gives the same
    numbers whatever other threads do. Keep blocks short: one step, one initialization. Blocks can be nested.
    """
    with _LOCK:
        saved = torch.default_generator.get_state(), np.random.get_state(), random.getstate()
        saved_device = _device_state(device)
        try:
            yield
        finally:
            torch.default_generator.set_state(saved[0])
            np.random.set_state(saved[1])
            random.setstate(saved[2])
            _set_device_state(device, saved_device)


@contextmanager
def seeded_rng(seed: int, what: str, number: int = 0, device: torch.device = CPU) -> Iterator[None]:
    """Seed torch's global generators (initial weights, dropout) for the block; see `preserve_rng`."""
    with preserve_rng(device):
        derived_seed = derive_seed(seed, what, number)
        torch.default_generator.manual_seed(derived_seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(derived_seed)
        elif device.type == "mps":
            torch.mps.manual_seed(derived_seed)
        yield


def _device_state(device: torch.device) -> Tensor | None:
    """The state of an accelerator's generator; it is kept on the CPU, so no synchronization is needed."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None


def _set_device_state(device: torch.device, state: Tensor | None) -> None:
    if state is None:
        return
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.mps.set_rng_state(state)


def _new_lock() -> None:
    """Replace the lock in a forked child: the thread that held it in the parent does not exist there."""
    global _LOCK
    _LOCK = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def epoch_indices(
    seed: int, epoch: int, population: int, weights: Tensor | None = None, draws: int | None = None
) -> Tensor:
    """Indices (draws,) of the images of an epoch: full passes over all images, or sampling by `weights` (N,).

    `draws` is the number of images by default.
    """
    generator, draws = generator_for(seed, "order", epoch), population if draws is None else draws
    if weights is None:
        passes = [torch.randperm(population, generator=generator) for _ in range(-(-draws // population))]
        return torch.cat(passes)[:draws]
    # torch.multinomial is limited to 2 ** 24 categories; inverting the cumulative weights is not.
    total = weights.cpu().double().cumsum(0)
    places = torch.rand(draws, generator=generator, dtype=torch.float64) * total[-1]
    return torch.searchsorted(total, places, right=True).clamp(max=population - 1)
