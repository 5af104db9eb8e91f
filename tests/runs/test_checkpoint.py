"""Checkpoints from strangers use no more memory than they are large, and are read from inside the run alone."""

import os
import zipfile

import pytest
from hostile import bomb

from selftaught.errors import UserError
from selftaught.runs.checkpoint import Checkpoints


@pytest.fixture
def checkpoints(tmp_path) -> Checkpoints:
    (tmp_path / "checkpoint").mkdir()
    return Checkpoints(tmp_path / "checkpoint")


def test_a_compressed_checkpoint_is_refused_and_a_stored_one_is_read(checkpoints):
    checkpoints.last.write_bytes(bomb(size=2**18))
    assert checkpoints.last.stat().st_size < 2**14
    with pytest.raises(UserError, match="1 damaged"):
        checkpoints.load()
    checkpoints.last.write_bytes(bomb(zipfile.ZIP_STORED, 2**10))
    assert checkpoints.load()["step"] == 6


@pytest.mark.parametrize("kind", ["link", "folder link", "fifo"])
def test_a_checkpoint_is_not_read_through_links_or_pipes(checkpoints, tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "last.pt").write_bytes(bomb(zipfile.ZIP_STORED, 2**10))
    if kind == "link":
        checkpoints.last.symlink_to(outside / "last.pt")
    elif kind == "folder link":
        checkpoints.last.parent.rmdir()
        checkpoints.last.parent.symlink_to(outside)
    else:
        os.mkfifo(checkpoints.last)
    with pytest.raises(UserError):
        checkpoints.load()
