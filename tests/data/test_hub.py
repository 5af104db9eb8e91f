"""Data sets of the Hugging Face Hub by name, from a cache made here; nothing is downloaded."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus import encoded, noise

from selftaught.data import open_source, open_splits
from selftaught.errors import UserError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with one data set of two splits, laid out as huggingface_hub does."""
    folder = tmp_path / "hub" / "datasets--owner--toys"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "blobs").mkdir()
    (folder / "snapshots" / COMMIT / "data").mkdir(parents=True)
    for split, count in (("train", 6), ("test", 4)):
        cells = [{"bytes": encoded(noise(8, 8, number)), "path": None} for number in range(count)]
        table = pa.table({"image": pa.array(cells, kind), "label": [number % 2 for number in range(count)]})
        pq.write_table(table, folder / "blobs" / split)
        link = folder / "snapshots" / COMMIT / "data" / f"{split}-00000-of-00001.parquet"
        link.symlink_to(Path("../../../blobs") / split)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return folder


def test_a_data_set_in_the_cache_is_opened_by_its_name(hub: Path) -> None:
    train, test = open_splits("hf:owner/toys")
    assert (len(train), len(test)) == (6, 4)
    assert train.classes == ("0", "1")


@pytest.mark.parametrize("home", ["HF_HOME", "XDG_CACHE_HOME"])
def test_the_cache_is_where_huggingface_hub_has_it(
    hub: Path, home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME", raising=False)
    monkeypatch.setenv(home, str(tmp_path / "elsewhere"))
    place = tmp_path / "elsewhere" / ("hub" if home == "HF_HOME" else "huggingface/hub")
    place.parent.mkdir(parents=True)
    (tmp_path / "hub").rename(place)
    assert len(open_source("hf:owner/toys")) == 6


@pytest.mark.parametrize("name", ["../../etc", "a/b/c", "", "/etc", "a/..", "a\\b"])
def test_names_are_not_paths(name: str, hub: Path) -> None:
    with pytest.raises(UserError, match=r"expected hf:owner/name|must be a name"):
        open_source(f"hf:{name}")


@pytest.mark.parametrize("commit", ["../../../..", "", "main", "f" * 40])
def test_a_reference_that_is_no_snapshot_is_not_followed(commit: str, hub: Path) -> None:
    (hub / "refs" / "main").write_text(commit)
    with pytest.raises(UserError, match="'hf:owner/toys' is not on this machine"):
        open_source("hf:owner/toys")
