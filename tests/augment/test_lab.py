import pytest
import torch

from selftaught.augment.lab import gamut, lab_to_rgb, rgb_to_lab, rgb_to_lightness


def every_color(step: int = 15, red: int | None = None) -> torch.Tensor:
    """(1, 3, n, 1): a lattice over all of sRGB, corners included, or over those with one red."""
    levels = torch.arange(0, 256, step) / 255
    reds = levels if red is None else torch.tensor([red / 255])
    return torch.cartesian_prod(reds, levels, levels).T.reshape(1, 3, -1, 1)


def test_lab_agrees_with_scikit_image():
    color = pytest.importorskip("skimage.color")
    images = every_color()
    expected = torch.from_numpy(color.rgb2lab(images[0, :, :, 0].T.double().numpy())).T
    found = rgb_to_lab(images)[0, :, :, 0].double()
    torch.testing.assert_close(found[0], expected[0], atol=5e-4, rtol=0)
    torch.testing.assert_close(found[1:], expected[1:], atol=0.01, rtol=0)  # their white is rounded


def test_lab_to_rgb_agrees_with_scikit_image():
    color = pytest.importorskip("skimage.color")
    lab = torch.tensor([[50.0, 20, -30], [80, -40, 60], [20, 5, 5], [5, 1, -2], [95, -3, 2]])
    expected = torch.from_numpy(color.lab2rgb(lab.double().numpy())).T
    torch.testing.assert_close(lab_to_rgb(lab.T[:, :, None])[:, :, 0].double(), expected, atol=1e-3, rtol=0)


def test_lab_round_trip_restores_the_image():
    images = every_color()
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(images)), images, atol=1e-4, rtol=0)


def test_grey_has_no_color():
    grey = torch.linspace(0, 1, 256).expand(3, 1, 256)
    lightness, a, b = rgb_to_lab(grey)
    assert torch.stack([a, b]).abs().max() < 1e-3
    assert (lightness.diff() > 0).all()
    torch.testing.assert_close(lightness[0, [0, -1]], torch.tensor([0.0, 100.0]), atol=1e-4, rtol=0)


def test_lightness_alone_is_the_first_of_lab():
    images = every_color(51).expand(2, -1, -1, -1)
    assert torch.equal(rgb_to_lightness(images), rgb_to_lab(images)[:, :1])


def test_colors_outside_of_srgb_are_clipped_to_the_nearest():
    shown = lab_to_rgb(torch.tensor([50.0, 120, -120]).view(3, 1, 1))
    assert shown.min() >= 0
    assert shown.max() <= 1


@pytest.mark.parametrize("convert", [rgb_to_lab, rgb_to_lightness])
@pytest.mark.parametrize("value", [0.0, 0.04045, 0.5, 1.0])
def test_gradients_are_finite_everywhere(convert, value):
    flat = torch.full((3, 2, 2), value, requires_grad=True)
    convert(flat).square().sum().backward()
    assert flat.grad.isfinite().all()


def test_lab_to_rgb_has_finite_gradients_at_black_and_white():
    lab = torch.tensor([[0.0, 0, 0], [100, 0, 0]]).T[:, :, None].requires_grad_()
    lab_to_rgb(lab).sum().backward()
    assert lab.grad.isfinite().all()


def test_autocast_keeps_full_precision():
    images = every_color(85)
    with torch.autocast("cpu", torch.bfloat16):
        found = lab_to_rgb(rgb_to_lab(images))
    assert torch.equal(found, lab_to_rgb(rgb_to_lab(images)))


def cells(images: torch.Tensor) -> set[tuple[float, float]]:
    """The cells of 10 x 10 that the colours of (1, 3, n, 1) fall into."""
    return set(map(tuple, (rgb_to_lab(images)[0, 1:, :, 0] / 10).round().mul(10).T.tolist()))


def test_gamut_contains_the_cells_of_random_colors():
    centers = set(map(tuple, gamut().tolist()))
    assert len(centers) == len(gamut()) == 261
    assert cells(every_color(5)) <= centers
    assert all(a == 10 * round(a / 10) and b == 10 * round(b / 10) for a, b in centers)
    assert (0, 0) in centers
    assert len(gamut(20)) < 261 / 2


@pytest.mark.slow
def test_gamut_equals_brute_force():
    found = set()
    for red in range(256):
        plane = every_color(1, red)
        found |= cells(plane)
    assert found == set(map(tuple, gamut().tolist()))
