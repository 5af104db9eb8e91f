"""The split of images that come without one, and limits: what is held out depends on the image alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import encoded, noise, write_images

from selftaught.data import Stored, open_source, open_splits
from selftaught.data.reader import Listed
from selftaught.data.splits import held_out
from selftaught.errors import UserError


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))


def keys(source: Stored) -> set[bytes]:
    images = source.batch(torch.arange(len(source)), torch.device("cpu")).images.numpy()
    return {image.tobytes() for image in images}


def reader(*titles: str) -> Listed:
    return Listed("toys", None, None, [np.zeros((1, 1), np.uint8)] * len(titles), titles)


def test_test_part_is_a_fifth() -> None:
    test = held_out(reader(*(f"train/n{number % 200:03}/image_{number}.JPEG" for number in range(20_000))))
    assert abs(test.mean() - 0.2) < 4 * (0.2 * 0.8 / 20_000) ** 0.5


def test_split_of_an_image_does_not_depend_on_other_images() -> None:
    titles = [f"{number}.png" for number in range(300)]
    part = dict(zip(titles, held_out(reader(*titles)).tolist(), strict=True))
    others = [*titles[::-3], "another.png", "b/1.png"]
    assert [part.get(title) for title in others[:-2]] == held_out(reader(*others)).tolist()[:-2]


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_small_sources_have_both_parts(count: int) -> None:
    for trial in range(30):
        assert 0 < held_out(reader(*(f"{trial}/{number}.png" for number in range(count)))).sum() < count
    assert held_out(reader("1.png")).shape == (1,)


def test_no_image_trained_on_is_tested_on_with_other_labels(tmp_path: Path) -> None:
    for name, count in (("cat", 60), ("dog", 30)):
        write_images(tmp_path / "set" / name, count, seed=count)
    titles = [f"{name}/{number}.png" for name, count in (("cat", 60), ("dog", 30)) for number in range(count)]
    rows = "".join(f"{title},{'xyz'[number % 3]}\n" for number, title in enumerate(titles[10:]))
    (tmp_path / "other.csv").write_text("path,label\n" + rows)
    trained = open_source(tmp_path / "set")
    test = open_splits(tmp_path / "set", labels=tmp_path / "other.csv")[1]
    assert len(test) > 5
    assert not keys(trained) & keys(test)
    few = tmp_path / "few.csv"
    few.write_text("path,label\n" + rows[: len(rows) // 2].rsplit("\n", 1)[0] + "\n")
    trained = open_source(tmp_path / "set", labels=few, keep_unlabeled=True)
    assert not keys(trained) & keys(test)


def test_limit_applies_to_training_images_only(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        write_images(tmp_path / "set" / name, 40, seed=len(name) + ord(name[0]))
    train, test = open_splits(tmp_path / "set")
    fewer, same = open_splits(tmp_path / "set", limit=12)
    assert len(fewer) == 12
    assert keys(fewer) < keys(train)
    assert keys(same) == keys(test)


@pytest.mark.parametrize("limit", [1, 3])
def test_broken_images_are_not_drawn_into_a_limit(tmp_path: Path, limit: int) -> None:
    write_images(tmp_path / "set", 6)
    for number in range(6):
        (tmp_path / "set" / f"broken{number}.png").write_bytes(b"")
    for seed in range(6):
        assert len(open_source(tmp_path / "set", limit=limit, seed=seed)) == limit


def test_limit_on_mostly_broken_images_fails_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selftaught.data import sources as module

    monkeypatch.setattr(module, "MIN_DRAWN", 8)
    write_images(tmp_path / "set", 10)
    for number in range(90):
        (tmp_path / "set" / f"broken{number}.png").write_bytes(encoded(noise(4, 4))[:20])
    with pytest.raises(UserError, match=r"only \d of \d+ images in .* can be used"):
        open_source(tmp_path / "set", limit=10)


def test_caches_of_limited_parts_do_not_depend_on_other_images(tmp_path: Path) -> None:
    """Only the drawn files are digested, or `--limit 300` of a million would load them all."""
    from selftaught.data.folder import folder_splits

    write_images(tmp_path / "set", 6)
    before = folder_splits(tmp_path / "set")["all"]
    some = np.array([1, 4])
    first = before.fingerprint_of(some)
    (tmp_path / "set" / "0.png").write_bytes(encoded(noise(8, 8, 99)))
    assert before.fingerprint_of(some) == first
    (tmp_path / "set" / "4.png").write_bytes(encoded(noise(8, 8, 98)))
    assert before.fingerprint_of(some) != first


@pytest.mark.parametrize("limit", [None, 8])
def test_most_images_of_a_folder_may_be_unlabeled(tmp_path: Path, limit: int | None) -> None:
    """They are not broken, so a probe uses the others."""
    folder = tmp_path / "set"
    names = [f"{number}.png" for number in range(100)]
    write_images(folder, 100)
    rows = [f"{name},{'ab'[number % 2]}" for number, name in enumerate(names[:24])]
    (folder / "labels.csv").write_text("\n".join(["path,label", *rows]))
    train, test = open_splits(folder, side=8, limit=limit)
    assert len(test) > 0
    assert len(train) == (limit or 24 - len(test))
    assert not train.skipped
