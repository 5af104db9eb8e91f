"""The command: scenes by worker processes, killed and continued, opened as a source."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("mitsuba")
import selftaught
from selftaught.rendering.folder import RenderSettings
from selftaught.rendering.random_scene import random_scene
from selftaught.rendering.render import render_folder
from selftaught.rendering.renderer import render_scene

SETTINGS = RenderSettings(seed=5, size=16, textures=None, shard=2)
CHILD = """
import sys
from pathlib import Path
from selftaught.rendering.folder import RenderSettings
from selftaught.rendering.render import render_folder
if __name__ == "__main__":
    settings = RenderSettings(seed=5, size=16, textures=None, shard=2)
    render_folder(Path(sys.argv[1]), settings, int(sys.argv[2]), None, 1)
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.parquet"))}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered") / "scenes"
    render_folder(folder, SETTINGS, 5, None, 1)
    return folder


def test_scenes_are_those_of_their_numbers(scenes: Path) -> None:
    assert [path.name for path in sorted(scenes.iterdir())] == [
        ".lock",
        "render.json",
        "scenes-00000.parquet",
        "scenes-00001.parquet",
        "scenes-00002.parquet",
    ]
    source = selftaught.open_source(scenes)
    assert source.targets == {"depth", "normals", "contours", "instances"}
    assert len(source) == 5
    batch = source.batch(torch.arange(5), torch.device("cpu"))
    for number in (0, 3, 4):  # of every file
        picture = render_scene(random_scene(5, number), 16)
        assert np.array_equal(batch.images[number].permute(1, 2, 0).numpy(), picture.image)
        assert np.allclose(batch.targets["depth"][number, 0], picture.depth, rtol=2**-11, atol=0)
        assert np.allclose(batch.targets["normals"][number].permute(1, 2, 0), picture.normals, atol=0.01)


@pytest.mark.slow
def test_a_folder_is_extended_without_rendering_twice(scenes: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in scenes.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    os.utime(folder / "scenes-00000.parquet", (1, 1))
    render_folder(folder, SETTINGS, 6, None, 1)
    assert (folder / "scenes-00000.parquet").stat().st_mtime == 1
    assert pq.read_metadata(folder / "scenes-00002.parquet").num_rows == 2
    before = pq.read_table(scenes / "scenes-00002.parquet")
    assert pq.read_table(folder / "scenes-00002.parquet").slice(0, 1).equals(before)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_killed_process_is_continued(scenes: Path, tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "killed"
    (script := tmp_path / "child.py").write_text(CHILD)
    child = subprocess.Popen([sys.executable, script, folder, "400"], start_new_session=True, stderr=subprocess.PIPE)
    while not (folder / "scenes-00001.parquet").exists():
        assert child.poll() is None, child.stderr and child.stderr.read()
        time.sleep(0.02)
    child.send_signal(number)
    child.communicate(timeout=30)
    deadline = time.monotonic() + 20  # the worker of a killed parent ends with its present scene
    while _members(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _members(child.pid)
    for path in folder.glob("scenes-*.parquet"):
        if int(path.stem[-5:]) > 1:
            path.unlink()
    render_folder(folder, SETTINGS, 5, None, 1)
    assert contents(folder) == contents(scenes)


def _members(session: int) -> list[str]:
    """Processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, *_, own = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(own) == session and state != "Z":
            found.append(stat.parent.name)
    return found


@pytest.mark.slow
def test_the_command_line(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "selftaught", "render", "--scenes", "3", "--size", "16", "--out", "scenes"]
    done = subprocess.run([*words, "--workers", "1"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "scenes\n"
    repeated = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert repeated.stdout == "scenes\n"
    other = subprocess.run([*words, "--seed", "2"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert other.returncode == 2
    assert "was rendered with --seed 0, got --seed 2" in other.stderr


@pytest.mark.slow
def test_ctrl_c_ends_the_command_with_130(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "selftaught", "render", "--scenes", "4000", "--workers", "2", "--out", "scenes"]
    child = subprocess.Popen(words, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True)
    while len(_members(child.pid)) < 3:
        time.sleep(0.05)
    time.sleep(3)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    _, errors = child.communicate(timeout=30)
    assert child.returncode == 130
    assert errors.strip().endswith("selftaught: interrupted")
    assert "Traceback" not in errors
    assert not _members(child.pid)
