import re
import xml.etree.ElementTree as ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from selftaught.figures import svg
from selftaught.figures.style import DARK, INK, MUTED, SERIES, End, chart, label_ends, series, shown_name, spaced


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("color", [INK, MUTED, *SERIES])
def test_text_contrast_is_sufficient_in_light_and_dark_mode(color: str) -> None:
    def contrast(first: str, second: str) -> float:
        low, high = sorted((luminance(first), luminance(second)))
        return (high + 0.05) / (low + 0.05)

    assert contrast(color, "#ffffff") >= 4.5  # WCAG AA for small text
    assert contrast(DARK[color], "#14181d") >= 4.5


# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "normal": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


@pytest.mark.parametrize("matrix", BLINDNESS.values(), ids=BLINDNESS.keys())
@pytest.mark.parametrize("palette", [SERIES, tuple(DARK[color] for color in SERIES)], ids=["light", "dark"])
def test_colors_are_distinguishable_with_color_blindness(matrix: list[list[float]], palette: tuple[str, ...]) -> None:
    color = pytest.importorskip("skimage.color")
    encoded = np.array([[int(name[place : place + 2], 16) / 255 for place in (1, 3, 5)] for name in palette])
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(matrix).T, 0, 1)
    again = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = color.rgb2lab(again[None])[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)]
    assert apart.min() > 20  # a difference of 2.3 is just noticeable


def test_series_beyond_the_palette_have_other_markers() -> None:
    pairs = [series(number) for number in range(36)]
    assert len(set(pairs)) == 36
    assert pairs[6][0] == pairs[0][0]


def test_spaced_moves_labels_as_little_as_possible() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic").isotonic_regression
    generator = np.random.default_rng(0)
    for size in (1, 2, 5, 9):
        heights = np.sort(generator.random(size))
        expected = isotonic(heights - 0.1 * np.arange(size)) + 0.1 * np.arange(size)
        found = spaced(heights.tolist(), 0.1)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert (np.diff(found) >= 0.1 - 1e-12).all()


def test_distant_labels_are_not_moved() -> None:
    _, axes = chart("steps", "loss", ["high", "low"])
    axes.set_ylim(0, 2)
    label_ends(axes, [End(1.5, "high", INK), End(0.5, "low", MUTED)])
    placed = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert placed == pytest.approx({"high": 0.75, "low": 0.25})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("short", "short"),
        ("a\nb\x00", "a?b?"),
        ("rotation-with-a-very-long-name-0.1", "rotation-w…ng-name-0.1"),
    ],
)
def test_shown_name_shortens_and_escapes_names(name: str, shown: str) -> None:
    assert shown_name(name) == shown
    assert len(shown) <= 22


def named(name: str) -> Figure:
    figure, axes = chart("training steps", name)
    axes.plot([0, 1], [0, 1], marker="o")
    label_ends(axes, [End(0.5, name, INK)])
    return figure


@pytest.mark.filterwarnings("ignore:Glyph")  # whether matplotlib's warnings are shown is up to the host process
@pytest.mark.parametrize("name", ["loss", "<script>alert(1)</script>", "$\\frac{1$", "회전 학습", "a & b"])
def test_svg_is_valid_for_any_run_name(name: str) -> None:
    tree = ElementTree.fromstring(svg(named(name)))
    assert name in [element.text for element in tree.iter("{http://www.w3.org/2000/svg}text")]


def test_svg_is_deterministic_anonymous_and_restores_settings() -> None:
    before = dict(mpl.rcParams)
    first, second = svg(named("loss"), "a"), svg(named("loss"), "a")
    assert first == second
    assert "matplotlib" not in first.lower()
    assert "date" not in first.lower()
    assert not re.search(r"font:", first)  # the page's own font, not one that the reader may lack
    assert dict(mpl.rcParams) == before


def test_charts_on_one_page_have_distinct_ids() -> None:
    def identifiers(text: str) -> set[str]:
        return set(re.findall(r'\bid="([^"]+)"', text))

    first, second = identifiers(svg(named("loss"), "a")), identifiers(svg(named("loss"), "b"))
    assert first
    assert not first & second
