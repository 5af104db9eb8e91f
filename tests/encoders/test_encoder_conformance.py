"""What every encoder must hold, whatever it is: a new one is tested by being named here."""

from collections.abc import Callable

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from selftaught.contracts import Encoder, pooled
from selftaught.encoders.alexnet import AlexNet
from selftaught.encoders.convnet import ConvNet
from selftaught.encoders.dictionary import Dictionary
from selftaught.encoders.gpt import GPT
from selftaught.encoders.hybrid import Hybrid
from selftaught.encoders.nin import NIN
from selftaught.encoders.pixels import Pixels
from selftaught.encoders.preprocess import PREPROCESSORS
from selftaught.encoders.scattering import Scattering
from selftaught.encoders.timm import Timm
from selftaught.encoders.vit import ViT

ENCODERS: dict[str, tuple[Callable[..., Encoder], int]] = {
    "convnet": (ConvNet, 32),
    "convnet-64": (ConvNet, 64),
    "convnet-128": (ConvNet, 128),
    "nin": (NIN, 32),
    "alexnet-small": (AlexNet, 64),
    "alexnet-large": (AlexNet, 128),
    "gpt-causal": (lambda **o: GPT(width=64, **o), 16),
    "gpt-all-around": (lambda **o: GPT(width=64, causal=False, norm="rms", **o), 16),
    "dictionary": (lambda **o: Dictionary(filters=8, **o), 32),
    "dictionary-64": (lambda **o: Dictionary(filters=70, patch=4, **o), 64),
    "hybrid": (lambda **o: Hybrid(filters=8, width=12, **o), 32),
    "hybrid-64": (lambda **o: Hybrid(filters=8, width=12, **o), 64),
    "scattering": (Scattering, 32),
    "scattering-64": (lambda **o: Scattering(orientations=2, **o), 64),
    "pixels": (Pixels, 32),
    "vit": (lambda **o: ViT(depth=2, width=32, heads=2, **o), 32),
    "timm-resnet": (lambda **o: Timm(name="test_resnet", **o), 64),
    "timm-resnet18-small": (lambda **o: Timm(name="resnet18", **o), 32),
    "timm-convnext": (lambda **o: Timm(name="test_convnext", **o), 64),
    "timm-vit": (lambda **o: Timm(name="test_vit", **o), 64),
}


@pytest.fixture(params=ENCODERS)
def case(request) -> tuple[Encoder, Tensor]:
    """An encoder with nothing at zero, as after a while of training, and four images."""
    make, size = ENCODERS[request.param]
    torch.manual_seed(0)
    encoder = make(size=size)
    for module in encoder.modules():
        if (
            isinstance(module, nn.BatchNorm2d) and module.affine
        ):  # timm begins the last gain of a residual branch at zero
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return encoder, torch.rand(4, 3, size, size)


def features(encoder: Encoder, images: Tensor) -> dict[str, Tensor]:
    return encoder.features(encoder.preprocess(images))


def test_layers_declare_names_channels_and_strides(case):
    encoder, images = case
    size, more = images.shape[-1], 2 * max(layer.stride for layer in encoder.layers.values())
    here = features(encoder.eval(), images)
    larger = features(encoder, torch.rand(4, 3, size + more, size + more))
    assert list(here) == list(larger) == list(encoder.layers)
    for name, layer in encoder.layers.items():
        if layer.stride == 0:  # (B, L, D) or (B, D): no map that could grow
            assert here[name].shape == larger[name].shape
            assert (here[name].shape[0], here[name].shape[-1]) == (4, layer.channels)
            continue
        assert here[name].shape[:2] == larger[name].shape[:2] == (4, layer.channels)
        # a stride more of pixels is exactly a position more, whatever the borders do
        for axis in (2, 3):
            assert (larger[name].shape[axis] - here[name].shape[axis]) * layer.stride == more


