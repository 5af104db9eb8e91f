import pytest
import torch
from torch.nn.functional import conv2d
from torchvision.transforms.v2.functional import normalize

from selftaught.encoders.preprocess import IMAGENET_MEAN, IMAGENET_STD, PREPROCESSORS, make_preprocess
from selftaught.errors import UserError


@pytest.fixture
def images():
    return torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def test_color_mode_equals_torchvision_normalization(images):
    torch.testing.assert_close(make_preprocess("color")(images), normalize(images, IMAGENET_MEAN, IMAGENET_STD))


def test_lightness_agrees_with_scikit_image():
    color = pytest.importorskip("skimage.color")
    steps = torch.arange(0, 256, 15) / 255  # 18 levels of each channel, black and white among them
    every = torch.cartesian_prod(steps, steps, steps)
    expected = torch.from_numpy(color.rgb2lab(every.double().numpy()))[:, 0] / 50 - 1
    found = make_preprocess("lightness")(every.T.reshape(1, 3, -1, 1)).flatten()
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=0)


def test_lightness_is_linear_near_black():
    dark = torch.tensor([0.0, 1 / 255, 2 / 255]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    found = make_preprocess("lightness")(dark).flatten()
    torch.testing.assert_close(found[2] - found[1], found[1] - found[0])
    assert found[0] == -1


@pytest.mark.parametrize("input_mode", PREPROCESSORS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_gradients_are_finite_for_all_colors(input_mode, value):
    flat = torch.full((1, 3, 4, 4), value, requires_grad=True)
    make_preprocess(input_mode)(flat).square().sum().backward()
    assert flat.grad.isfinite().all()


def test_grayscale_mode_equals_deepclusters_first_layer(images):
    normalised = normalize(images, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(
        make_preprocess("grayscale")(images), conv2d(normalised, torch.full((1, 3, 1, 1), 1 / 3))
    )


def test_edges_of_a_ramp_are_eight_times_its_slope():
    right, down = 0.01, -0.02  # per pixel, in every channel; gray is divided by the deviations, one third each
    x, y = torch.arange(12.0), torch.arange(10.0)[:, None]
    ramp = (0.5 + right * x + down * y).expand(1, 3, 10, 12)
    scale = 8 * sum(1 / s for s in IMAGENET_STD) / 3
    found = make_preprocess("sobel")(ramp)
    torch.testing.assert_close(found[0, 0, :, 1:-1], torch.full((10, 10), right * scale), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0, 1, 1:-1], torch.full((8, 12), down * scale), atol=1e-5, rtol=0)
    # mirrored about the outermost pixel: no slope across the border
    torch.testing.assert_close(found[0, 0, :, [0, -1]], torch.zeros(10, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[0, 1, [0, -1]], torch.zeros(2, 12), atol=1e-5, rtol=0)


def test_sobel_agrees_with_scipy(images):
    ndimage = pytest.importorskip("scipy.ndimage")
    gray = make_preprocess("grayscale")(images)[:, 0].numpy()
    expected = [[torch.from_numpy(ndimage.sobel(one, axis, mode="mirror")) for axis in (1, 0)] for one in gray]
    found = make_preprocess("sobel")(images)
    torch.testing.assert_close(found, torch.stack([torch.stack(pair) for pair in expected]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("input_mode", PREPROCESSORS)
def test_autocast_keeps_full_precision(input_mode, images):
    preprocess = make_preprocess(input_mode)
    with torch.autocast("cpu", torch.bfloat16):
        found = preprocess(images)
    assert found.dtype == torch.float32
    assert torch.equal(found, preprocess(images))


@pytest.mark.parametrize("input_mode", PREPROCESSORS)
def test_input_modes_declare_channels_and_have_no_state(input_mode, images):
    preprocess = make_preprocess(input_mode)
    assert preprocess(images).shape == (4, preprocess.channels, 9, 7)
    assert not preprocess.state_dict()
    assert not list(preprocess.parameters())


def test_unknown_input_mode_suggests_a_similar_one():
    with pytest.raises(UserError, match=r"no input mode called 'colour': did you mean color\?"):
        make_preprocess("colour")
