"""The memory bank: who is compared with whom, what is remembered, and where it is kept."""

import copy
import io
import logging
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.errors import UserError
from selftaught.modules import bank as bank_module
from selftaught.modules.bank import BankKind, MemoryBank, sample_distinct, top1_accuracy, unit
from selftaught.modules.instances import InstanceNCE

KINDS: tuple[BankKind, ...] = ("device", "half", "host")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filled(images: int = 12, dimensions: int = 6, kind: BankKind = "device") -> MemoryBank:
    torch.manual_seed(0)
    return MemoryBank(images, dimensions, kind)


def negatives_of(bank: MemoryBank, index: Tensor, sampled: Tensor) -> list[list[int]]:
    return [sampled[row == 0].tolist() for row in bank.gather(index, sampled).mask]


# --- who is compared with whom ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffled", [1 << 17, 0], ids=["shuffling", "rejecting"])
def test_negatives_are_drawn_uniformly_without_replacement(monkeypatch, shuffled):
    monkeypatch.setattr(bank_module, "PERMUTED", shuffled)
    generator, counts = seeded(), torch.zeros(40)
    for _ in range(4000):
        sampled = sample_distinct(8, 40, generator)
        assert len(sampled.unique()) == len(sampled) == 8
        counts[sampled] += 1
    # 800 expected, standard deviation sqrt(4000 * 0.2 * 0.8) = 25
    assert (counts - 800).abs().max() < 5 * 25
    assert torch.equal(sample_distinct(8, 40, seeded(3)), sample_distinct(8, 40, seeded(3)))


@pytest.mark.parametrize("shuffled", [1 << 17, 0], ids=["shuffling", "rejecting"])
def test_order_of_drawn_negatives_is_random(monkeypatch, shuffled):
    """Else leaving the last one out would favour some images."""
    monkeypatch.setattr(bank_module, "PERMUTED", shuffled)
    generator = seeded()
    last = torch.stack([sample_distinct(4, 20, generator)[-1] for _ in range(4000)]).bincount(minlength=20)
    assert (last - 200).abs().max() < 5 * (4000 * 0.05 * 0.95) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_every_image_has_m_negatives_and_never_itself(kind):
    bank, index = filled(kind=kind), torch.tensor([3, 0, 11, 3])
    for seed in range(50):
        for image, others in zip(
            index.tolist(), negatives_of(bank, index, sample_distinct(6, 12, seeded(seed))), strict=True
        ):
            assert image not in others
            assert len(set(others)) == len(others) == 5


def test_shared_negatives_are_uniform_for_each_image():
    bank, index, generator = filled(6), torch.tensor([2, 5]), seeded()
    counts = [dict.fromkeys(combinations([i for i in range(6) if i != image], 3), 0) for image in (2, 5)]
    for _ in range(5000):
        for count, others in zip(counts, negatives_of(bank, index, sample_distinct(4, 6, generator)), strict=True):
            count[tuple(sorted(others))] += 1
    for count in counts:  # ten subsets, 500 each expected: chi squared of 9 degrees of freedom, 0.9999 quantile 33.7
        assert sum((found - 500) ** 2 / 500 for found in count.values()) < 33.7


def test_with_all_images_as_negatives_every_other_image_is_used():
    for image, others in enumerate(negatives_of(filled(5), torch.arange(5), sample_distinct(5, 5, seeded()))):
        assert sorted(others) == [i for i in range(5) if i != image]


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_cosines_over_temperature(kind):
    bank, index, sampled = filled(kind=kind), torch.tensor([7, 1]), torch.tensor([4, 7, 9, 0])
    anchors = unit(torch.randn(2, 6))
    own, others = bank.gather(index, sampled).scores(anchors, 0.07)
    entries = bank.entries.double().numpy()
    for row, image in enumerate(index.tolist()):
        left_out = image if image in sampled.tolist() else 0
        assert float(own[row]) == pytest.approx(anchors[row].double().numpy() @ entries[image] / 0.07, abs=1e-4)
        for column, other in enumerate(sampled.tolist()):
            expected = -np.inf if other == left_out else anchors[row].double().numpy() @ entries[other] / 0.07
            assert float(others[row, column]) == pytest.approx(expected, abs=1e-4)


def test_scores_keep_float32_under_autocast():
    bank, anchors = filled(64, 128), unit(torch.randn(8, 128))
    entries = bank.gather(torch.arange(8), torch.arange(8, 40))
    plain = entries.scores(anchors, 0.07)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = entries.scores(anchors, 0.07)
    assert all(torch.equal(a, b) for a, b in zip(plain, mixed, strict=True))


def test_top1_accuracy_counts_anchors_nearest_to_themselves():
    own, others = torch.tensor([1.0, 0.2, 3.0, 0.0]), torch.tensor([[0.9, -9], [0.3, 0.1], [2.0, 2.9], [-1.0, 5.0]])
    assert float(top1_accuracy(own, others)) == 0.5


# --- what is remembered ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_initial_entries_are_distinct_unit_vectors(kind):
    entries = filled(500, 128, kind).entries.float()
    assert torch.allclose(entries.norm(dim=1), torch.ones(500), atol=1e-3)
    cosines = (entries @ entries.T)[~torch.eye(500, dtype=torch.bool)]
    assert abs(float(cosines.mean())) < 0.005
    assert float(cosines.std()) == pytest.approx(128**-0.5, rel=0.05)


