"""Dense targets of a source: the values that were encoded, beside the image that they belong to."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import encoded, noise
from dense_toys import toy_cells, toy_depth, toy_instances, toy_normals, write_toys
from PIL import Image

from selftaught.augment.warp import affine, identity
from selftaught.data import open_source, stored
from selftaught.data.cache import decode_cached
from selftaught.data.conventions import Conventions
from selftaught.data.dense import decode_dense
from selftaught.data.resolve import open_readers
from selftaught.errors import UserError

CPU = torch.device("cpu")
NAMES = ("depth", "normals", "contours", "instances")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    for shard in range(2):
        write_toys(folder / f"{shard}.parquet", [toy_cells(16, shard * 5 + number) for number in range(5)])
    return folder


@pytest.mark.parametrize("share", [0.25, 0.0])  # resident in memory, memory-mapped
def test_values_are_those_that_were_encoded(toys: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    monkeypatch.setattr(stored, "MAX_MEMORY_SHARE", share)
    source = open_source(toys)
    assert source.targets == set(NAMES)
    assert source.classes is None
    batch = source.batch(torch.tensor([7, 2]), CPU)
    for place, number in enumerate((7, 2)):
        depth, normals = batch.targets["depth"][place, 0].numpy(), batch.targets["normals"][place].numpy()
        assert np.allclose(depth, toy_depth(16, 16, number), rtol=2**-11, atol=0)
        assert np.allclose(normals, toy_normals(16, 16, number).transpose(2, 0, 1), atol=0.007)
        lengths = np.linalg.norm(normals, axis=0)
        assert np.all(np.isclose(lengths, 1, atol=1e-5) | (lengths == 0))
        ids = toy_instances(16, 16, number)
        assert np.array_equal(batch.targets["instances"][place, 0], np.searchsorted([0, 3, 7], ids))
        assert batch.targets["contours"].unique().tolist() == [0, 1]
        assert np.array_equal(batch.images[place], noise(16, 16, number).transpose(2, 0, 1))
    assert set(batch.targets) == set(NAMES)
    assert all(target.dtype == torch.float32 for target in batch.targets.values())


def test_mirroring_a_source_changes_the_sign_of_x(toys: Path) -> None:
    batch = open_source(toys).batch(torch.arange(10), CPU)
    plain = {name: batch.warp(identity(10), 16, of=name) for name in (*NAMES, "image")}
    mirrored = {name: batch.warp(affine(flip=1.0, count=10), 16, of=name).flip(-1) for name in plain}
    signs = torch.tensor([-1.0, 1, 1])[:, None, None]
    for name in plain:
        assert torch.allclose(mirrored[name], plain[name] * (signs if name == "normals" else 1), atol=1e-4), name


def test_only_used_targets_are_loaded(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(toys)

    def fail(*_: object) -> torch.Tensor:
        raise AssertionError

    monkeypatch.setattr(source, "_load_dense", fail)
    source.batch(torch.arange(3), CPU).warp(identity(3), 16)


def test_unknown_targets_are_rejected(toys: Path) -> None:
    with pytest.raises(UserError, match="no picture in this source called 'normal': did you mean normals"):
        open_source(toys).batch(torch.arange(2), CPU).warp(identity(2), 8, of="normal")


def test_a_part_keeps_its_targets(toys: Path) -> None:
    source = open_source(toys)
    part = source.subset(torch.tensor([8, 1]))
    assert torch.equal(
        part.batch(torch.tensor([0]), CPU).targets["depth"], source.batch(torch.tensor([8]), CPU).targets["depth"]
    )
    limited = open_source(toys, limit=4)
    assert limited.targets == source.targets
    assert len(limited) == 4


def test_images_of_which_a_target_cannot_be_used_are_skipped(tmp_path: Path) -> None:
    rows: list[dict[str, bytes | None]] = [dict(toy_cells(16, number)) for number in range(12)]
    rows[1]["depth"] = None
    rows[3]["normals"] = b"\x89PNG\r\n\x1a\n but damaged"
    rows[4]["instances"] = encoded(np.zeros((8, 8), np.uint8))
    rows[6]["depth"] = encoded(np.full((16, 16), np.float16(np.inf).view(np.uint16)))
    rows[8]["normals"] = encoded(np.full((16, 16, 3), 128, np.uint8))
    source = open_source(write_toys(tmp_path / "a.parquet", rows))
    assert len(source) == 7
    assert dict(source.skipped) == {
        "a.parquet:1": "has a depth map that is empty",
        "a.parquet:3": "has a normal map that begins like PNG, but its header is damaged or not supported by Pillow",
        "a.parquet:4": "has an instance map of 8 x 8 pixels for an image of 16 x 16",
        "a.parquet:6": "has a depth map that is nowhere positive and finite",
        "a.parquet:8": "has a normal map that is nowhere of unit length",
    }
    batch = source.batch(torch.tensor([2, 3]), CPU)  # rows 5 and 7
    for place, number in enumerate((5, 7)):
        assert np.allclose(batch.targets["depth"][place, 0], toy_depth(16, 16, number), rtol=2**-11, atol=0)


def test_wide_images_are_cropped_and_resized_with_their_targets() -> None:
    height, width, side = 32, 48, 16
    raws = {
        "depth": toy_depth(height, width),
        "normals": toy_normals(height, width),
        "instances": toy_instances(height, width),
    }
    found = decode_dense(noise(height, width), raws, Conventions(), side)
    assert not isinstance(found, str)
    crop = raws["depth"][:, 8:40]
    blocks = crop.reshape(side, 2, side, 2).swapaxes(1, 2).reshape(side, side, 4)
    whole = (blocks > 0).all(2)
    assert np.allclose(found["depth"][0][whole], blocks.mean(2)[whole], rtol=2e-3)
    assert (found["depth"][0][(blocks == 0).all(2)] == 0).all()
    normals = raws["normals"][::2, 8:40:2].transpose(2, 0, 1)  # constant over blocks
    assert np.abs(found["normals"] / 127 - normals).max() < 0.01
    assert np.array_equal(found["instances"][0] > 0, raws["instances"][:, 8:40][1::2, 1::2] > 0)


def test_damaged_arrays_of_a_cache_are_decoded_again(toys: Path, tmp_path: Path) -> None:
    reader = open_readers(toys)["all"]
    cached = decode_cached(reader, 16, folder=tmp_path)
    before = np.array(cached.dense["depth"])
    file = tmp_path / cached.key / "depth.npy"
    file.write_bytes(file.read_bytes()[:-2] + b"xx")
    assert np.array_equal(decode_cached(reader, 16, folder=tmp_path).dense["depth"], before)
    (tmp_path / cached.key / "normals.npy").unlink()
    assert set(decode_cached(reader, 16, folder=tmp_path).dense) == set(NAMES)


def test_conventions_are_part_of_the_key(toys: Path, tmp_path: Path) -> None:
    reader = open_readers(toys)["all"]
    other = replace(reader, conventions=Conventions(depth_encoding="half", normals_y="down"))
    first, second = (decode_cached(each, 16, folder=tmp_path) for each in (reader, other))
    assert first.key != second.key
    assert np.array_equal(first.dense["normals"][:, 1], -second.dense["normals"][:, 1])


def test_files_with_other_targets_are_refused(tmp_path: Path) -> None:
    write_toys(tmp_path / "a.parquet", [toy_cells(16, 0)])
    write_toys(tmp_path / "b.parquet", [{name: toy_cells(16, 1)[name] for name in ("image", "depth")}])
    with pytest.raises(UserError, match=r"same dense targets, but a.parquet has depth, .*b.parquet has depth: pass"):
        open_source(tmp_path)


def test_files_with_other_units_are_refused(tmp_path: Path) -> None:
    write_toys(tmp_path / "a.parquet", [toy_cells(16, 0)])
    write_toys(tmp_path / "b.parquet", [toy_cells(16, 1)], Conventions())
    with pytest.raises(UserError, match="must state the same units"):
        open_source(tmp_path)


def png16(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values.round().astype(np.uint16)))


def opened(tmp_path: Path, conventions: Conventions = Conventions(), **cell: bytes) -> stored.Stored:  # noqa: B008
    return open_source(
        write_toys(
            tmp_path / "a.parquet", [{"image": encoded(noise(16, 16, k)), **cell} for k in range(4)], conventions
        )
    )


def test_integer_depth_is_in_millimeters_or_the_stated_unit(tmp_path: Path) -> None:
    depth = toy_depth(16, 16)
    plain = opened(tmp_path / "mm", depth=png16(depth * 1000)).batch(torch.tensor([0]), CPU)
    assert np.allclose(plain.targets["depth"][0, 0], depth, rtol=1e-3)
    stated = opened(tmp_path / "cm", Conventions(depth_unit=0.01), depth=png16(depth * 100)).batch(
        torch.tensor([0]), CPU
    )
    assert np.allclose(stated.targets["depth"][0, 0], depth, atol=0.01)


@pytest.mark.parametrize(
    ("conventions", "cell", "message"),
    [
        (
            Conventions(),
            {"depth": png16(toy_depth(16, 16))},
            r"median depth of .* is 0.00\d+ m, expected 0.05 to 5,000",
        ),
        (Conventions(depth_unit=1000.0), {"depth": png16(toy_depth(16, 16) * 1000)}, "median depth"),
        (Conventions(), {"depth": encoded(np.full((16, 16), 99, np.uint8))}, "8 bits, whose unit is unknown"),
        (
            Conventions(normals_z="away"),
            {"normals": encoded((toy_normals(16, 16) * 127 + 128).round().astype(np.uint8))},
            r"100 % of the normals of .* point away from the camera.*\"normals_z\": \"toward\"",
        ),
    ],
)
def test_wrong_units_are_reported(
    tmp_path: Path, conventions: Conventions, cell: dict[str, bytes], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        opened(tmp_path, conventions, **cell)


@pytest.mark.parametrize("metadata", ["{", '{"depth_unit": -1}', '{"unit": 1}', "[]", '{"normals_y": "left"}'])
def test_invalid_conventions_are_reported(tmp_path: Path, metadata: str) -> None:
    import pyarrow.parquet as pq

    file = write_toys(tmp_path / "a.parquet", [toy_cells(16, 0)])
    table = pq.read_table(file).replace_schema_metadata({"selftaught.targets": metadata})
    pq.write_table(table, file)
    with pytest.raises(UserError, match=r"the metadata of .*a.parquet: .*allowed keys are depth_unit"):
        open_source(file)
