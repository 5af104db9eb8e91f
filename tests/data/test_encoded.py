"""Images kept encoded: the same source as decoded ones, in every respect but where the pixels are."""

import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from corpus import encoded, noise, write_broken, write_images
from dense_toys import toy_cells, write_toys
from PIL import Image

import selftaught
from selftaught.data import Stored, open_source, open_splits, storage
from selftaught.data.cache import cache_folder
from selftaught.data.decode import decode
from selftaught.data.encoded import Encoded
from selftaught.data.stored import Resident
from selftaught.errors import UserError

CPU = torch.device("cpu")


def photo(seed: int, height: int, width: int) -> Image.Image:
    """A smooth random picture, which JPEG can represent."""
    return Image.fromarray(noise(6, 6, seed)).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """JPEGs and PNGs of many sizes and modes in two classes, and broken files."""
    root = tmp_path / "set"
    for number in range(24):
        folder = root / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        image = photo(number, 40 + 7 * number, 50 + 5 * number)
        image.convert("L" if number % 5 == 0 else "RGB").save(folder / f"{number}.{'jpg' if number % 3 else 'png'}")
    write_broken(root / "cat")
    return root


def write_parquet(root: Path, path: Path, group: int = 3) -> Path:
    files = sorted(file for file in root.rglob("*") if file.is_file() and file.stat().st_size)
    cells = [{"bytes": file.read_bytes(), "path": None} for file in files]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    labels = [int(file.parent.name == "cat") for file in files]
    pq.write_table(pa.table({"image": pa.array(cells, kind), "label": labels}), path, row_group_size=group)
    return path


def make(kind: str, mixed: Path, tmp_path: Path) -> Path:
    if kind == "parquet":
        return write_parquet(mixed, tmp_path / "a.parquet")
    if kind == "shards":
        return selftaught.shard(mixed, out=tmp_path / "shards", shard_size=1)
    return mixed


def images(source: Stored, order: torch.Tensor | None = None) -> np.ndarray:
    return source.batch(torch.arange(len(source)) if order is None else order, CPU).images.numpy()


@pytest.mark.parametrize("kind", ["folder", "parquet", "shards"])
@pytest.mark.parametrize("options", [{}, {"limit": 7, "seed": 3}, {"split": "all", "side": 13}])
def test_a_source_is_the_same_in_either_storage(kind: str, options: dict, mixed: Path, tmp_path: Path) -> None:
    path = make(kind, mixed, tmp_path)
    decoded, on_the_fly = (open_source(path, storage=each, **options) for each in ("decoded", "encoded"))
    assert isinstance(decoded._pixels, Resident)
    assert isinstance(on_the_fly._pixels, Encoded)
    for name in ("name", "classes", "targets", "side", "fingerprint", "skipped", "notes"):
        assert getattr(decoded, name) == getattr(on_the_fly, name), name
    assert kind == "shards" or "limit" in options or len(decoded.skipped) >= 5
    assert torch.equal(decoded.labels, on_the_fly.labels)
    assert torch.equal(decoded.content_ids, on_the_fly.content_ids)
    order = torch.randint(len(decoded), (50,), generator=torch.Generator().manual_seed(0))  # some of them repeated
    assert np.array_equal(images(decoded, order), images(on_the_fly, order))
    batches = zip(decoded.batches(5, CPU), on_the_fly.batches(5, CPU), strict=True)
    assert all(torch.equal(a.images, b.images) and torch.equal(a.index, b.index) for a, b in batches)
    again = open_source(path, storage="encoded", **options)  # from the cache
    assert (again.fingerprint, again.skipped) == (decoded.fingerprint, decoded.skipped)


def test_pixels_are_those_of_decode(mixed: Path) -> None:
    source = open_source(mixed, split="all", side=16, storage="encoded")
    files = sorted(mixed.glob("*/[0-9]*.???"), key=lambda file: (file.parent.name, int(file.stem)))
    assert len(files) == len(source)
    assert np.array_equal(images(source), [decode(file, 16) for file in files])


def test_both_parts_share_what_was_checked(mixed: Path) -> None:
    train, test = open_splits(mixed, side=16, storage="encoded")
    assert train._pixels is test._pixels
    assert [path.suffix for path in cache_folder().iterdir() if path.suffix != ".lock"] == [".npz"]


def test_dense_targets_are_decoded_on_the_fly(tmp_path: Path) -> None:
    path = write_toys(tmp_path / "a.parquet", [toy_cells(16, number) for number in range(9)])
    decoded, on_the_fly = (
        open_source(path, side=8, storage=each).batch(torch.tensor([3, 0, 3]), CPU) for each in ("decoded", "encoded")
    )
    assert set(decoded.targets) == set(on_the_fly.targets) >= {"depth", "normals"}
    assert torch.equal(decoded.images, on_the_fly.images)
    for name in decoded.targets:
        assert torch.equal(decoded.targets[name], on_the_fly.targets[name]), name


