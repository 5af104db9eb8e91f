"""Brightness: one range of values per source, whichever part of it is opened."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from corpus import encoded, noise, write_images
from PIL import Image

from selftaught.data import Stored, open_source, open_splits
from selftaught.data.brightness import SAMPLE, Ranges, measure
from selftaught.data.decode import decode


def flat(value: float, kind: type = np.uint16) -> bytes:
    """An image of one value."""
    return encoded(Image.fromarray(np.full((8, 8), value, kind)), "TIFF")


def write(folder: Path, *values: float, kind: type = np.uint16) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, value in enumerate(values):
        (folder / f"{number}.tif").write_bytes(flat(value, kind))


def means(source: Stored) -> list[float]:
    """The mean of each stored image, 0 to 255."""
    batch = source.batch(torch.arange(len(source)), torch.device("cpu"))
    return [round(value, 3) for value in batch.images.float().mean((1, 2, 3)).tolist()]


def test_a_dark_image_of_a_bright_source_stays_dark(tmp_path: Path) -> None:
    write(tmp_path / "set", 4095, 4096, 65535)
    assert means(open_source(tmp_path / "set", split="all")) == [16, 16, 255]


def test_twelve_bits_are_recognized_by_the_brightest_image(tmp_path: Path) -> None:
    write(tmp_path / "set", 0, 819, 4095)
    source = open_source(tmp_path / "set", split="all")
    assert means(source) == [0, 51, 255]
    assert source.notes == ("16-bit images: values 0 to 4095 are mapped to 0 to 255",)


def test_eight_bit_sources_have_no_note(tmp_path: Path) -> None:
    write_images(tmp_path / "set", 3)
    assert open_source(tmp_path / "set").notes == ()


@pytest.mark.parametrize(
    ("values", "expected"),
    [((0.0, 0.2, 1.0), [0, 51, 255]), ((0, 51, 255), [0, 51, 255]), ((-10.0, 0.0, 40.0), [0, 51, 255])],
)
def test_floating_point_images_share_one_range(tmp_path: Path, values: tuple[float, ...], expected: list[int]) -> None:
    write(tmp_path / "set", *values, kind=np.float32)
    assert means(open_source(tmp_path / "set", split="all")) == expected


def test_parts_and_limits_share_the_range_of_the_source(tmp_path: Path) -> None:
    for label, value in (("a", 100), ("b", 200)):
        write(tmp_path / "set" / "train" / label, *[value] * 4)
        write(tmp_path / "set" / "test" / label, value * 10, 4000)
    train, test = open_splits(tmp_path / "set")
    expected = [round(value * 255 / 4095) for value in (100, 200, 1000, 2000, 4000)]
    assert set(means(train)) == set(expected[:2])
    assert set(means(test)) == set(expected[2:])
    assert set(means(open_source(tmp_path / "set", limit=3))) <= set(expected[:2])


def test_the_range_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "set", 10, 4000)
    first = open_source(tmp_path / "set")
    monkeypatch.setattr("selftaught.data.brightness.measure", None)
    assert open_source(tmp_path / "set").fingerprint == first.fingerprint
    (kept,) = Path(os.environ["SELFTAUGHT_CACHE"]).glob("ranges-*.json")
    kept.write_text('{"integers": "damaged"}')
    monkeypatch.undo()
    assert open_source(tmp_path / "set").fingerprint == first.fingerprint


def test_values_outside_of_the_range_are_clipped_or_the_image_is_skipped() -> None:
    values = np.full((8, 8), 4095, np.uint16)
    values[0, 0] = 9000
    result = decode(encoded(Image.fromarray(values)), 8, Ranges(integers=(0, 4095)))
    assert not isinstance(result, str)
    assert (result == 255).all()
    reason = decode(flat(9000), 8, Ranges(integers=(0, 4095)))
    assert reason == "has values outside 0 to 4095, the range of the other images of this source"


def test_parquet_sources_share_one_range(tmp_path: Path) -> None:
    cells = [{"bytes": flat(value), "path": None} for value in [100] * (3 * SAMPLE) + [4095]]
    pq.write_table(pa.table({"image": cells}), tmp_path / "a.parquet")
    assert open_source(tmp_path / "a.parquet", limit=5, seed=1).notes[0].startswith("16-bit images: values 0 to 4095")


def test_unreadable_images_do_not_affect_the_range() -> None:
    raws = [b"", b"text", flat(np.nan, np.float32), flat(7.5, np.float32), noise(4, 4), flat(300)]
    assert measure(raws) == Ranges(integers=(0, 4095), floats=(0, 255))
