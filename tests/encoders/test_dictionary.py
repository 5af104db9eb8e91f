"""The encoder `dictionary` against Coates and Ng, written out for one patch at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from probe_toys import Given
from selftaught.encoders import make_encoder
from selftaught.encoders.dictionary import Dictionary
from selftaught.errors import UserError


def photos(count: int = 40, side: int = 16) -> Given:
    """Smooth images with noise: pixels are correlated, as in photos."""
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(count, 3, 4, 4, generator=generator), size=side, mode="bilinear")
    return Given(0.8 * smooth + 0.2 * torch.rand(count, 3, side, side, generator=generator), torch.arange(count) % 2)


def raw(encoder: Dictionary, images: torch.Tensor) -> torch.Tensor:
    """Features before they are standardized."""
    encoder.norm.eps = 0  # initial statistics: mean 0 and variance 1
    return encoder.eval().features(images)["codes"]


def test_codes_are_thresholded_responses_of_normalized_patches():
    encoder = Dictionary(size=12, filters=5, patch=4, threshold=0.3)
    encoder.offsets.copy_(torch.linspace(-0.5, 0.5, 5))
    encoder.kernels.sub_(encoder.kernels.mean((1, 2, 3), keepdim=True))
    images = torch.randn(2, 3, 12, 12)
    found = raw(encoder, images)
    assert found.shape == (2, 10, 3, 3)  # nine positions in blocks of four, the last of one
    sums, counts = np.zeros(found.shape), np.zeros(found.shape)
    for image in range(2):
        for top in range(9):
            for left in range(9):
                patch = images[image, :, top : top + 4, left : left + 4].numpy().astype(float)
                patch = (patch - patch.mean()) / np.sqrt(patch.var() + 0.0025)
                for k in range(5):
                    response = (encoder.kernels[k].numpy() * patch).sum() + encoder.offsets[k].item()
                    place = (image, k, top // 4, left // 4), (image, 5 + k, top // 4, left // 4)
                    for at, sign in zip(place, (1, -1), strict=True):
                        sums[at] += max(0, sign * response - 0.3)
                        counts[at] += 1
    np.testing.assert_allclose(found.numpy(), sums / counts, atol=1e-5)


def test_filters_are_whitened_unit_centroids():
    source, encoder = photos(), Dictionary(size=16, filters=12, patch=3)
    encoder.fit(source)
    patches = encoder._sample(source, torch.Generator().manual_seed(0)).numpy().astype(float)
    patches = patches - patches.mean(1, keepdims=True)
    patches /= np.sqrt((patches**2).mean(1, keepdims=True) + 0.0025)
    center = patches.mean(0)
    variances, directions = np.linalg.eigh(np.cov(patches.T, bias=True))
    whitening = directions @ np.diag((variances + 0.1) ** -0.5) @ directions.T
    # A kernel is a centroid times the whitening, minus its mean, to which no centered patch responds.
    centering = np.eye(27) - np.full((27, 27), 1 / 27)
    centroids = encoder.kernels.flatten(1).numpy() @ np.linalg.inv(whitening) @ centering
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(encoder.offsets.numpy(), -(centroids @ whitening) @ center, atol=1e-3)
    points = (patches - center) @ whitening
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    drawn = points[np.random.default_rng(0).choice(len(points), 12)]
    assert (points @ centroids.T).max(1).mean() > (points @ drawn.T).max(1).mean() + 0.02


def test_codes_do_not_depend_on_brightness_and_hardly_on_contrast():
    encoder = Dictionary(size=16, filters=6)
    encoder.kernels.sub_(encoder.kernels.mean((1, 2, 3), keepdim=True))
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(raw(encoder, images + 3), raw(encoder, images), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(raw(encoder, 2 * images), raw(encoder, images), atol=5e-3, rtol=5e-3)
    assert not raw(encoder, images.flip(3)).allclose(raw(encoder, images), atol=0.1)


def test_filters_are_those_of_the_images_whatever_the_seed():
    first, second, other = (Dictionary(size=16, filters=6) for _ in range(3))
    torch.manual_seed(1)
    first.fit(photos())
    torch.manual_seed(2)
    second.fit(photos())
    other.fit(Given(1 - photos().images.flip(3), torch.zeros(40, dtype=torch.int64)))
    assert first.kernels.equal(second.kernels)
    assert first.offsets.equal(second.offsets)
    assert not first.kernels.allclose(other.kernels, atol=0.01)


def test_images_without_any_contrast_are_no_error():
    encoder = Dictionary(size=16, filters=6)
    encoder.fit(Given(torch.full((4, 3, 16, 16), 0.5), torch.arange(4)))
    assert encoder.eval()(torch.rand(2, 3, 16, 16)).isfinite().all()


def test_bf16_changes_nothing():
    encoder = Dictionary(size=16, filters=6).eval()
    images = torch.rand(2, 3, 16, 16)
    expected = encoder(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(images).equal(expected)


@pytest.mark.parametrize("options", [{"filters": 0}, {"patch": 1}, {"patch": 17}, {"threshold": -1.0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match="dictionary"):
        make_encoder("dictionary", size=16, **options)
