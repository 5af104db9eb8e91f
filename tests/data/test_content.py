"""Content identity: the same image has the same digest wherever it comes from."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from corpus import encoded, noise, write_images

from selftaught.contracts import Source
from selftaught.data import content, open_source, open_splits, photos
from selftaught.data.content import content_id, loaded
from selftaught.data.crops import Crops
from selftaught.data.decode import decode_with_id


def digest(raw: bytes) -> int:
    """The truth, by hand."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little", signed=True)


FILES = [encoded(noise(8, 8, number)) for number in range(6)]


def test_digests_are_of_the_encoded_bytes(tmp_path: Path) -> None:
    write_images(tmp_path / "set", 6)
    source = open_source(tmp_path / "set")
    assert source.content_ids.dtype == torch.int64
    assert source.content_ids.tolist() == [digest(file) for file in FILES]
    assert source.subset(torch.tensor([4, 1])).content_ids.tolist() == [digest(FILES[4]), digest(FILES[1])]
    assert open_source(tmp_path / "set").content_ids.tolist() == source.content_ids.tolist()  # from the cache


def test_digests_ignore_names_labels_order_size_and_container(tmp_path: Path) -> None:
    for number, file in enumerate(FILES):
        path = tmp_path / "set" / "ab"[number % 2] / f"{9 - number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
    cells = [{"bytes": file, "path": None} for file in FILES]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    (tmp_path / "set" / "a" / "broken.png").write_bytes(b"")
    truth = {digest(file) for file in FILES}
    for spec, side in ((tmp_path / "set", 4), (tmp_path / "set", 8), (tmp_path / "a.parquet", 5)):
        assert set(open_source(spec, side=side, split="all").content_ids.tolist()) == truth
    train, test = open_splits(tmp_path / "set")
    assert not set(train.content_ids.tolist()) & set(test.content_ids.tolist())
    limited = open_source(tmp_path / "set", split="all", limit=3)
    assert len(limited.content_ids) == 3
    assert set(limited.content_ids.tolist()) < truth


def test_digests_of_photos_are_those_of_their_files(tmp_path: Path) -> None:
    write_images(tmp_path, 2)
    loaded = photos([tmp_path / "0.png", tmp_path / "1.png"])
    assert [photo.content_id for photo in loaded] == [digest(file) for file in FILES[:2]]
    pixels = [photo.image for photo in loaded]
    ids = torch.tensor([photo.content_id for photo in loaded])
    assert Crops("a", pixels, 10, 8, 0, content_ids=ids).content_ids.tolist() == ids.tolist()
    assert Crops("a", pixels, 10, 8, 0).content_ids.tolist() == [content_id(noise(8, 8, n)) for n in range(2)]


def test_arrays_differ_by_shape_and_values() -> None:
    image = noise(4, 6)
    assert content_id(image) == content_id(image.copy())
    assert len({content_id(array) for array in (image, image ^ 1, image.reshape(6, 4, 3), image[::-1])}) == 4


def test_long_files_are_hashed_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "HASHED", 100)
    (tmp_path / "a.png").write_bytes(FILES[0])
    assert loaded(tmp_path / "a.png") == tmp_path / "a.png"
    result, identity = decode_with_id(tmp_path / "a.png", 8)
    assert np.array_equal(result, noise(8, 8, 0).transpose(2, 0, 1))
    assert identity == content_id(FILES[0]) != content_id(FILES[0] + b"1")
    assert identity != content_id(FILES[0][:100])


def test_sources_without_encoded_images_have_no_digests() -> None:
    class Toy(Source):
        def __len__(self) -> int:
            return 1

        def batch(self, indices: object, device: object) -> object:
            raise NotImplementedError

    assert Toy().content_ids.shape == (0,)
    assert Toy().content_ids.dtype == torch.int64
