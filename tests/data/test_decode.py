"""Decoding: what comes out is compared with pixels and formulas written here; what is broken gives a reason."""

import os
import random
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from corpus import animated_gif, broken_files, encoded, huge_png, noise, write_broken, write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rubbish import chunk, png

from selftaught.data import open_source, photos
from selftaught.data.brightness import NOMINAL, Ranges, measure
from selftaught.data.decode import decode, decode_whole, short_side

pytestmark = pytest.mark.filterwarnings("ignore:::PIL")
"""Pillow warns of odd files; decoding leaves it to the host process whether that is shown."""


def pixels(raw: object, side: int = 16, ranges: Ranges = NOMINAL) -> np.ndarray:
    """(H, W, 3) of what must decode."""
    result = decode(raw, side, ranges)
    assert isinstance(result, np.ndarray), result
    assert result.shape == (3, side, side)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    return result.transpose(1, 2, 0)


def test_square_images_of_the_stored_size_are_unchanged(tmp_path: Path) -> None:
    image = noise(16, 16)
    (tmp_path / "a.png").write_bytes(encoded(image))
    for raw in (encoded(image), tmp_path / "a.png", image):
        assert np.array_equal(pixels(raw), image)


def test_grey_becomes_three_equal_channels() -> None:
    grey = noise(16, 16, channels=1)
    assert np.array_equal(pixels(encoded(grey)), np.repeat(grey[..., None], 3, 2))


def test_one_bit_becomes_black_and_white() -> None:
    bits = noise(16, 16, channels=1) > 127
    assert np.array_equal(pixels(encoded(Image.fromarray(bits)))[..., 1], bits * 255)


