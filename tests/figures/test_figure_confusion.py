"""The confusion matrix: order of rows, columns and labels, normalization and contrast."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from selftaught.figures import confusion, svg
from selftaught.figures.confusion import OPACITY
from selftaught.figures.style import DARK, INK, SERIES

COUNTS = [[3, 1, 0], [0, 0, 0], [8, 0, 2]]


def test_cells_are_fractions_of_the_true_class() -> None:
    axes = confusion(COUNTS, ["a", "b", "c"]).axes[0]
    cells = {(cell.get_y() + 0.5, cell.get_x() + 0.5): cell.get_alpha() / OPACITY for cell in axes.patches}
    assert cells == {(0, 0): 0.75, (0, 1): 0.25, (2, 0): pytest.approx(0.8), (2, 2): pytest.approx(0.2)}
    numbers = {text.get_position(): text.get_text() for text in axes.texts}
    assert numbers == {(0, 0): "75", (1, 0): "25", (0, 2): "80", (2, 2): "20"}


def test_pixels_and_labels_are_in_the_same_order() -> None:
    figure = confusion([[10, 0, 0], [10, 0, 0], [0, 0, 10]], ["first", "$second$", "third"])
    figure.set_facecolor("white")
    axes, canvas = figure.axes[0], FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    labels = {
        side: {text.get_text(): text.get_window_extent().get_points().mean(0)[way] for text in ticks}
        for side, ticks, way in (("true", axes.get_yticklabels(), 1), ("predicted", axes.get_xticklabels(), 0))
    }
    inset = 0.35 * axes.bbox.width / 3  # beside the number in the middle of the cell

    def color(true: str, predicted: str) -> np.ndarray:
        across, up = labels["predicted"][predicted] - inset, labels["true"][true] + inset
        return pixels[round(len(pixels) - up), round(across)]

    def mixed(name: str) -> np.ndarray:
        return OPACITY * np.array(to_rgb(name)) + 1 - OPACITY

    np.testing.assert_allclose(color("first", "first"), mixed(SERIES[0]), atol=0.01)
    np.testing.assert_allclose(color("third", "third"), mixed(SERIES[0]), atol=0.01)
    np.testing.assert_allclose(color("$second$", "first"), mixed(SERIES[1]), atol=0.01)
    np.testing.assert_allclose(color("first", "$second$"), 1)


@pytest.mark.parametrize("background", ["#ffffff", "#14181d"])
@pytest.mark.parametrize("color", SERIES[:2])
def test_numbers_have_enough_contrast_on_full_cells(background: str, color: str) -> None:
    def luminance(rgb: np.ndarray) -> float:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    dark = background != "#ffffff"
    text, fill = (np.array(to_rgb(DARK[each] if dark else each)) for each in (INK, color))
    cell = OPACITY * fill + (1 - OPACITY) * np.array(to_rgb(background))
    low, high = sorted([luminance(text), luminance(cell)])
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_many_classes_have_no_numbers_and_one_class_is_drawn() -> None:
    many = confusion(np.eye(30, dtype=int).tolist(), [f"class {number}" for number in range(30)])
    assert not many.axes[0].texts
    assert len(many.axes[0].patches) == 30
    assert "true class" in svg(confusion([[3]], ["only"]))
