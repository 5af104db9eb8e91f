"""The encoder `scattering` against kymatio, and against invariances that scattering has by construction."""

import pytest
import torch

from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from selftaught.evaluation.baselines.encoders import calibrate

pytest.importorskip("kymatio")


def test_layers_are_kymatios_coefficients_each_standardized():
    from kymatio import Scattering2D

    encoder = make_encoder("scattering", size=16, orientations=4)
    inputs = encoder.preprocess(torch.rand(6, 3, 16, 16))
    reference = Scattering2D(J=2, shape=(16, 16), L=4, frontend="torch")(inputs)  # (B, 3, 1 + 8 + 16, 4, 4)
    found = encoder.train().features(inputs)
    for name, orders in (("order1", 9), ("order2", 25)):
        expected = reference[:, :, :orders].flatten(1, 2)
        mean, variance = expected.mean((0, 2, 3), keepdim=True), expected.var((0, 2, 3), keepdim=True, correction=0)
        torch.testing.assert_close(found[name], (expected - mean) / (variance + 1e-5).sqrt(), atol=1e-4, rtol=1e-3)


def test_it_has_no_parameters_and_its_weights_do_not_contain_filters():
    encoder = make_encoder("scattering", size=32)
    encoder(torch.rand(2, 3, 32, 32))
    assert list(encoder.parameters()) == []
    assert all(name.startswith("norms.") for name in encoder.state_dict())
    assert [layer.channels for layer in encoder.layers.values()] == [51, 243]
    assert [layer.stride for layer in make_encoder("scattering", size=64).layers.values()] == [8, 8]


def test_coefficients_but_of_order_0_do_not_change_with_brightness():
    encoder = make_encoder("scattering", size=16, orientations=2).eval()
    images = 0.5 * torch.rand(2, 3, 16, 16)
    dark, bright = (
        encoder.features(encoder.preprocess(x))["order2"].unflatten(1, (3, -1)) for x in (images, images + 0.3)
    )
    torch.testing.assert_close(dark[:, :, 1:], bright[:, :, 1:], atol=1e-4, rtol=1e-3)
    assert (bright - dark)[:, :, 0].min() > 0.5


def test_statistics_are_those_of_the_images():
    from probe_toys import noise

    encoder = make_encoder("scattering", size=16, orientations=2)
    source = noise(40, seed=0, side=16)
    assert calibrate(encoder, source, 16, torch.device("cpu"))
    features = encoder.features(encoder.preprocess(source.images))["order2"]
    torch.testing.assert_close(features.mean((0, 2, 3)), torch.zeros(features.shape[1]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("options", [{"scales": 0}, {"scales": 5}, {"orientations": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match="scattering expects"):
        make_encoder("scattering", size=16, **options)
