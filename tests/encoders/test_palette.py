import math

import pytest
import torch

from selftaught.encoders.gpt import GPT
from selftaught.encoders.palette import Palette, k_means, nearest
from selftaught.errors import UserError
from toys import ToySource


def source_of(colors: torch.Tensor) -> ToySource:
    """24 images of 16 x 16, each of one colour: colour after colour."""
    source = ToySource()
    source.images = colors[torch.arange(24) % len(colors)][:, :, None, None].expand(-1, -1, 16, 16).contiguous()
    return source


def test_tokens_are_the_nearest_colors_in_row_major_order():
    palette, images = Palette(20, 4), torch.rand(3, 3, 4, 4)
    tokens = palette(images)
    assert tokens.shape == (3, 16)
    for image, row in zip(images, tokens, strict=True):
        for place, token in enumerate(row.tolist()):
            pixel = image[:, place // 4, place % 4]
            distances = [math.dist(pixel.tolist(), color.tolist()) for color in palette.colors]
            assert distances[token] == min(distances)


def test_decoding_inverts_tokens_for_images_of_palette_colors():
    palette = Palette(20, 4)
    images = palette.colors[torch.randint(20, (5, 16))].transpose(1, 2).reshape(5, 3, 4, 4)
    assert torch.equal(palette.pictures(palette(images)), images)


def test_larger_images_are_downscaled_by_averaging():
    palette, images = Palette(20, 4), torch.rand(3, 3, 8, 8)
    mean = (images[..., ::2, ::2] + images[..., ::2, 1::2] + images[..., 1::2, ::2] + images[..., 1::2, 1::2]) / 4
    assert torch.equal(palette(images), palette(mean))
    assert not torch.equal(palette(images), palette(images[..., ::2, ::2].contiguous()))


def test_autocast_does_not_round_colors():
    palette, images = Palette(512, 16), torch.rand(4, 3, 16, 16)
    expected = palette(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(palette(images), expected)


def test_k_means_recovers_separated_clusters():
    generator = torch.Generator().manual_seed(0)
    truth = torch.cartesian_prod(*3 * [torch.tensor([0.2, 0.8])])
    points = truth.repeat_interleave(100, 0) + 0.003 * torch.randn(800, 3, generator=generator)
    centres = k_means(points, torch.ones(800), 8, generator)
    off, which = torch.cdist(truth, centres).min(1)
    assert which.unique().numel() == 8
    assert off.max() < 0.002


def test_k_means_weights_equal_repeated_points():
    points = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    centres = k_means(points, torch.tensor([3.0, 1.0, 1.0, 1.0]), 2, torch.Generator().manual_seed(0))
    assert centres.flatten().sort().values.tolist() == pytest.approx([0.25, 10.5])


def test_k_means_converges_to_cluster_means():
    points = torch.rand(600, 3, generator=torch.Generator().manual_seed(1))
    centres = k_means(points, torch.ones(600), 8, torch.Generator().manual_seed(0), iterations=200)
    owner = torch.cdist(points, centres).argmin(1)
    for number in range(8):
        torch.testing.assert_close(points[owner == number].mean(0), centres[number], atol=1e-5, rtol=0)
    assert torch.equal(nearest(points, centres), owner)


def test_palette_does_not_depend_on_the_seed():
    palettes = []
    for seed, images in ((0, 0), (1, 0), (0, 1)):
        torch.manual_seed(seed)
        encoder = GPT(size=8, colors=16, depth=1, width=16, heads=1)
        encoder.fit(ToySource(seed=images))
        palettes.append(encoder.preprocess.colors)
    assert torch.equal(palettes[0], palettes[1])
    assert not torch.equal(palettes[0], palettes[2])


def test_palette_equals_the_colors_if_there_are_as_many():
    colors = torch.rand(6, 3)
    palette = Palette(6, 8)
    palette.fit(source_of(colors))
    assert torch.cdist(colors, palette.colors).min(1).values.max() < 1e-6


def test_too_few_distinct_colors_raise_a_user_error():
    with pytest.raises(UserError) as error:
        Palette(7, 8).fit(source_of(torch.rand(6, 3)))
    assert str(error.value) == (
        "a palette of 7 needs as many distinct colors, but 1,536 pixels of toy have 6: give --colors 6 or fewer."
    )
