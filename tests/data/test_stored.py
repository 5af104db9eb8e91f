"""Stored images: the same pixels whether they are resident or read from the map."""

import numpy as np
import pytest
import torch
from corpus import noise

from selftaught.augment.warp import affine, identity
from selftaught.data import stored
from selftaught.data.stored import Resident, Stored, free_memory
from selftaught.errors import UserError

CPU = torch.device("cpu")
ARRAY = np.stack([noise(8, 8, seed).transpose(2, 0, 1) for seed in range(20)])
LABELS = torch.arange(20) % 3


def source(**changes: object) -> Stored:
    options: dict[str, object] = {
        "name": "toys",
        "pixels": Resident(ARRAY),
        "rows": torch.arange(20),
        "labels": LABELS,
        "classes": ("a", "b", "c"),
        "key": "key",
    }
    return Stored(**(options | changes))  # type: ignore[arg-type]


@pytest.fixture(params=["resident", "mapped"])
def pixels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Resident:
    if request.param == "resident":
        monkeypatch.setattr(stored, "COPY_BATCH", 7)  # more than one, and the last smaller
        return Resident(ARRAY)
    monkeypatch.setattr(stored, "MAX_MEMORY_SHARE", 0.0)
    np.save(f"{tmp_path}/a.npy", ARRAY)
    return Resident(np.load(f"{tmp_path}/a.npy", mmap_mode="r"))


def test_arrays_that_fit_are_loaded_once(pixels: Resident) -> None:
    resident = pixels.resident(CPU)
    assert (resident is None) == isinstance(pixels.stored, np.memmap)
    assert resident is None or pixels.resident(CPU) is resident


@pytest.mark.parametrize("indices", [[0], [19, 0, 7], [3, 3, 3, 1], list(range(20)), []])
def test_batches_contain_the_requested_images(pixels: Resident, indices: list[int]) -> None:
    rows = torch.arange(19, -1, -1)
    batch = source(pixels=pixels, rows=rows).batch(torch.tensor(indices, dtype=torch.int64), CPU)
    assert batch.images.dtype == torch.uint8
    assert np.array_equal(batch.images.numpy(), ARRAY[::-1][indices])
    assert batch.index.tolist() == indices
    assert batch.targets["label"].tolist() == LABELS[indices].tolist()
    assert batch.population == 20
    assert len(batch) == len(indices)


def test_writing_to_a_batch_does_not_change_the_source(pixels: Resident) -> None:
    toys = source(pixels=pixels)
    toys.batch(torch.arange(5), CPU).images.zero_()
    assert np.array_equal(toys.batch(torch.arange(5), CPU).images.numpy(), ARRAY[:5])


def test_identity_warp_returns_the_image_in_0_to_1(pixels: Resident) -> None:
    batch = source(pixels=pixels).batch(torch.tensor([4, 2]), CPU)
    seen = batch.warp(identity(2), 8)
    assert torch.allclose(seen, torch.from_numpy(ARRAY[[4, 2]]).float() / 255, atol=1e-5)


def test_views_of_each_image(pixels: Resident) -> None:
    batch = source(pixels=pixels).batch(torch.tensor([4, 2, 9]), CPU)
    matrices = torch.stack([identity(3), affine(flip=1.0, count=3)], 1)
    seen = batch.warp(matrices, 8)
    assert seen.shape == (3, 2, 3, 8, 8)
    assert torch.allclose(seen[:, 1], seen[:, 0].flip(-1), atol=1e-5)


def test_unknown_image_names_are_rejected() -> None:
    with pytest.raises(UserError, match="no picture in this source called 'depth'"):
        source().batch(torch.arange(2), CPU).warp(identity(2), 8, of="depth")


def test_all_batches_are_the_source_once_in_order() -> None:
    batches = list(source().batches(6, CPU))
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(20))


def test_subsets_compose_and_share_pixels(pixels: Resident) -> None:
    toys = source(pixels=pixels)
    part = toys.subset(torch.tensor([9, 8, 7, 1])).subset(torch.tensor([3, 0]), name="two toys")
    assert len(part) == 2
    assert part.name == "two toys"
    batch = part.batch(torch.arange(2), CPU)
    assert np.array_equal(batch.images.numpy(), ARRAY[[1, 9]])
    assert batch.index.tolist() == [0, 1]
    assert batch.targets["label"].tolist() == [1, 0]
    assert batch.population == 2
    with pytest.raises(UserError, match="at least one image"):
        toys.subset(torch.tensor([], dtype=torch.int64))


def test_unlabeled() -> None:
    toys = source(labels=None, classes=None)
    assert toys.targets == frozenset()
    assert toys.batch(torch.arange(2), CPU).targets == {}
    assert source().targets == {"label"}


def test_fingerprints_depend_on_content_order_and_labels() -> None:
    alike = source().fingerprint
    assert source().fingerprint == alike == source(name="another name").fingerprint
    others = [
        source(key="other"),
        source(rows=torch.arange(20).flip(0)),
        source(labels=LABELS.flip(0)),
        source(classes=("a", "b", "d")),
        source(labels=None, classes=None),
        source().subset(torch.arange(19)),
    ]
    assert len({other.fingerprint for other in others} | {alike}) == 7


def test_free_memory_is_plausible() -> None:
    assert 2**20 < free_memory(CPU) < 2**50


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("share", [0.25, 0.0])
def test_on_a_gpu(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "MAX_MEMORY_SHARE", share)
    device = torch.device("cuda", 0)
    batch = source(rows=torch.arange(19, -1, -1)).batch(torch.tensor([5, 0, 5]), device)
    assert batch.images.device == batch.index.device == batch.targets["label"].device == device
    assert np.array_equal(batch.images.cpu().numpy(), ARRAY[::-1][[5, 0, 5]])
