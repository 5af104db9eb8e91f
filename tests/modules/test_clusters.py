"""Whitening, k-means and mutual information, against what scikit-learn and a loop say."""

import sys

import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

from selftaught.errors import UserError
from selftaught.modules.clusters import adjusted_nmi, kmeans, nmi, whitened


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


@pytest.mark.parametrize("groups", [(2, 2), (3, 7), (20, 5)])
def test_normalized_mutual_information_equals_scikit_learn(groups):
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(groups[0], (200,), generator=generator)
    second = (first + torch.randint(2, (200,), generator=generator)) % groups[1]
    expected = normalized_mutual_info_score(first, second, average_method="geometric")
    assert nmi(first, second) == pytest.approx(expected, abs=1e-9)
    assert nmi(second, first) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("groups", [3, 100])
def test_adjusted_mutual_information_equals_scikit_learn_and_is_0_for_independent_labels(groups):
    generator = torch.Generator().manual_seed(0)
    first, other = (torch.randint(groups, (4000,), generator=generator) for _ in range(2))
    half = torch.where(torch.rand(4000, generator=generator) < 0.5, first, other)
    for second in (other, half):
        expected = adjusted_mutual_info_score(first, second, average_method="geometric")
        assert adjusted_nmi(first, second) == pytest.approx(expected, abs=0.005)
    assert abs(adjusted_nmi(first, other)) < 0.01
    assert adjusted_nmi(first, (first + 1) % groups) == pytest.approx(1)
    assert adjusted_nmi(first[:0], first[:0]) == 0


def test_mutual_information_is_1_for_renamed_groups_and_0_for_one_group():
    groups = torch.tensor([0, 1, 2, 1, 0, 2])
    assert nmi(groups, torch.tensor([5, 3, 9])[groups]) == pytest.approx(1)
    assert nmi(groups, torch.zeros(6, dtype=torch.int64)) == 0
    assert nmi(groups[:0], groups[:0]) == 0


def test_without_faiss_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"selftaught\[clusters\]"):
        kmeans(torch.zeros(2, 2), 2, 1, 0)