def test_transparency_is_blended_with_white() -> None:
    image = noise(16, 16, channels=4)
    alpha = image[..., 3:] / 255
    expected = image[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(pixels(encoded(image)) - expected).max() <= 1
    grey = np.stack([image[..., 0], image[..., 3]], 2)
    assert np.abs(pixels(encoded(Image.fromarray(grey, "LA"))) - expected[..., :1]).max() <= 1


def test_palettes_and_transparent_colours() -> None:
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    assert (pixels(encoded(palette)) == (200, 100, 50)).all()
    assert (pixels(encoded(palette, transparency=1)) == 255).all()
    plain = Image.new("RGB", (16, 16), (1, 2, 3))
    assert (pixels(encoded(plain, transparency=(1, 2, 3))) == 255).all()


def test_cmyk_jpeg() -> None:
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(pixels(encoded(ink, "JPEG", quality=95)).astype(int) - (0, 255, 255)).max() <= 3


@pytest.mark.parametrize(("kind", "order"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_sixteen_bits_are_divided_by_257(kind: str, order: str) -> None:
    values = np.linspace(0, 65535, 256).reshape(16, 16).round().astype(order)
    image = Image.fromarray(values)
    assert image.mode.startswith("I;16")
    assert np.array_equal(pixels(encoded(image, kind))[..., 0], np.rint(values / 257))


@pytest.mark.parametrize(("most", "top"), [(200, 255), (3000, 4095), (4095, 4095), (4096, 65535)])
def test_the_depth_of_sixteen_bit_files_is_that_of_their_values(most: int, top: int) -> None:
    values = np.linspace(0, most, 256).reshape(16, 16).round().astype(np.uint16)
    raw = encoded(Image.fromarray(values), "PNG")
    result = pixels(raw, ranges=measure([raw]))[..., 0]
    assert np.array_equal(result, np.rint(values / top * 255))


def test_floating_point_images_are_scaled() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    expected = np.rint(ramp * 255)
    for values in (ramp, ramp * 255, ramp * 65535, ramp * 300_000 - 7_000):
        raw = encoded(Image.fromarray(values.astype(np.float32)), "TIFF")
        result = pixels(raw, ranges=measure([raw]))[..., 0]
        assert np.abs(result - expected).max() <= 1
    holes = ramp.copy()
    holes[0, 0] = np.nan
    assert np.array_equal(pixels(encoded(Image.fromarray(holes), "TIFF"))[..., 0], expected)
    assert (pixels(encoded(Image.fromarray(np.zeros((16, 16), np.int32)), "TIFF")) == 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_without_a_finite_value_is_broken(value: float) -> None:
    image = Image.fromarray(np.full((9, 9), value, np.float32))
    assert decode(encoded(image, "TIFF"), 8) == "has no finite value"


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # TIFF 6.0, tag 274: what must be done to what is stored
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", list(UPRIGHT))
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    stored, exif = noise(16, 24), Image.Exif()
    exif[0x0112] = orientation
    result = decode_whole(encoded(stored, kind, exif=exif))
    assert isinstance(result, np.ndarray)
    assert np.array_equal(result.transpose(1, 2, 0), UPRIGHT[orientation](stored))


def test_damaged_exif_is_ignored() -> None:
    image = noise(16, 16)
    assert np.array_equal(pixels(encoded(image, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(9))), image)


def test_animations_give_their_first_frame() -> None:
    assert (pixels(animated_gif(), 8) == (255, 0, 0)).all()


def test_images_are_center_cropped() -> None:
    image = np.zeros((30, 90, 3), np.uint8)
    image[:, :30, 0], image[:, 30:60, 1], image[:, 60:, 2] = 200, 200, 200
    for raw in (encoded(image), encoded(image.swapaxes(0, 1))):
        assert np.abs(pixels(raw, 30).astype(int) - (0, 200, 0)).max() == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_shrinking_does_not_alias(kind: str) -> None:
    checks = ((np.indices((256, 256)).sum(0) % 2) * 255).astype(np.uint8)
    result = pixels(encoded(checks, kind))
    assert np.abs(result.astype(int) - 127.5).max() < 8  # reading single pixels would give 0 or 255


def test_shrinking_agrees_with_the_mean_of_areas() -> None:
    smooth = np.add.outer(np.arange(320), np.arange(320)) // 3
    image = np.repeat(smooth[..., None], 3, 2).astype(np.uint8)
    areas = image.reshape(16, 20, 16, 20, 3).mean((1, 3))
    for kind in ("PNG", "JPEG"):
        inner = np.abs(pixels(encoded(image, kind)) - areas)[1:-1, 1:-1]
        assert inner.max() < 2


def test_jpegs_are_decoded_small() -> None:
    large = encoded(np.repeat(np.repeat(noise(40, 40), 100, 0), 100, 1), "JPEG")
    start = time.perf_counter()
    decode_whole(large)
    whole = time.perf_counter() - start
    start = time.perf_counter()
    pixels(large, 32)
    assert time.perf_counter() - start < whole


@pytest.mark.parametrize("name", list(broken_files()))
def test_broken_bytes_give_a_reason(name: str) -> None:
    content, words = broken_files()[name]
    for result in (decode(content, 16), decode_whole(content)):
        assert isinstance(result, str)
        assert words in result
        assert "\n" not in result


def test_broken_files_give_a_reason(tmp_path: Path) -> None:
    for name, words in write_broken(tmp_path).items():
        result = decode(tmp_path / name, 16)
        assert isinstance(result, str)
        assert words in result


def test_files_that_cannot_be_opened_give_the_reason_of_the_system(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert decode(tmp_path / "file" / "image.png", 16) == "cannot be opened (not a directory)"


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert decode(tmp_path / "pipe.png", 16) == "is a folder, a pipe, a socket or a device, not a file"


def test_decompression_bombs_are_rejected_by_their_header() -> None:
    assert "million" in str(decode(huge_png(13_378, 13_378), 16))  # just above the limit
    assert short_side(huge_png(13_377, 13_377)) == 13_377  # just below
    assert short_side(huge_png()) is None


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]))
def test_damage_never_crashes(seed: int, kind: str) -> None:
    draw = random.Random(seed)
    content = bytearray(encoded(noise(24, 24), kind))
    for _ in range(draw.randrange(1, 8)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    content = content[: draw.randrange(len(content)) if draw.random() < 0.3 else len(content)]
    result = decode(bytes(content), 8)
    assert isinstance(result, str) or result.shape == (3, 8, 8)


def test_the_host_process_keeps_its_filters_and_limits(tmp_path: Path) -> None:
    """Also while other threads decode: they share one list of filters."""
    exif, odd = Image.Exif(), tmp_path / "odd"
    exif[0x0112] = 6
    write_broken(odd)
    (odd / "large.png").write_bytes(huge_png(13_000, 13_000))
    (odd / "exif.jpg").write_bytes(encoded(noise(8, 8), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(9)))
    write_images(odd, 30)
    seen, done = set(), threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.add((tuple(warnings.filters), Image.MAX_IMAGE_PIXELS, warnings.showwarning))

    before = tuple(warnings.filters), Image.MAX_IMAGE_PIXELS, warnings.showwarning
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        open_source(odd, cache=tmp_path / "cache")
        photos(str(odd / "0.png"))
    finally:
        done.set()
        watcher.join()
    assert seen == {before}


def test_a_large_image_is_no_warning(strict: None) -> None:
    image = Image.new("1", (10_000, 9_500))  # more pixels than Pillow warns of, fewer than are refused
    assert isinstance(decode(encoded(image), 16), np.ndarray)


@pytest.fixture
def strict() -> Iterator[None]:
    """A host process in which every warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_where_warnings_are_errors_an_image_that_pillow_warns_of_is_broken(strict: None) -> None:
    no_frames = png(4, 4, 8, 0, zlib.compress(bytes(20)), chunk(b"acTL", bytes(8)))
    assert str(decode(no_frames, 8)).startswith("makes Pillow warn, and warnings are errors in this process (Invalid")


def test_short_side_is_read_from_the_header() -> None:
    jpeg = encoded(noise(40, 72), "JPEG")
    assert short_side(jpeg) == 40
    assert short_side(jpeg[: len(jpeg) // 2]) == 40
    assert short_side(b"nonsense") is None
