"""Random views: each transformation against an independent formula, and what is drawn."""

import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from selftaught.augment.multicrop import MultiCrop
from selftaught.augment.views import ViewAugmentation, byol_augmentations, gaussian_blur, two_views
from selftaught.errors import UserError
from toys import ToySource

CPU = torch.device("cpu")
OFF = ViewAugmentation(
    crop_area=(1.0, 1.0), flip=0.0, jitter=(0.0, 0.0, 0.0, 0.0), grayscale=0.0, blur=0.0, solarize=0.0
)


def batch(count=6):
    return ToySource(count).batch(torch.arange(count), CPU)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_without_augmentation_a_view_equals_the_image():
    images = batch()
    views = OFF.views(images, 16, seeded(), copies=2)
    expected = images.pictures["image"].clamp(0, 1).repeat_interleave(2, 0)
    torch.testing.assert_close(views, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.6, 1.0, 1.7])
def test_blur_agrees_with_torchvision_inside_the_image(sigma):
    images = torch.rand(2, 3, 24, 24, generator=seeded())
    ours = gaussian_blur(images, torch.full((2,), sigma))
    theirs = tv.gaussian_blur(images, kernel_size=[23, 23], sigma=[sigma, sigma])
    inside = slice(8, 16)  # torchvision reflects without repeating the outermost pixel, so borders differ
    torch.testing.assert_close(ours[..., inside, inside], theirs[..., inside, inside], atol=2e-5, rtol=0)


def test_blur_keeps_constant_images_and_uses_one_sigma_per_image():
    constant = torch.full((1, 3, 9, 9), 0.3)
    torch.testing.assert_close(gaussian_blur(constant, torch.tensor([3.0])), constant)
    images = torch.rand(1, 3, 16, 16, generator=seeded()).repeat(2, 1, 1, 1)
    blurred = gaussian_blur(images, torch.tensor([1e-2, 2.0]))
    torch.testing.assert_close(blurred[0], images[0])
    assert blurred[1].std() < 0.5 * images[1].std()


def test_solarization_inverts_values_above_one_half():
    images = batch()
    plain = images.pictures["image"].clamp(0, 1)
    views = ViewAugmentation(**{**vars(OFF), "solarize": 1.0}).views(images, 16, seeded())
    torch.testing.assert_close(views, torch.where(plain < 0.5, plain, 1 - plain), atol=1e-6, rtol=0)


def test_grayscale_views_have_equal_channels():
    views = ViewAugmentation(**{**vars(OFF), "grayscale": 1.0}).views(batch(), 16, seeded())
    torch.testing.assert_close(views, views[:, :1].expand_as(views), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["blur", "solarize", "grayscale"])
def test_augmentations_have_their_probabilities(name):
    source = ToySource(400)
    images = source.batch(torch.arange(400), CPU)
    changes = {"blur_sigma": (0.1, 0.2)} if name == "blur" else {}
    views = ViewAugmentation(**{**vars(OFF), name: 0.3, **changes}).views(images, 16, seeded())
    changed = ((views - images.pictures["image"].clamp(0, 1)).abs().amax((1, 2, 3)) > 1e-3).float().mean()
    assert abs(float(changed) - 0.3) < 4 * (0.3 * 0.7 / 400) ** 0.5


def test_views_of_an_image_are_adjacent_and_differ():
    images = batch(4)
    views = two_views(images, 16, seeded())
    assert views.shape == (8, 3, 16, 16)
    assert not torch.equal(views[0], views[1])
    # With the geometry alone, both views of an image contain its colors: their means are closer than others' are.
    plain = ViewAugmentation(**{**vars(OFF), "crop_area": (0.9, 1.0)})
    pairs = two_views(images, 16, seeded(), plain).mean((2, 3)).reshape(4, 2, 3)
    apart = torch.cdist(pairs[:, 0], pairs[:, 1])
    assert (apart.argmin(1) == torch.arange(4)).float().mean() >= 0.75


def test_byol_pair_and_multi_crop_shapes():
    first, second = byol_augmentations(ViewAugmentation())
    assert (first.blur, first.solarize, second.blur, second.solarize) == (1.0, 0.0, 0.1, 0.2)
    views = MultiCrop(ViewAugmentation(), 16, (0.1, 0.3), local_views=3).views(batch(), seeded(), (first, second))
    assert {name: view.shape for name, view in views.items()} == {"global": (12, 3, 16, 16), "local": (18, 3, 8, 8)}


def test_global_views_do_not_depend_on_local_ones():
    """Global views are those of `two_views`; local ones are drawn after them."""
    crops = MultiCrop(OFF, 16, (0.1, 0.3), local_views=2)
    views = crops.views(batch(), seeded())
    assert torch.equal(views["global"], two_views(batch(), 16, seeded(), OFF, OFF))
    assert crops.sizes() == {"view": 16, "local view": 8}
    alone = MultiCrop(OFF, 16, (0.1, 0.3), local_views=0)
    assert alone.sizes() == {"view": 16}
    assert list(alone.views(batch(), seeded())) == ["global"]


def test_views_depend_on_the_generator_only():
    torch.manual_seed(1)
    one = two_views(batch(), 12, seeded(5), *byol_augmentations(ViewAugmentation()))
    torch.manual_seed(2)
    again = two_views(batch(), 12, seeded(5), *byol_augmentations(ViewAugmentation()))
    assert torch.equal(one, again)
    assert one.min() >= 0
    assert one.max() <= 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"crop_area": (0.0, 1.0)}, "crop-area"),
        ({"blur": 1.5}, "--blur must be from 0 to 1, got 1.5"),
        ({"blur_sigma": (0.2, 0.1)}, "--blur-sigma"),
        ({"jitter": (2.0, 0.0, 0.0, 0.0)}, "jitter"),
    ],
)
def test_invalid_settings_are_rejected(wrong, words):
    with pytest.raises(UserError, match=words):
        ViewAugmentation(**wrong)
