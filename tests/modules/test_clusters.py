"""Whitening, k-means and mutual information, against what scikit-learn and a loop say."""

import itertools
import math
import sys

import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score

from selftaught.errors import UserError
from selftaught.modules.clusters import ami, kmeans, whitened


def blobs(count: int = 300, groups: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(groups, (count,), generator=generator)
    centres = 5 * torch.randn(groups, 8, generator=generator)
    return centres[truth] + 0.3 * torch.randn(count, 8, generator=generator), truth


def test_whitening_equals_scikit_learn_up_to_signs():
    features = torch.randn(200, 6, generator=torch.Generator().manual_seed(0)) @ torch.diag(torch.arange(1.0, 7))
    expected = torch.from_numpy(PCA(4, whiten=True).fit_transform(features.double().numpy()))
    expected = torch.nn.functional.normalize(expected, dim=1).flip(1).float()  # largest first there, last here
    found = whitened(features, 4)
    signs = torch.sign((found * expected).sum(0))
    torch.testing.assert_close(found * signs, expected, rtol=1e-4, atol=1e-5)


def test_constant_directions_are_zero_after_whitening():
    features = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = whitened(torch.cat([features, features.sum(1, keepdim=True), torch.ones(50, 3)], 1), 6)
    assert (found[:, :4] == 0).all()
    torch.testing.assert_close(found.norm(dim=1), torch.ones(50))


def test_whitening_does_not_depend_on_scale_and_shift():
    features, _ = blobs()
    one, other = whitened(features, 5), whitened(7 * features + 3, 5)
    torch.testing.assert_close((one @ one.T), (other @ other.T), rtol=1e-3, atol=1e-4)


def test_identical_features_stay_identical():
    found = whitened(torch.full((30, 4), 2.0), 4)
    assert len(found) == 30
    assert (found == found[0]).all()
    assert len(kmeans(found, 3, 5, seed=0)) == 30


def test_nonfinite_features_are_rejected():
    with pytest.raises(UserError, match="cannot cluster features that contain NaN or infinity"):
        whitened(torch.tensor([[1.0], [float("nan")]]), 1)


def test_kmeans_recovers_blobs():
    points, truth = blobs()
    assert normalized_mutual_info_score(truth, kmeans(points, 5, 30, seed=1)) > 0.85


def test_kmeans_is_deterministic_for_any_number_of_threads():
    import faiss

    points, _ = blobs(2000, 40)
    threads = faiss.omp_get_max_threads()
    first = kmeans(points, 50, 10, seed=3)
    try:
        faiss.omp_set_num_threads(3)
        again = kmeans(points, 50, 10, seed=3)
    finally:
        faiss.omp_set_num_threads(threads)
    assert torch.equal(first, again)
    assert not torch.equal(first, kmeans(points, 50, 10, seed=4))


def test_clusters_are_not_empty_if_points_differ():
    """Three tight blobs and many seeds among them: clusters that lose all points are refilled by splitting others."""
    generator = torch.Generator().manual_seed(0)
    points = torch.tensor([0.0, 10, 20]).repeat(40)[:, None] + 0.01 * torch.randn(120, 2, generator=generator)
    for seed in range(5):
        assert (kmeans(points, 12, 20, seed).bincount(minlength=12) > 0).all()


def written_out(first: torch.Tensor, second: torch.Tensor) -> float:
    """Adjusted mutual information as Vinh, Epps and Bailey 2010 define it, over all tables with the same margins."""
    n = len(first)
    table = torch.zeros(int(first.max()) + 1, int(second.max()) + 1, dtype=torch.float64)
    for pair in zip(first.tolist(), second.tolist(), strict=True):
        table[pair] += 1
    rows, columns = table.sum(1).tolist(), table.sum(0).tolist()
    mutual = expected = 0.0
    for i, j in itertools.product(range(len(rows)), range(len(columns))):
        a, b = int(rows[i]), int(columns[j])
        if table[i, j]:
            mutual += float(table[i, j]) / n * math.log(n * float(table[i, j]) / (a * b))
        for k in range(max(1, a + b - n), min(a, b) + 1):  # k is hypergeometric
            probability = math.comb(a, k) * math.comb(n - a, b - k) / math.comb(n, b)
            expected += probability * k / n * math.log(n * k / (a * b))
    entropies = (-sum(size / n * math.log(size / n) for size in sizes) for sizes in (rows, columns))
    return (mutual - expected) / (math.sqrt(math.prod(entropies)) - expected)


@pytest.mark.parametrize("groups", [(2, 2), (3, 7), (20, 5)])
def test_adjusted_mutual_information_is_the_formula_of_the_paper(groups):
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(groups[0], (200,), generator=generator)
    second = (first + torch.randint(2, (200,), generator=generator)) % groups[1]
    assert ami(first, second) == pytest.approx(written_out(first, second), abs=1e-9)
    assert ami(second, first) == pytest.approx(written_out(first, second), abs=1e-9)


def test_adjusted_mutual_information_is_0_for_independent_labels_however_many():
    first, other = torch.randint(100, (2, 4000), generator=torch.Generator().manual_seed(0))
    assert abs(ami(first, other)) < 0.01
    assert ami(first, (first + 1) % 100) == pytest.approx(1)


def test_mutual_information_is_1_for_renamed_groups_and_0_for_one_group_or_no_images():
    groups = torch.tensor([0, 1, 2, 1, 0, 2])
    assert ami(groups, torch.tensor([5, 3, 9])[groups]) == pytest.approx(1)
    assert ami(groups, torch.zeros(6, dtype=torch.int64)) == 0
    assert ami(groups[:0], groups[:0]) == 0


def test_clusters_of_one_image_give_no_warning():
    assert ami(torch.arange(30), torch.arange(30) // 2) == pytest.approx(0, abs=1e-9)  # as by chance


@pytest.mark.parametrize("missing", ["faiss", "sklearn.metrics"])
def test_without_a_library_the_error_names_the_extra(missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r"selftaught\[clusters\]"):
        kmeans(torch.zeros(2, 2), 2, 1, 0)
