"""Permutations with large Hamming distances: the classes of a jigsaw puzzle.

Noroozi and Favaro 2016 (algorithm 1): start with one permutation, then repeatedly add the one with the largest sum of
Hamming distances to those already chosen. Choosing a thousand permutations of nine items takes a second, ten thousand
take ten; a set of all 362,880 needs no search.
"""

from functools import lru_cache
from itertools import chain, permutations
from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.errors import UserError

MAX_ITEMS = 9
"""Maximum number of items: all their permutations are enumerated."""


def require_permutations(items: int, count: int) -> None:
    """Reject fewer than two permutations, or more than exist."""
    if not 2 <= count <= factorial(items):
        raise UserError(
            f"--permutations must be between 2 and {factorial(items):,}, the number of permutations of {items} tiles, "
            f"got {count:,}."
        )


@lru_cache(maxsize=16)
def distant_permutations(items: int, count: int, seed: int = 0) -> Tensor:
    """`count` permutations of 0 to items - 1 with large Hamming distances, chosen greedily.

    Args:
        items: number of items, 2 to 9.
        count: number of permutations, at least 2.
        seed: random seed of the search order: the first permutation is chosen first, and ties go to the earlier one.

    Returns:
        (count, items) int64 in the order of choice, so a smaller set is a prefix of a larger one. Cached: do not modify
        it in place.

    Raises:
        UserError: there are fewer permutations than `count`.
    """
    assert items <= MAX_ITEMS, items
    require_permutations(items, count)
    all_permutations = candidates(items, seed)
    complete = count == factorial(items)
    chosen = np.arange(len(all_permutations)) if complete else _greedy(all_permutations, count)
    return torch.from_numpy(all_permutations[chosen].astype(np.int64))


def candidates(items: int, seed: int) -> NDArray[np.uint8]:
    """All permutations of 0 to items - 1 in an order that depends on the seed alone: (items!, items)."""
    total = factorial(items)
    digits = chain.from_iterable(permutations(range(items)))
    ordered = np.fromiter(digits, dtype=np.uint8, count=total * items).reshape(total, items)
    # Not in lexicographic order, in which ties would all go to permutations with the same first items.
    shuffled: NDArray[np.uint8] = ordered[torch.randperm(total, generator=torch.Generator().manual_seed(seed)).numpy()]
    return shuffled


def _greedy(permutations: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Indices of rows of (n, items) in the order of choice: (count,)."""
    columns = np.ascontiguousarray(permutations.T)  # nine fast passes over bytes instead of a slow one over rows
    # Number of agreements with all chosen ones: where it is lowest, the sum of distances is largest.
    agreements = np.zeros(len(permutations), dtype=np.int32)
    chosen = np.zeros(count, dtype=np.int64)
    for step in range(count):
        best = int(agreements.argmin()) if step else 0
        chosen[step] = best
        agreeing = np.zeros(len(permutations), dtype=np.uint8)
        for column in columns:
            agreeing += (column == column[best]).view(np.uint8)
        agreements += agreeing
        agreements[best] = np.iinfo(np.int32).max // 2
    return chosen
