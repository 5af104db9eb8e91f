"""The contracts' own arithmetic."""

from fractions import Fraction
from itertools import pairwise

import pytest

from selftaught.contracts import evenly_spaced


@pytest.mark.parametrize("total", [2, 3, 7, 100, 50_000, 16_777_217, 100_000_000, 2**40, 2**62])
@pytest.mark.parametrize("count", [2, 3, 32, 1000, 2048])
def test_evenly_spaced_indices_are_within_half_of_the_exact_places(count, total):
    found = evenly_spaced(count, total).tolist()
    assert len(found) == min(count, total)
    assert (found[0], found[-1]) == (0, total - 1)
    assert all(first < second for first, second in pairwise(found))
    step = Fraction(total - 1, len(found) - 1)
    assert all(abs(index - place * step) <= Fraction(1, 2) for place, index in enumerate(found))


def test_evenly_spaced_edge_cases():
    assert evenly_spaced(5, 0).tolist() == []
    assert evenly_spaced(0, 5).tolist() == []
    assert evenly_spaced(1, 5).tolist() == [0]
    assert evenly_spaced(10, 4).tolist() == [0, 1, 2, 3]
