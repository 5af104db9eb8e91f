"""Data-dependent initialization against the formulas of Krähenbühl et al. 2016, written out."""

import pytest
import torch
from torch import Tensor, nn

from probe_toys import Given
from selftaught.augment.warp import identity
from selftaught.contracts import Encoder, Layer
from selftaught.encoders import make_encoder
from selftaught.encoders.dictionary import spherical_kmeans
from selftaught.errors import UserError
from selftaught.evaluation.baselines import kmeans_init, prepare
from selftaught.evaluation.baselines.kmeans_init import BIAS, _normalize, initialize, patch_filters

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 24, side: int = 16) -> Given:
    """Smooth images with noise: pixels are correlated, as in photos."""
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=generator())
    smooth = nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear")
    noise = torch.rand(count, 3, side, side, generator=generator(1))
    return Given(0.8 * smooth + 0.2 * noise, torch.arange(count) % 2)


def outputs(encoder: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """The outputs of all convolutions, where batch norm uses the statistics of the batch."""
    found: dict[str, Tensor] = {}
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda m, i, out, name=name: found.__setitem__(name, out))
    encoder.train().features(inputs)
    return found


def test_filters_of_two_kinds_of_patches_are_these_patches():
    kinds = torch.randn(2, 12, generator=generator(3))
    patches = kinds[torch.arange(200) % 2]
    filters = patch_filters(patches, 2, "kmeans", generator())
    cosine = nn.functional.cosine_similarity(filters[:, None], (kinds - kinds.mean(0))[None], dim=2)
    assert cosine.max(1).values.tolist() == pytest.approx([1, 1], abs=1e-4)
    assert sorted(cosine.argmax(1).tolist()) == [0, 1]


