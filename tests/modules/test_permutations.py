from itertools import permutations
from math import factorial

import pytest
import torch

from selftaught.errors import UserError
from selftaught.modules.permutations import candidates, distant_permutations


def greedy(looked_through, count):
    """Algorithm 1 of the paper, all distances anew at every step; Python's max takes the first of equals."""
    left, taken = [tuple(map(int, row)) for row in looked_through], []
    while len(taken) < count:
        sums = [sum(a != b for other in taken for a, b in zip(other, one, strict=True)) for one in left]
        taken.append(left.pop(sums.index(max(sums))))
    return torch.tensor(taken)


@pytest.mark.parametrize(("items", "count"), [(2, 2), (3, 5), (4, 24), (4, 7), (5, 40)])
@pytest.mark.parametrize("seed", [0, 1])
def test_permutations_are_chosen_greedily(items, count, seed):
    found = distant_permutations(items, count, seed)
    if count < factorial(items):
        assert torch.equal(found, greedy(candidates(items, seed), count))
    assert sorted(map(tuple, found.tolist())) == sorted(set(map(tuple, found.tolist())))
    assert (found.sort(1).values == torch.arange(items)).all()


@pytest.mark.parametrize("items", [1, 3, 5])
def test_candidates_are_all_permutations_in_seeded_order(items):
    assert sorted(map(tuple, candidates(items, 0).tolist())) == list(permutations(range(items)))
    assert (candidates(items, 4) == candidates(items, 4)).all()
    assert items < 5 or (candidates(items, 0) != candidates(items, 1)).any()


def test_nine_tiles_reach_the_hamming_distances_of_the_paper():
    """Mean distance: 8.08 for 100 permutations, 8.00 for 1000 (as recalled from table 4)."""
    for count, mean in ((100, 8.08), (1000, 8.00)):
        found = distant_permutations(9, count)
        distance = (found[:, None] != found[None]).sum(2)
        apart = distance[~torch.eye(count, dtype=torch.bool)]
        assert abs(apart.double().mean() - mean) < 0.012
        assert apart.min() >= 2
    assert torch.equal(distant_permutations(9, 100), distant_permutations(9, 1000)[:100])


def test_requesting_too_many_permutations_is_rejected():
    with pytest.raises(UserError, match="between 2 and 24, the number of permutations of 4 tiles, got 25"):
        distant_permutations(4, 25)
    with pytest.raises(UserError, match="got 1"):
        distant_permutations(4, 1)