def test_gradient_of_each_layer_reaches_earlier_blocks_only(case):
    encoder, images = case
    parameters = dict(encoder.named_parameters())
    if not parameters:
        pytest.skip("the encoder is fixed")
    reached: set[str] = set()
    for feature in features(encoder, images).values():
        if not feature.requires_grad:
            assert not reached  # a fixed layer, below those that are trained
            continue
        weights = torch.randn(feature.shape, generator=torch.Generator().manual_seed(1))
        gradients = torch.autograd.grad(
            (feature * weights).sum(), list(parameters.values()), retain_graph=True, allow_unused=True
        )
        now = {n for n, g in zip(parameters, gradients, strict=True) if g is not None and g.abs().sum() > 0}
        assert reached < now
        reached = now
    assert reached == set(parameters)


def test_images_can_be_optimized_through_every_layer(case):
    """As by the generator of `gan` and by style transfer."""
    encoder, images = case
    if not encoder.preprocess(images).is_floating_point():
        pytest.skip("tokens have no gradient")
    images = images.clone().requires_grad_()
    for name, feature in features(encoder.eval(), images).items():
        (gradient,) = torch.autograd.grad(feature.square().sum(), images, retain_graph=True)
        assert gradient.abs().max() > 0, name


def test_saving_and_loading_preserves_features(case, request):
    encoder, images = case
    encoder.train()
    features(encoder, images)  # running statistics are saved too
    saved = safetensors.torch.save(encoder.state_dict())
    make, size = ENCODERS[request.node.callspec.params["case"]]
    torch.manual_seed(1)
    other = make(size=size)
    before, expected = features(other.eval(), images), features(encoder.eval(), images)
    if encoder.state_dict():
        assert not any(torch.equal(before[name], expected[name]) for name in expected)
    other.load_state_dict(safetensors.torch.load(saved))
    found = features(other, images)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_in_eval_mode_images_of_a_batch_are_independent(case):
    encoder, images = case
    together, alone = features(encoder.eval(), images), features(encoder, images[:1])
    for name in encoder.layers:
        torch.testing.assert_close(together[name][:1], alone[name], atol=1e-4, rtol=1e-4)
        assert not torch.allclose(together[name][:1], together[name][1:2])


def test_channels_last_gives_the_same_features(case):
    encoder, images = case
    expected = features(encoder.eval(), images)
    found = features(encoder.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last))
    for name in encoder.layers:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-4)


def test_forward_averages_the_last_layer_over_positions(case):
    encoder, images = case
    *_, last = features(encoder.eval(), images).values()
    positions = last.flatten(2) if last.ndim == 4 else last.transpose(1, 2)
    torch.testing.assert_close(encoder(images), positions.sum(2) / positions.shape[2])
    assert torch.equal(encoder(images), pooled(last))


@pytest.mark.parametrize("input_mode", PREPROCESSORS)
@pytest.mark.parametrize("name", ["nin", "alexnet-small", "dictionary", "timm-resnet", "timm-vit"])
def test_every_input_mode_works(name, input_mode):
    make, size = ENCODERS[name]
    encoder = make(size=size, input_mode=input_mode)
    images = torch.rand(2, 3, size, size)
    assert encoder.input_mode == input_mode
    assert encoder(images).shape == (2, encoder.last.channels)


@pytest.mark.parametrize("name", ENCODERS)
def test_new_encoders_are_in_training_mode_with_initial_statistics(name):
    make, size = ENCODERS[name]
    encoder = make(size=size)
    assert all(module.training for module in encoder.modules())
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("convnet", 20),
        ("hybrid", 16),
        ("nin", 12),
        ("alexnet-small", 36),
        ("gpt-causal", 6),
        ("gpt-all-around", 6),
        ("timm-resnet", 40),
        ("timm-convnext", 40),
        ("timm-vit", 48),
    ],
)
def test_bf16_features_and_gradients_are_finite_and_close_to_float32(name, size):
    torch.manual_seed(0)
    encoder = ENCODERS[name][0](size=size).eval()
    images = torch.rand(2, 3, size, size)
    expected = features(encoder, images)
    with torch.autocast("cpu", torch.bfloat16):
        found = features(encoder, images)
    for layer, feature in found.items():
        off = (feature.float() - expected[layer]).square().mean().sqrt()
        assert off <= 0.05 * expected[layer].square().mean().sqrt()
    sum(feature.float().square().mean() for feature in found.values()).backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in encoder.parameters())
