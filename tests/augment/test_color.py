import colorsys

import pytest
import torch
import torchvision.transforms.v2.functional as TF

from selftaught.augment.color import LUMA, color_matrices, drop_channels, projection, random_color, recolor


@pytest.fixture
def images():
    """Away from black and white, so that torchvision's clamp between the steps does nothing."""
    return 0.3 + 0.3 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def changed(images, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, grey=0.0):
    each = [torch.full((len(images),), value) for value in (brightness, contrast, saturation, hue, grey)]
    return recolor(images, *color_matrices(*each))


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.3])
def test_each_change_agrees_with_torchvision(images, factor):
    for name in ("brightness", "contrast", "saturation"):
        theirs = getattr(TF, f"adjust_{name}")(images, factor)
        torch.testing.assert_close(changed(images, **{name: factor}), theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(changed(images, grey=1.0), TF.rgb_to_grayscale(images, 3), atol=1e-5, rtol=0)


def test_a_chain_agrees_with_torchvision(images):
    theirs = TF.adjust_saturation(TF.adjust_contrast(TF.adjust_brightness(images, 1.1), 0.8), 0.7)
    ours = changed(images, brightness=1.1, contrast=0.8, saturation=0.7)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("hue", [-0.1, 0.05, 0.1])
def test_hue_preserves_luma_and_rotates_about_as_far_as_in_hsv(images, hue):
    turned = changed(images, hue=hue)
    torch.testing.assert_close((turned.movedim(1, -1) @ LUMA), images.movedim(1, -1) @ LUMA, atol=2e-3, rtol=0)
    red = torch.tensor([0.7, 0.3, 0.3])[None, :, None, None]
    got = colorsys.rgb_to_hsv(*changed(red, hue=hue).flatten().tolist())[0]
    assert abs((got - hue + 0.5) % 1 - 0.5) < 0.05
    grey = torch.full((1, 3, 2, 2), 0.4)
    torch.testing.assert_close(changed(grey, hue=hue), grey, atol=2e-3, rtol=0)


def test_random_factors_have_the_requested_range_and_can_be_disabled(images):
    generator = torch.Generator().manual_seed(0)
    linear, of_mean = random_color(4, generator, brightness=0, contrast=0, saturation=0, hue=0)
    torch.testing.assert_close(recolor(images, linear, of_mean), images, atol=1e-5, rtol=0)
    linear, of_mean = random_color(20_000, generator, brightness=0.4, contrast=0, saturation=0, hue=0, probability=0.5)
    factor = linear[:, 0].sum(1)
    unchanged = ((factor - 1).abs() < 1e-5).float().mean()
    assert abs(unchanged - 0.5) < 4 * 0.5 / 20_000**0.5  # half unchanged ...
    assert 0.6 - 1e-5 <= factor.min() < 0.62  # ... and the others as far as 0.4 to either side
    assert 1.38 < factor.max() <= 1.4 + 1e-5
    assert not of_mean.any()


def test_projection_removes_the_green_magenta_component_only(images):
    axis = torch.tensor([-1.0, 2.0, -1.0])
    projected = recolor(images, *projection(torch.ones(4)))
    along = torch.einsum("c,bchw->bhw", axis, projected)
    torch.testing.assert_close(along, torch.zeros_like(along), atol=1e-5, rtol=0)
    taken = images - projected  # lies along the axis: red and blue alike, green twice and opposite
    torch.testing.assert_close(taken[:, 0], taken[:, 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(taken[:, 1], -2 * taken[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(recolor(projected, *projection(torch.ones(4))), projected, atol=1e-5, rtol=0)
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(recolor(grey, *projection(torch.ones(4))), grey, atol=1e-5, rtol=0)
    assert torch.equal(recolor(images, *projection(torch.zeros(4))), images)


def test_dropped_channels_become_noise_and_the_kept_one_is_unchanged(images):
    kept, noise = torch.tensor([0, 2, 1, 2]), torch.rand(4, 3, 8, 8)
    dropped = drop_channels(images, kept, noise)
    for image in range(4):
        for channel in range(3):
            expected = images if channel == kept[image] else noise
            assert torch.equal(dropped[image, channel], expected[image, channel])