class Patchify(Encoder):
    """Two filters of 4 x 4 pixels, side by side, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.input_mode, self.preprocess = {"only": Layer(2, 4)}, "color", nn.Identity()
        self.convolution, self.norm = nn.Conv2d(3, 2, 4, stride=4, bias=False), nn.BatchNorm2d(2)

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"only": self.norm(self.convolution(inputs))}


def test_filters_of_an_encoder_are_the_two_kinds_of_patches_of_its_images():
    torch.manual_seed(1)  # seeds whose outputs have a variance near the epsilon of the norm are refused
    kinds, encoder = torch.rand(2, 3, 4, 4, generator=generator(3)), Patchify()
    places = torch.randint(2, (16, 4, 4), generator=generator(4))
    pictures = kinds[places].permute(0, 3, 1, 4, 2, 5).reshape(16, 3, 16, 16)
    initialize(encoder, Given(pictures, torch.arange(16) % 2), 16, CPU, generator())
    filters, centered = encoder.convolution.weight.detach().flatten(1), (kinds - kinds.mean(0)).flatten(1)
    cosine = nn.functional.cosine_similarity(filters[:, None], centered[None], dim=2)
    assert cosine.max(1).values.tolist() == pytest.approx([1, 1], abs=1e-3)
    assert sorted(cosine.argmax(1).tolist()) == [0, 1]


def test_whitened_principal_components_have_unit_variance_and_no_correlation():
    mixing = torch.randn(6, 6, generator=generator(2))
    patches = torch.randn(5000, 6, generator=generator(4)) @ mixing + 3
    projected = patches @ patch_filters(patches, 6, "pca", generator()).T
    torch.testing.assert_close(torch.cov(projected.T), torch.eye(6), atol=2e-3, rtol=2e-3)
    leading = torch.linalg.svd(patches - patches.mean(0), full_matrices=False)[2][0]
    first = patch_filters(patches, 6, "pca", generator())[0]
    assert abs(float(nn.functional.cosine_similarity(first, leading, dim=0))) == pytest.approx(1, abs=1e-4)


def test_more_filters_than_components_are_random_and_distinct():
    patches = torch.randn(50, 4, generator=generator())
    for kind in ("pca", "kmeans"):
        filters = patch_filters(patches, 60, kind, generator())
        assert filters.shape == (60, 4)
        assert len(filters.unique(dim=0)) == 60
    assert patch_filters(torch.ones(50, 4), 3, "kmeans", generator()).isfinite().all()  # no variance at all


def test_spherical_kmeans_finds_directions_and_keeps_empty_clusters():
    directions = torch.eye(3)
    points = nn.functional.normalize(
        directions.repeat_interleave(40, 0) + 0.05 * torch.randn(120, 3, generator=generator()), dim=1
    )
    found = min(
        (spherical_kmeans(points, 3, generator(seed)) for seed in range(5)),
        key=lambda c: float(-(points @ c.T).max(1).values.sum()),
    )
    assert (found @ directions.T).max(0).values.min() > 0.99
    same = spherical_kmeans(torch.eye(3)[:1].repeat(5, 1), 4, generator())
    torch.testing.assert_close(same.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("kind", ["kmeans", "pca"])
@pytest.mark.parametrize(
    ("name", "options"), [("convnet", {"width": 8}), ("nin", {"blocks": 3}), ("timm:test_resnet", {}), ("alexnet", {})]
)
def test_output_channels_of_a_layer_have_one_variance_as_in_algorithm_1(name, options, kind, monkeypatch):
    if name != "convnet":  # wide layers would take seconds
        monkeypatch.setattr("selftaught.evaluation.baselines.kmeans_init.PATCHES", 200)
        monkeypatch.setattr(
            "selftaught.evaluation.baselines.kmeans_init.patch_filters",
            lambda patches, count, *_: torch.randn(count, patches.shape[1], generator=generator()),
        )
    torch.manual_seed(0)
    encoder, source = make_encoder(name, size=16 if name != "timm:test_resnet" else 32, **options), images(16, 32)
    size = 16 if name != "timm:test_resnet" else 32
    initialize(encoder, source, size, CPU, generator(), kind)
    batch = source.batch(torch.arange(16), CPU)
    found = outputs(encoder, encoder.preprocess(batch.warp(identity(16), size)))
    assert found
    for layer, output in found.items():
        variance = output.transpose(0, 1).flatten(1).var(1, correction=0)
        # One factor for the whole layer: channels have the same variance, whatever the factor is.
        torch.testing.assert_close(variance / variance.mean(), torch.ones_like(variance), atol=2e-2, rtol=0, msg=layer)


def test_layers_have_one_ratio_of_gradient_to_weights_as_in_algorithm_2(monkeypatch):
    torch.manual_seed(0)
    encoder, source = make_encoder("convnet", size=16, width=8), images()

    def ratios() -> Tensor:
        encoder.train().zero_grad()
        inputs = encoder.preprocess(source.images)
        last = encoder.features(inputs)["layer3"]
        (last * torch.randn(last.shape, generator=generator(7))).sum().backward()
        weights = [block[0].weight for block in encoder.blocks.values()]
        return torch.stack([w.grad.square().mean().sqrt() / w.detach().square().mean().sqrt() for w in weights])

    with monkeypatch.context() as without:
        without.setattr(kmeans_init, "_equalize", lambda *_: None)
        initialize(encoder, source, 16, CPU, generator())
        before = ratios()
    initialize(encoder, source, 16, CPU, generator())
    after = ratios()
    assert before.max() / before.min() > 1.5
    assert after.max() / after.min() < 1.3  # another random gradient than the one it was computed with


def test_a_bias_gives_every_channel_the_mean_of_the_release():
    layer = nn.Linear(4, 3)
    inputs = 2 + torch.randn(500, 4, generator=generator())
    with torch.no_grad():
        _normalize(layer, inputs)
    torch.testing.assert_close(layer(inputs).mean(0), torch.full((3,), BIAS), atol=1e-4, rtol=0)
    torch.testing.assert_close(layer(inputs).var(0, correction=0), torch.ones(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["vit", "gpt", "timm:test_vit", "timm:test_efficientnet", "scattering", "pixels"])
def test_encoders_without_a_norm_after_each_layer_are_refused(name):
    encoder = make_encoder(name, size=32)
    with pytest.raises(UserError, match="choose another --encoder"):
        prepare("kmeans", encoder, images(16, 32), 32, CPU, 0)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    def weights(seed: int) -> Tensor:
        encoder = make_encoder("convnet", size=16, width=4)
        prepare("kmeans", encoder, images(), 16, CPU, seed)
        assert not encoder.training
        assert all(b[2].num_batches_tracked > 0 for b in encoder.blocks.values())  # statistics were computed
        return torch.cat([w.detach().flatten() for w in encoder.parameters()])

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


def test_an_unknown_baseline_is_an_error():
    with pytest.raises(UserError, match="kmeans"):
        prepare("kmean", make_encoder("convnet", size=16), images(), 16, CPU, 0)
