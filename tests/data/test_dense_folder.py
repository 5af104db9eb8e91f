"""Folders of renderings: layouts, formats and units, and one sentence for each mistake."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import encoded, noise
from dense_toys import toy_depth, toy_instances, toy_normals
from PIL import Image

from selftaught.data import Stored, open_source
from selftaught.errors import UserError

CPU = torch.device("cpu")
SIDE = 16
COUNT = 4


def png16(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values.round().astype(np.uint16)))


def png_normals(number: int) -> bytes:
    return encoded((np.rint(toy_normals(SIDE, SIDE, number) * 127) + 128).astype(np.uint8))


def write(path: Path, content: bytes | np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)


def write_all(root: Path, name: Callable[[str, int], str], suffix: str = ".png") -> Path:
    for number in range(COUNT):
        write(root / f"{name('image', number)}.png", encoded(noise(SIDE, SIDE, number)))
        if suffix == ".png":
            write(root / f"{name('depth', number)}.png", png16(toy_depth(SIDE, SIDE, number) * 1000))
            write(root / f"{name('normal', number)}.png", png_normals(number))
            write(root / f"{name('instance', number)}.png", png16(toy_instances(SIDE, SIDE, number)))
        else:
            write(root / f"{name('depth', number)}.npy", toy_depth(SIDE, SIDE, number))
            write(root / f"{name('normal', number)}.npy", toy_normals(SIDE, SIDE, number))
            write(root / f"{name('instance', number)}.npy", toy_instances(SIDE, SIDE, number))
    return root


def assert_right(source: Stored) -> None:
    assert source.targets == {"depth", "normals", "contours", "instances"}
    assert len(source) == COUNT
    batch = source.batch(torch.arange(COUNT), CPU)
    for number in range(COUNT):
        assert np.array_equal(batch.images[number], noise(SIDE, SIDE, number).transpose(2, 0, 1))
        assert np.allclose(batch.targets["depth"][number, 0], toy_depth(SIDE, SIDE, number), rtol=1e-3)
        assert np.allclose(
            batch.targets["normals"][number], toy_normals(SIDE, SIDE, number).transpose(2, 0, 1), atol=0.01
        )
        ids = np.searchsorted([0, 3, 7], toy_instances(SIDE, SIDE, number))
        assert np.array_equal(batch.targets["instances"][number, 0], ids)


LAYOUTS: dict[str, Callable[[str, int], str]] = {
    "folders": lambda kind, number: f"{kind}/{number:04}",
    "folders of scenes": lambda kind, number: f"train/{number // 2}/{kind}/{number % 2}",
    "scenes in folders": lambda kind, number: f"{kind.upper()}/{number // 2}/frame_{number % 2}",
    "SceneNet": lambda kind, number: f"val/0/{number}/{'photo' if kind == 'image' else kind}/0",
    "ends of names": lambda kind, number: f"scene/{number:04}_{kind}",
    "ends with dots": lambda kind, number: f"frame.{number:04}.{'color' if kind == 'image' else kind}",
    "plain images": lambda kind, number: f"{number:04}" + ("" if kind == "image" else f"-{kind}"),
    "Blender": lambda kind, number: f"{kind.capitalize()}{number:04}",
}


@pytest.mark.parametrize("suffix", [".png", ".npy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str, suffix: str) -> None:
    assert_right(open_source(write_all(tmp_path / "renderings", LAYOUTS[layout], suffix)))


def test_exr_files(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    root = tmp_path / "renderings"
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    for number in range(COUNT):
        write(root / f"image/{number}.png", encoded(noise(SIDE, SIDE, number)))
        depth = toy_depth(SIDE, SIDE, number)
        depth[depth == 0] = np.inf  # the sky
        channels = {
            "depth": {"ViewLayer.Depth.Z": depth},
            "normal": {f"N.{axis}": toy_normals(SIDE, SIDE, number)[..., k].copy() for k, axis in enumerate("XYZ")},
            "instance": {"Y": toy_instances(SIDE, SIDE, number).astype(np.float32)},
        }
        for kind, values in channels.items():
            (root / kind).mkdir(exist_ok=True)
            exr.File(header, values).write(str(root / kind / f"{number}.exr"))
    assert_right(open_source(root))
    (root / "depth/2.exr").write_bytes((root / "depth/2.exr").read_bytes()[:200])
    assert dict(open_source(root).skipped) == {"image/2.png": "has a depth map that is a damaged EXR file"}


def test_class_folders_with_such_names_are_classes(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"NORMAL/IM-{number}.png", encoded(noise(SIDE, SIDE, number)))
        write(tmp_path / f"PNEUMONIA/person{number}.png", encoded(noise(SIDE, SIDE, 9 + number)))
    source = open_source(tmp_path)
    assert source.targets == {"label"}
    assert source.classes == ("NORMAL", "PNEUMONIA")


def test_units_and_axes_are_stated_in_a_file(tmp_path: Path) -> None:
    for number in range(COUNT):
        write(tmp_path / f"image/{number}.png", encoded(noise(SIDE, SIDE, number)))
        write(tmp_path / f"depth/{number}.png", png16(toy_depth(SIDE, SIDE, number) * 256))
        write(tmp_path / f"normals/{number}.npy", toy_normals(SIDE, SIDE, number) * np.float32([1, -1, -1]))
    with pytest.raises(UserError, match=r'point away from the camera.*"normals_z": "away"'):
        open_source(tmp_path)
    (tmp_path / "targets.json").write_text(
        json.dumps({"depth_unit": 1 / 256, "normals_y": "down", "normals_z": "away"})
    )
    batch = open_source(tmp_path).batch(torch.arange(COUNT), CPU)
    assert np.allclose(batch.targets["depth"][1, 0], toy_depth(SIDE, SIDE, 1), atol=0.004)
    assert np.allclose(batch.targets["normals"][1], toy_normals(SIDE, SIDE, 1).transpose(2, 0, 1), atol=0.01)


@pytest.fixture
def renderings(tmp_path: Path) -> Path:
    return write_all(tmp_path / "renderings", LAYOUTS["folders"])


BROKEN: dict[str, tuple[str, bytes | np.ndarray | None, str]] = {
    "missing": ("depth/0002.png", None, "has no depth map"),
    "other size": (
        "normal/0002.png",
        encoded(np.full((8, 8, 3), 200, np.uint8)),
        "has a normal map of 8 x 8 pixels for an image of 16 x 16",
    ),
    "damaged": (
        "instance/0002.png",
        b"\x89PNG\r\n\x1a\nx",
        "has an instance map that begins like PNG, but its header is damaged or not supported by Pillow",
    ),
    "infinite": (
        "depth/0002.npy",
        np.full((SIDE, SIDE), np.inf),
        "has a depth map that is nowhere positive and finite",
    ),
    "zero": ("normal/0002.npy", np.zeros((SIDE, SIDE, 3)), "has a normal map that is nowhere of unit length"),
    "averaged ids": (
        "instance/0002.npy",
        np.full((SIDE, SIDE), 0.5),
        "has an instance map that is not of integers: ids must not be averaged by resizing or antialiasing",
    ),
    "two channels": (
        "normal/0002.npy",
        np.ones((SIDE, SIDE, 2)),
        "has a normal map that has the shape (16, 16, 2), not (H, W, 3)",
    ),
    "pickle": ("depth/0002.npy", np.array([[{}]], object), "has a depth map that is a damaged .npy file"),
    "vector": (
        "depth/0002.npy",
        np.ones(4),
        "has a depth map that is an array of shape (4,) and type float64, not (H, W) or (H, W, C) numbers",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_images_with_a_broken_target_are_skipped(renderings: Path, case: str) -> None:
    file, content, reason = BROKEN[case]
    (renderings / file).with_suffix(".png").unlink()
    if content is not None:
        write(renderings / file, content)
    source = open_source(renderings)
    assert dict(source.skipped) == {"image/0002.png": reason}
    assert len(source) == COUNT - 1


def test_most_partners_missing_is_an_error(renderings: Path) -> None:
    for number in range(3):
        (renderings / f"depth/{number:04}.png").unlink()
    with pytest.raises(UserError, match=r"only 1 of 4 images .* can be used.*'image/0000.png' has no depth map"):
        open_source(renderings)


def test_partly_infinite_depth_is_unknown_and_noted(renderings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(COUNT):
        depth = toy_depth(SIDE, SIDE, number)
        depth[:8] = np.inf
        depth[8] = np.nan
        write(renderings / f"depth/{number:04}.npy", depth)
    source = open_source(renderings)
    assert (source.batch(torch.arange(COUNT), CPU).targets["depth"][:, :, :9] == 0).all()
    errors = capsys.readouterr().err
    assert (
        "renderings, no labels, 4 images; with depth, normals, instances; depth unknown or infinite in 56 %" in errors
    )


def test_wrong_units_are_reported(renderings: Path) -> None:
    for number in range(COUNT):
        write(renderings / f"depth/{number:04}.npy", toy_depth(SIDE, SIDE, number) * 10_000)
    with pytest.raises(UserError, match=r"median depth of .* is .*e\+04 m, expected 0.05 to 5,000 m: state"):
        open_source(renderings)


def test_normals_as_colors_in_floats_are_reported(renderings: Path) -> None:
    for number in range(COUNT):
        write(renderings / f"normal/{number:04}.npy", toy_normals(SIDE, SIDE, number) * 127 + 128)
    with pytest.raises(UserError, match=r"must be unit vectors, got vectors of median length 2\d\d"):
        open_source(renderings)


def test_jpeg_targets_are_refused(renderings: Path) -> None:
    for number in range(COUNT):
        (renderings / f"depth/{number:04}.png").unlink()
        write(renderings / f"depth/{number:04}.jpg", encoded(noise(SIDE, SIDE, number), "JPEG"))
    with pytest.raises(UserError, match=r"depth of .* is stored as depth/0000.jpg, but must be PNG, TIFF, NPY or EXR"):
        open_source(renderings)


def test_colors_as_ids(renderings: Path) -> None:
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 1]], np.uint8)
    for number in range(COUNT):
        ids = np.searchsorted([0, 3, 7], toy_instances(SIDE, SIDE, number))
        write(renderings / f"instance/{number:04}.png", encoded(palette[ids]))
    found = open_source(renderings).batch(torch.tensor([1]), CPU).targets["instances"][0, 0].numpy()
    ids = np.searchsorted([0, 3, 7], toy_instances(SIDE, SIDE, 1))
    assert np.array_equal(found, np.array([0, 2, 1])[ids])  # in ascending order of colors


def test_another_file_of_a_target_changes_the_source(renderings: Path) -> None:
    before = open_source(renderings).fingerprint
    write(renderings / "depth/0001.png", png16(toy_depth(SIDE, SIDE, 2) * 1000))
    after = open_source(renderings)
    assert after.fingerprint != before
    assert np.allclose(after.batch(torch.tensor([1]), CPU).targets["depth"][0, 0], toy_depth(SIDE, SIDE, 2), rtol=1e-3)