class Numbered:
    """A source and its batches, of which only the indices matter."""

    def __init__(self, images: int) -> None:
        self.images = images

    def __len__(self) -> int:
        return self.images

    def batch(self, indices: Tensor, device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(index=indices)


@pytest.mark.parametrize("images", [1, 2, 255, 257, 513])
def test_bank_is_filled_once_in_equal_parts_and_random_order(images):
    parts: list[Tensor] = []

    def remember(batch: SimpleNamespace) -> Tensor:
        parts.append(batch.index)
        return torch.stack([batch.index.float(), torch.ones(len(batch.index))], 1)

    bank = MemoryBank(images, 2)
    bank.initialize(Numbered(images), remember, seeded())
    assert torch.cat(parts).sort().values.tolist() == list(range(images))
    assert all(len(part) > 1 for part in parts) or images == 1  # no batch norm takes a batch of one
    assert len(parts) == 1 or all(part.float().mean() == pytest.approx(images / 2, rel=0.2) for part in parts)
    expected = F.normalize(torch.stack([torch.arange(images).float(), torch.ones(images)], 1))
    torch.testing.assert_close(bank.entries, expected)
    bank.initialize(Numbered(images), lambda batch: pytest.fail("filled again"), seeded())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_update_is_a_normalized_moving_average_of_its_entries_only(kind, memory):
    bank, index, features = filled(kind=kind), torch.tensor([5, 2]), unit(torch.randn(2, 6))
    before = bank.entries.clone()
    bank.update(index, features, memory)
    for row, image in enumerate((5, 2)):
        mixed = memory * before[image].double().numpy() + (1 - memory) * features[row].double().numpy()
        assert bank.entries[image].double().numpy() == pytest.approx(mixed / np.linalg.norm(mixed), abs=1e-3)
    untouched = [i for i in range(12) if i not in (5, 2)]
    assert torch.equal(bank.entries[untouched], before[untouched])


def test_half_precision_bank_does_not_drift():
    full, half = filled(20, 128), filled(20, 128, "half")
    half.entries.copy_(full.entries)
    for step in range(50):
        features = unit(torch.randn(20, 128, generator=seeded(step)))
        full.update(torch.arange(20), features, 0.5)
        half.update(torch.arange(20), features, 0.5)
    cosines = (full.entries @ full.entries.T, half.entries.float() @ half.entries.float().T)
    assert (cosines[0] - cosines[1]).abs().max() < 5e-4


def test_nce_constant_is_estimated_once():
    bank, others = filled(), torch.randn(3, 7)
    others[torch.arange(3), torch.tensor([0, 6, 2])] = -torch.inf
    mean = float(others.double().exp().sum()) / (3 * 6)  # Z / n: the mean over what counts
    first = bank.estimate_log_normalizer(others)
    assert float(first.exp()) == pytest.approx(6 * mean, rel=1e-5)  # C = m / n * Z
    bank.log_normalizer.copy_(first)
    assert torch.equal(bank.estimate_log_normalizer(others + 3), first)


# --- where it is kept ------------------------------------------------------------------------------------------------


def test_host_bank_stays_in_host_memory():
    assert [filled(kind=kind).to("meta").entries.device.type for kind in KINDS] == ["meta", "meta", "cpu"]
    assert filled(kind="host").to(torch.float64).entries.dtype == torch.float16
    assert filled(kind="host").to("meta").log_normalizer.device.type == "meta"


def test_half_and_host_banks_use_half_the_memory():
    sizes = [filled(kind=kind).entries.nbytes for kind in KINDS]
    assert sizes == [12 * 6 * 4, 12 * 6 * 2, 12 * 6 * 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_bank_is_saved_copied_and_restored(kind):
    bank, other = filled(kind=kind), MemoryBank(12, 6, kind)
    file = io.BytesIO()
    torch.save(bank.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(bank)
    assert torch.equal(other.entries, bank.entries)
    twin.update(torch.tensor([0]), unit(torch.randn(1, 6)), 0.5)
    assert torch.equal(other.entries, bank.entries)
    assert not torch.equal(twin.entries, bank.entries)


# --- mistakes --------------------------------------------------------------------------------------------------------


def loss(negatives: int) -> InstanceNCE:
    return InstanceNCE(negatives, 0.07, 0.5, "sum")


def test_a_single_image_is_rejected():
    with pytest.raises(UserError, match="at least 2 images, got 1"):
        loss(4096).require_images(1)


def test_fewer_images_than_negatives_print_a_notice(caplog):
    with caplog.at_level(logging.WARNING):
        loss(23).require_images(24)
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        loss(24).require_images(24)
    assert "--negatives is 24, but there are only 23 other images" in caplog.text


@pytest.mark.parametrize(
    ("settings", "flag"),
    [((0, 0.07, 0.5), "--negatives"), ((1, 0.0, 0.5), "--temperature"), ((1, 1, 1.0), "--bank-momentum")],
)
def test_invalid_bank_settings_are_rejected(settings, flag):
    with pytest.raises(UserError, match=f"{flag} must"):
        InstanceNCE(*settings, "sum")
