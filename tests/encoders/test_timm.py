import socket

import pytest
import timm
import torch
import torchvision

from selftaught.encoders.timm import Timm
from selftaught.errors import UserError


def weights(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        (
            "resnet18",
            {"stem": (64, 2), "stage1": (64, 4), "stage2": (128, 8), "stage3": (256, 16), "stage4": (512, 32)},
        ),
        (
            "resnet50",
            {"stem": (64, 2), "stage1": (256, 4), "stage2": (512, 8), "stage3": (1024, 16), "stage4": (2048, 32)},
        ),
        ("vit_tiny_patch16_224", {f"block{n:02}": (192, 16) for n in range(1, 13)}),
        ("vit_small_patch16_224", {f"block{n:02}": (384, 16) for n in range(1, 13)}),
        ("convnext_atto", {f"stage{n}": (40 * 2 ** (n - 1), 2 ** (n + 1)) for n in range(1, 5)}),
        ("convnext_tiny", {f"stage{n}": (96 * 2 ** (n - 1), 2 ** (n + 1)) for n in range(1, 5)}),
    ],
)
def test_layers_at_128_px_match_the_paper(name, layers):
    encoder = Timm(name=name, size=128).eval()
    assert {n: (layer.channels, layer.stride) for n, layer in encoder.layers.items()} == layers
    with torch.no_grad():
        found = encoder.features(encoder.preprocess(torch.rand(1, 3, 128, 128)))
    assert {n: tuple(f.shape) for n, f in found.items()} == {
        n: (1, c, 128 // stride, 128 // stride) for n, (c, stride) in layers.items()
    }


def test_parameter_shapes_equal_torchvision_without_classifier():
    resnet = torchvision.models.resnet18(weights=None)
    assert weights(Timm(name="resnet18", size=128)) == weights(resnet) - weights(resnet.fc)
    vit = torchvision.models.vit_b_16(weights=None)
    assert weights(Timm(name="vit_base_patch16_224", size=224)) == weights(vit) - weights(vit.heads)
    convnext = torchvision.models.convnext_tiny(weights=None)
    assert weights(Timm(name="convnext_tiny", size=64)) == weights(convnext) - weights(convnext.classifier)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_last_layer_equals_timms_classifier_input(name):
    encoder = Timm(name=name, size=64).eval()
    model = timm.create_model(name, **({"img_size": 64} if name == "test_vit" else {})).eval()
    missing, unexpected = model.load_state_dict(encoder.model.state_dict(), strict=False)
    assert all(n.startswith(("head.", "fc.")) for n in missing)
    assert not unexpected
    seen = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        *_, last = encoder.features(seen).values()
        expected = model.forward_features(seen)
    if name == "test_vit":  # (B, 1 + L, C) with the class token first
        expected = expected[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(last, expected)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "densenet121", "deit_tiny_distilled_patch16_224"])
def test_no_parameters_follow_the_last_layer(name):
    encoder = Timm(name=name, size=64)
    sum(f.square().sum() for f in encoder.features(torch.rand(2, 3, 64, 64)).values()).backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []


def test_small_resnet_has_the_cifar_stem():
    small, wide = Timm(name="resnet18", size=32), Timm(name="resnet18", size=32, small=False)
    sides = {n: f.shape[-1] for n, f in small.features(torch.rand(2, 3, 32, 32)).items()}
    assert sides == {"stem": 32, "stage1": 32, "stage2": 16, "stage3": 8, "stage4": 4}  # He et al. 2016, section 4.2
    assert [layer.stride for layer in small.layers.values()] == [1, 1, 2, 4, 8]
    assert [layer.stride for layer in wide.layers.values()] == [2, 4, 8, 16, 32]
    assert weights(wide) - weights(small) == 64 * 3 * (7**2 - 3**2)


def test_small_stem_is_chosen_by_view_size():
    assert Timm(name="resnet18", size=64).layers["stem"].stride == 1
    assert Timm(name="resnet18", size=65).layers["stem"].stride == 2
    assert Timm(name="resnet18", size=65, small=True).layers["stem"].stride == 1
    assert Timm(name="test_resnet", size=64).layers["stem"].stride == 2  # begins with three 3 x 3: nothing to narrow


def test_color_normalization_is_that_of_the_timm_config():
    for name in ("test_vit", "resnet18"):
        cfg = timm.get_pretrained_cfg(name)
        black = Timm(name=name, size=64).preprocess(torch.zeros(1, 3, 1, 1)).flatten()
        torch.testing.assert_close(black, -torch.tensor(cfg.mean) / torch.tensor(cfg.std))
    assert timm.get_pretrained_cfg("test_vit").mean != timm.get_pretrained_cfg("resnet18").mean


def test_patch_size_determines_the_grid():
    encoder = Timm(name="test_vit", size=32, patch=4)
    assert encoder.layers["block01"].stride == 4
    assert encoder.features(torch.rand(2, 3, 32, 32))["block01"].shape[2:] == (8, 8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "resnet81"}, r"^there is no timm model called 'resnet81': did you mean .*resnet18"),
        ({"name": "hf-hub:someone/something"}, "^there is no timm model called 'hf-hub:someone/something'"),
        ({"name": "@"}, r"see timm\.list_models\(\)\.$"),
        ({"name": "resnet18.a1_in2k"}, r"no timm model called 'resnet18.a1_in2k': did you mean resnet18.a1_in1k"),
        (
            {"name": "resnet18", "patch": 4},
            "--patch applies only to models with a fixed image size, and timm's resnet18 has none",
        ),
        ({"name": "test_vit", "small": True}, "only to ResNets with a 7 x 7 stem, and test_vit has none"),
        (
            {"name": "test_vit", "size": 40},
            r"test_vit does not support views of 40 pixels \(.*divisible.*\): choose",
        ),
        ({"name": "hiera_tiny_224", "size": 224}, "hiera_tiny_224 does not support views of 224 pixels"),
        ({"name": "resnet18", "input_mode": "sobol"}, r"no input mode called 'sobol': did you mean sobel\?"),
    ],
)
def test_invalid_timm_options_raise_a_user_error(options, said):
    with pytest.raises(UserError, match=said) as caught:
        Timm(**options)
    assert "\n" not in str(caught.value)


def test_pretrained_weights_need_a_network_and_the_original_stem(monkeypatch):
    create = timm.create_model

    def offline(name, **options):
        raise OSError("We couldn't connect.\nMore lines.")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        UserError, match=r"cannot download the pretrained weights of resnet18 \(We couldn't connect\): connect"
    ):
        Timm(name="resnet18", size=128, pretrained=True)
    monkeypatch.setattr(timm, "create_model", lambda name, **o: create(name, **o | {"pretrained": False}))
    with pytest.raises(UserError, match="require its 7 x 7 stem, which small replaces: set one to false"):
        Timm(name="resnet18", size=32, pretrained=True, small=True)
    assert Timm(name="resnet18", size=32, pretrained=True).layers["stem"].stride == 2
