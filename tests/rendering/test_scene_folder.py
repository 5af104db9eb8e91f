"""The folder of scenes: settings, resuming, extending, refusing; no renderer is needed."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from selftaught.errors import UserError
from selftaught.rendering import render as rendering
from selftaught.rendering import shards
from selftaught.rendering.folder import RenderSettings, claim, locked_for_rendering, missing_shards, remove_parts
from selftaught.rendering.renderer import Picture, mitsuba
from selftaught.rendering.scenes import Scene
from selftaught.rendering.shards import rows_of, shard_path, write_shard

SETTINGS = RenderSettings(seed=1, size=16, textures=None, shard=3)


@pytest.fixture(autouse=True)
def _no_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures whose depth is the seed of the scene, instead of rendered ones."""

    def picture(scene: Scene, size: int) -> Picture:
        image = np.full((size, size, 3), scene.seed % 256, np.uint8)
        normals = np.zeros((size, size, 3), np.float32)
        normals[..., 2] = 1
        ids = np.tri(size, dtype=np.int64)
        return Picture(image, np.full((size, size), 1 + scene.seed % 64, np.float32), normals, ids)

    monkeypatch.setattr(shards, "render_scene", picture)


def write(folder: Path, number: int, scenes: int) -> None:
    write_shard(shard_path(folder, number), rows_of(number, scenes, 3), 1, 16, None, lambda: None)


def test_every_scene_is_in_one_shard() -> None:
    for scenes in (1, 2, 3, 4, 299, 300, 301):
        numbers = [n for number in range(-(-scenes // 3)) for n in rows_of(number, scenes, 3)]
        assert numbers == list(range(scenes))


def test_missing_incomplete_and_damaged_shards_are_rendered(tmp_path: Path) -> None:
    assert missing_shards(tmp_path, 8, 3) == [0, 1, 2]
    for number in (0, 1, 2):
        write(tmp_path, number, 8)
    assert missing_shards(tmp_path, 8, 3) == []
    assert missing_shards(tmp_path, 9, 3) == [2]  # the last one has two scenes only
    assert missing_shards(tmp_path, 12, 3) == [2, 3]
    shard_path(tmp_path, 1).write_bytes(b"PAR1 damaged PAR1")
    assert missing_shards(tmp_path, 8, 3) == [1]
    shard_path(tmp_path, 0).unlink()
    assert missing_shards(tmp_path, 8, 3) == [0, 1]


def test_the_shards_of_two_lengths_have_the_same_scenes(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    write(first, 1, 5)
    write(second, 1, 6)
    short, whole = (pq.read_table(shard_path(folder, 1)) for folder in (first, second))
    assert short.num_rows == 2
    assert whole.slice(0, 2).equals(short)


def test_a_shard_can_be_opened_by_others(tmp_path: Path) -> None:
    write(tmp_path, 0, 3)
    schema = pq.read_schema(shard_path(tmp_path, 0))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names == ["image", "depth", "normals", "instances", "contours"]
    assert {entry["_type"] for entry in features.values()} == {"Image"}


def test_the_same_settings_continue_a_folder(tmp_path: Path) -> None:
    claim(tmp_path, SETTINGS, 9)
    claim(tmp_path, SETTINGS, 9)
    write(tmp_path, 0, 9)
    claim(tmp_path, SETTINGS, 3)
    with pytest.raises(UserError, match=r"has 3 scenes already, got --scenes 2: give at least as many"):
        claim(tmp_path, SETTINGS, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "was rendered with --seed 1, got --seed 2: repeat the same settings, or choose another --out"),
        ({"size": 32}, "was rendered with --size 16, got --size 32"),
        ({"textures": "abc"}, "was rendered with no --textures: choose another --out"),
        ({"version": 0}, "was rendered by another version of selftaught"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    claim(tmp_path, SETTINGS, 9)
    with pytest.raises(UserError, match=message):
        claim(tmp_path, SETTINGS.model_copy(update=change), 9)


def test_folders_with_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match=r"contains 'thesis.txt' and no rendered scenes"):
        claim(tmp_path, SETTINGS, 9)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"seed": 1}', '{"seed": "x", "size": 1, "textures": null}'])
def test_damaged_settings_are_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "render.json").write_text(content)
    with pytest.raises(UserError, match="is damaged: choose another --out"):
        claim(tmp_path, SETTINGS, 9)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".lock"),
        pytest.raises(UserError, match=r"another process renders into .*: wait for it"),
        locked_for_rendering(tmp_path),
    ):
        pass


def test_a_path_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not writable"), locked_for_rendering(tmp_path / "file"):
        pass


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "scenes-00003.parquet.part").touch()
    write(tmp_path, 0, 3)
    remove_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scenes-00000.parquet"]


def test_mitsuba_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mitsuba.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("selftaught.rendering.renderer.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"rendering needs Mitsuba 3: install selftaught\[synthetic\]"):
        rendering.render(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenes": 0}, "--scenes must be from 1 to 1,000,000,000, got 0"),
        ({"size": 8}, "--size must be from 16 to 1,024, got 8"),
        ({"seed": -1}, "--seed must be from 0"),
        ({"workers": 0}, "--workers must be from 1 to 1,024, got 0"),
        ({"textures": "nowhere/at/all"}, "no such file or folder"),
    ],
)
def test_invalid_arguments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], message: str
) -> None:
    monkeypatch.setattr(rendering, "mitsuba", lambda: None)
    with pytest.raises(UserError, match=message):
        rendering.render(tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
