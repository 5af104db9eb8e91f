import io

import numpy as np
import pytest
import torch
from PIL import Image

from selftaught.errors import UserError
from selftaught.figures import filter_comparison, image_table, padded, stretched
from selftaught.figures.filters import MARGIN
from selftaught.figures.image_table import LINE


def pixels(figure) -> np.ndarray:
    figure.savefig(buffer := io.BytesIO(), format="png")
    return np.asarray(Image.open(buffer).convert("RGBA"))


def test_every_pixel_of_every_image_is_in_the_figure() -> None:
    levels = torch.randint(256, (2, 3, 3, 20, 30), generator=torch.Generator().manual_seed(0))
    drawn = pixels(image_table(levels / 255, ["a", "b", "c"], []))
    assert drawn.shape == (LINE + 2 * 20 + 2, 3 * 30 + 4, 4)
    for row in range(2):
        for column in range(3):
            top, left = LINE + row * 22, column * 32
            found = drawn[top : top + 20, left : left + 30, :3]
            np.testing.assert_array_equal(found, levels[row, column].permute(1, 2, 0).numpy())


def test_headings_take_space_and_are_drawn_literally() -> None:
    images = torch.zeros(2, 2, 3, 40, 90)
    figure = image_table(images, ["$x_1$", "b"], ["p = 1", "p = 2"], [("", 1), ("trained", 1)])
    drawn = pixels(figure)
    assert drawn.shape[0] == 2 * LINE + 82
    assert drawn.shape[1] > 182 + 20
    shown = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert shown == ["$x_1$", "b", "p = 1", "p = 2", "", "trained"]
    assert drawn[: 2 * LINE, :, 3].any()
    assert drawn[:, :20, 3].any()


def test_a_figure_that_the_report_would_refuse_is_refused() -> None:
    with pytest.raises(UserError, match="too large: draw fewer images or layers"):
        image_table(torch.zeros(90, 1, 3, 96, 96), ["a"], [])


def test_small_images_are_magnified_and_large_ones_shrunk() -> None:
    small = torch.rand(2, 5, 3, 16, 16)
    large = stretched(small, 96)
    assert large.shape == (2, 5, 3, 96, 96)
    assert torch.equal(large[..., ::6, ::6], small)
    ramp = torch.linspace(0, 1, 400).expand(1, 3, 400, 400)
    shrunk = stretched(ramp, 100)
    assert shrunk.shape == (1, 3, 100, 100)
    torch.testing.assert_close(shrunk[0, 0, 50, 50], torch.tensor(0.505), atol=0.01, rtol=0)


def test_images_of_different_sizes_are_centered() -> None:
    first, second = padded([torch.zeros(3, 4, 10), torch.zeros(3, 8, 6)])
    assert first.shape == (3, 8, 10)
    assert (first[:, 2:6] == 0).all()
    assert (first[:, :2] == 1).all()
    assert (second[:, :, 2:8] == 0).all()
    assert (second[:, :, 8:] == 1).all()


def test_filters_of_networks_are_blocks_with_headings() -> None:
    figure = filter_comparison({"one": torch.randn(24, 3, 11, 11), "two": torch.randn(13, 1, 5, 5)})
    assert [text.get_text() for axes in figure.axes for text in axes.texts] == ["one", "two"]
    assert pixels(figure).shape[1] == 2 * (12 * 47 - 2 + 2 * MARGIN) + 2  # 4 x 11 and 9 x 5 pixels, and gutters
    with pytest.raises(UserError, match="filters must be a weight"):
        filter_comparison({"one": torch.randn(4, 5, 3, 3)})