def test_auto_decodes_small_sources_only(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 30 * 3 * 16**2
    monkeypatch.setattr(storage, "DECODED_LIMIT", size)
    assert isinstance(open_source(mixed, split="all", side=16, limit=20)._pixels, Resident)
    monkeypatch.setattr(storage, "DECODED_LIMIT", size // 2)
    assert isinstance(open_source(mixed, split="all", side=16, limit=20)._pixels, Encoded)
    with pytest.raises(UserError, match="no storage called 'encodet': did you mean encoded"):
        open_source(mixed, storage="encodet")  # type: ignore[arg-type]


def test_truncated_jpegs_are_found_at_every_side() -> None:
    """What is checked at one side holds at any other: reduced-scale decoding reads the whole file as well."""
    for progressive in (False, True):
        whole = encoded(photo(1, 300, 400), "JPEG", quality=90, progressive=progressive)
        for length in (*range(200, len(whole), 97), len(whole) - 3, len(whole)):
            verdicts = {isinstance(decode(whole[:length], side), str) for side in (4, 16, 32, 64, 200)}
            assert len(verdicts) == 1, length
    assert verdicts == {False}


@pytest.mark.parametrize("change", ["other", "broken", "missing"])
def test_images_that_change_end_a_run_in_a_sentence(change: str, tmp_path: Path) -> None:
    write_images(tmp_path / "set", 6)
    source = open_source(tmp_path / "set", storage="encoded")
    path = tmp_path / "set" / "2.png"
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(encoded(noise(8, 8, 99)) if change == "other" else path.read_bytes()[:-30])
    assert len(images(source, torch.tensor([0, 1, 3]))) == 3
    with pytest.raises(UserError, match=r"2\.png in .*set is not the image that was there when the source was opened"):
        images(source)


def test_damaged_records_are_made_again(mixed: Path) -> None:
    first = open_source(mixed, side=8, storage="encoded")
    (record,) = cache_folder().glob("*.npz")
    whole = record.read_bytes()
    for damaged in (b"", whole[:-40], whole[:200] + bytes([whole[200] ^ 255]) + whole[201:], b"nonsense"):
        record.write_bytes(damaged)
        again = open_source(mixed, side=8, storage="encoded")
        assert (again.fingerprint, again.skipped) == (first.fingerprint, first.skipped)
    np.savez(record, kept=np.arange(2), content_ids=np.arange(2), skipped=np.frombuffer(b"[]", np.uint8))  # of others
    assert open_source(mixed, side=8, storage="encoded").fingerprint == first.fingerprint


def test_memory_is_that_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 images never more than those of one batch are decoded, and of these one per thread is being decoded."""
    from selftaught.data import encoded as module

    write_images(tmp_path / "set", 40)
    source = open_source(tmp_path / "set", side=8, storage="encoded")
    decode_one, running, most, total, lock = module.decode_one, [0], [0], [0], threading.Lock()

    def counted(*arguments: object) -> object:
        with lock:
            running[0] += 1
            total[0] += 1
            most[0] = max(most[0], running[0])
        try:
            return decode_one(*arguments)
        finally:
            with lock:
                running[0] -= 1

    monkeypatch.setattr(module, "decode_one", counted)
    iterator = source.batches(8, CPU)
    next(iterator)
    assert total[0] <= 16  # this batch, and one ahead
    assert sum(len(batch) for batch in iterator) == 32
    assert total[0] == 40
    assert most[0] <= module.threads()


def test_a_run_has_the_same_losses_and_can_be_resumed_in_the_other_storage(mixed: Path, tmp_path: Path) -> None:
    from selftaught.training.interruption import Stop

    def losses(run: selftaught.Run) -> list[float]:
        return [line["loss"] for line in run.folder.read_log()]

    common = {"task": "rotation", "size": 16, "batch_size": 8, "steps": 12, "device": "cpu", "precision": "32"}
    runs = [selftaught.pretrain(mixed, out=tmp_path / each, storage=each, **common) for each in ("decoded", "encoded")]
    assert len(losses(runs[0])) == 12
    assert losses(runs[0]) == losses(runs[1])
    assert (runs[0].path / "skipped.txt").read_text() == (runs[1].path / "skipped.txt").read_text()
    weights = [run.encoder.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    stop = Stop()
    stop.request()
    stopped = selftaught.pretrain(mixed, out=tmp_path / "third", storage="encoded", stop=stop, **common)
    assert not stopped.finished
    resumed = selftaught.pretrain(out=tmp_path / "third", resume=True, storage="decoded")
    assert losses(resumed) == losses(runs[0])


def test_probes_are_the_same_in_either_storage(mixed: Path, tmp_path: Path) -> None:
    run = selftaught.pretrain(
        mixed, out=tmp_path / "run", task="rotation", size=16, steps=2, batch_size=8, device="cpu", monitor=str(mixed),
        storage="encoded",
    )  # fmt: skip
    options = {"device": "cpu", "baselines": ["none"]}  # which others are quick enough is measured
    tables = [run.probe(mixed, storage=each, **options).to_json() for each in ("decoded", "encoded")]
    assert tables[0] == tables[1]
    assert any("knn_accuracy" in line for line in run.folder.read_log())


def test_photos_have_no_storage(tmp_path: Path) -> None:
    photo(0, 100, 100).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="--storage encoded does not apply to photos"):
        selftaught.pretrain(tmp_path / "a.png", out=tmp_path / "run", steps=1, storage="encoded")
