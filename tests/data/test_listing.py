"""Listing of folders: every file is listed once, in time linear in the number of files."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from selftaught.data.folder import folder_splits
from selftaught.data.listing import Listing, list_folder
from selftaught.errors import UserError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_time_is_linear_in_the_number_of_images(tmp_path: Path) -> None:
    """A part of the listing was quadratic: 8 times the images took 64 times the time."""

    def seconds(count: int) -> float:
        folders = ["train/a", "train/b", "val/a", "val/b"]
        titles = [f"{folders[number % 4]}/{number}.png" for number in range(count)]
        listing = Listing(tmp_path, titles, folders, np.arange(count) % 4, [], ())
        start = time.perf_counter()
        splits = folder_splits(tmp_path, listing)
        spent = time.perf_counter() - start
        assert (len(splits["train"]), len(splits["validation"])) == (count // 2, count // 2)
        return spent

    small, large = (min(seconds(count) for _ in range(3)) for count in (2_000, 16_000))
    assert large < 24 * small + 0.05


def test_a_link_never_replaces_the_folder_that_it_leads_to(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "z/1.png", "m/2.png")
    (root / "a").symlink_to(root / "z", target_is_directory=True)
    (root / "m" / "up").symlink_to(root, target_is_directory=True)
    (root / "outside").symlink_to(tmp_path, target_is_directory=True)
    listing = list_folder(root)
    assert listing.titles == ["m/2.png", "z/1.png"]
    assert dict(listing.skipped) == {
        "a": "is a link to 'z', which is listed",
        "m/up": "is a link to the folder itself",
        "outside": "is a link to a folder above",
    }


def test_a_split_folder_without_images_is_named(tmp_path: Path) -> None:
    root = touch(tmp_path / "root", "train/a/1.png", "train/b/1.png", "train/test/1.png")
    for folder in ("test/a", "test/b", "notes", "train/c"):
        (root / folder).mkdir(parents=True)
    assert list_folder(root).empty == ("notes", "test", "train/c")
    splits = folder_splits(root)
    assert "test" not in splits
    assert splits["all"].notes == ("no images in the folder test",)


def test_class_folders_that_are_links_are_followed(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "deep/2.png", "3.PNG")
    root = touch(tmp_path / "root", "a/1.png")
    (root / "b").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert list_folder(root).titles == ["a/1.png", "b/3.PNG", "b/deep/2.png"]
    assert folder_splits(root)["all"].classes == ("a", "b")


def test_a_skipped_link_is_announced_by_the_reader(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    (root / "c").symlink_to(root / "a", target_is_directory=True)
    assert "c is a link to 'a', which is listed, not followed" in folder_splits(root)["all"].notes


@pytest.mark.skipif(not os.geteuid(), reason="root may read everything")
def test_unreadable_folders_are_errors(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.raises(UserError, match=r"cannot read the folder .*b \(permission denied\)"):
            list_folder(tmp_path)
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("selftaught.data.listing.os.scandir", locked)
    with pytest.raises(UserError, match=r"cannot read the folder .* \(permission denied\): change its permissions"):
        list_folder(tmp_path)
