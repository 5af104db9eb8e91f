import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from selftaught.errors import UserError
from selftaught.figures import grid, save_png


def images(count: int, side: int = 4) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(0)) / 255


def test_save_png_keeps_every_pixel_on_a_transparent_background(tmp_path: Path) -> None:
    given = images(7)
    save_png(given, tmp_path / "new" / "views.png", columns=3)
    found = np.asarray(Image.open(tmp_path / "new" / "views.png"))
    assert found.shape == (3 * 4 + 2 * 2, 3 * 4 + 2 * 2, 4)
    covered = np.zeros(found.shape[:2], dtype=bool)
    for number, image in enumerate(given):
        top, left = number // 3 * 6, number % 3 * 6
        expected = (image * 255).round().permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(found[top : top + 4, left : left + 4, :3], expected)
        covered[top : top + 4, left : left + 4] = True
    np.testing.assert_array_equal(found[..., 3], np.where(covered, 255, 0))


def test_saved_figures_equal_the_grid_pixel_for_pixel() -> None:
    given = images(6, side=96)
    written = io.BytesIO()
    grid(given, columns=3).savefig(written, format="png")
    found = np.asarray(Image.open(written))
    assert found.shape == (2 * 96 + 2, 3 * 96 + 4, 4)
    expected = (given[4] * 255).round().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found[98:194, 98:194, :3], expected)


def test_small_images_are_magnified_by_an_integer() -> None:
    given = images(1, side=32)
    shown = grid(given).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shown[::3, ::3, :3], (given[0] * 255).round().permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(shown[0::3], shown[2::3])


def test_values_outside_the_range_are_clipped_and_nan_is_black() -> None:
    given = torch.tensor([2.0, -1.0, float("nan"), float("inf")])[None, None, None, :].expand(1, 3, 4, 4)
    shown = grid(given, side=4).axes[0].images[0].get_array()
    assert shown[0, :, 0].tolist() == [255, 0, 0, 255]


def test_captions_are_below_their_images_in_order() -> None:
    axes = grid(images(5, side=96), columns=2, captions=["a", "b", "$c", "d", "e"]).axes[0]
    places = [text.get_position() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == ["a", "b", "$c", "d", "e"]
    assert [x for x, _ in places] == [48, 146, 48, 146, 48]
    shown = np.asarray(axes.images[0].get_array())
    for x, y in places:
        assert shown[int(y) - 4, int(x), 3] == 255  # the image just above
        assert shown[int(y), int(x), 3] == 0  # the caption itself on clear ground


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (0, 3, 8, 8)])
def test_other_shapes_than_color_images_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"shape \(n, 3, H, W\)"):
        grid(torch.zeros(shape))


def test_wrong_number_of_captions_is_rejected() -> None:
    with pytest.raises(UserError, match="got 1 for 2"):
        grid(images(2), captions=["only"])


@pytest.mark.parametrize(("wide", "columns"), [(4, 8), (8, 4), (12, 3), (100, 1)])
def test_a_row_has_the_width_of_eight_square_images(tmp_path: Path, wide: int, columns: int) -> None:
    save_png(torch.zeros(10, 3, 4, wide), tmp_path / "views.png")
    with Image.open(tmp_path / "views.png") as found:
        assert found.width == columns * (wide + 2) - 2
