"""Permutations that are far apart: the answers among which a jigsaw is solved.

Noroozi and Favaro 2016 (algorithm 1): begin with one permutation, then add again and again the one whose Hamming
distances to those already taken have the largest sum. A thousand of nine items take a second, ten thousand ten; all
362,880 of nine are simply all.
"""

from functools import lru_cache
from itertools import chain, permutations
from math import factorial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.errors import UserError

MOST = 9
"""Items whose permutations are few enough to look through."""


def require_permutations(items: int, count: int) -> None:
    """Refuse to choose among fewer than two permutations, or more than there are."""
    if not 2 <= count <= factorial(items):
        raise UserError(
            f"--permutations must lie between 2 and {factorial(items):,}, as many as {items} tiles have, found "
            f"{count:,}: give such a number."
        )


@lru_cache(maxsize=16)
def distant_permutations(items: int, count: int, seed: int = 0) -> Tensor:
    """`count` permutations of 0 to items - 1, as different from each other as a greedy choice finds.

    Args:
        items: how many things are permuted, 2 to 9.
        count: how many permutations, at least 2.
        seed: of the order in which permutations are looked through: the first in it begins, and wins ties.

    Returns:
        (count, items) int64 in the order of the choice, so a smaller set is the beginning of a larger one. Cached: do
        not write into it.

    Raises:
        UserError: there are not so many.
    """
    assert items <= MOST, items
    require_permutations(items, count)
    looked_through = candidates(items, seed)
    chosen = np.arange(len(looked_through)) if count == factorial(items) else _greedy(looked_through, count)
    return torch.from_numpy(looked_through[chosen].astype(np.int64))


def candidates(items: int, seed: int) -> NDArray[np.uint8]:
    """All permutations of 0 to items - 1 in an order that depends on the seed alone: (items!, items)."""
    total = factorial(items)
    digits = chain.from_iterable(permutations(range(items)))
    ordered = np.fromiter(digits, dtype=np.uint8, count=total * items).reshape(total, items)
    # Not the dictionary's order: its ties would all go to permutations that begin alike.
    shuffled: NDArray[np.uint8] = ordered[torch.randperm(total, generator=torch.Generator().manual_seed(seed)).numpy()]
    return shuffled


def _greedy(looked_through: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Rows of (n, items) in the order of the choice: (count,)."""
    columns = np.ascontiguousarray(looked_through.T)  # nine fast passes over bytes instead of a slow one over rows
    # Agreements with all that were taken: where these are fewest, the sum of distances is largest.
    agreements = np.zeros(len(looked_through), dtype=np.int32)
    chosen = np.zeros(count, dtype=np.int64)
    for step in range(count):
        taken = int(agreements.argmin()) if step else 0
        chosen[step] = taken
        agreeing = np.zeros(len(looked_through), dtype=np.uint8)
        for column in columns:
            agreeing += (column == column[taken]).view(np.uint8)
        agreements += agreeing
        agreements[taken] = np.iinfo(np.int32).max // 2
    return chosen
