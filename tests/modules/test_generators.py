import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.modules.generators import MAX_CHANNELS, Generator, uniform_noise


@pytest.mark.parametrize("size", [8, 12, 15, 16, 24, 30, 32, 33, 48, 96, 100])
def test_generator_output_has_the_requested_size_and_range(size):
    torch.manual_seed(0)
    generator = Generator(5, size, width=4)
    with torch.no_grad():
        made = generator(torch.randn(3, 5))
    assert made.shape == (3, 3, size, size)
    assert 0 < made.min() < made.max() < 1
    assert 4 <= generator.side <= 8


@pytest.mark.parametrize("size", [8, 24, 33])
def test_every_code_value_affects_every_pixel_and_every_parameter_has_a_gradient(size):
    torch.manual_seed(0)
    generator = Generator(4, size, width=8).double()  # float32 loses the slope of what adds up to little
    noise = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    made = generator(noise)
    made[0].square().sum().backward()
    assert (noise.grad[0] != 0).all()
    assert all(weight.grad.abs().sum() > 0 for weight in generator.parameters())
    generator.eval()
    with torch.no_grad():
        for number in torch.eye(4):
            off = (generator(noise + number) - generator(noise)).abs().amax((0, 1))
            assert (off > 0).all()


def test_generator_equals_dcgan_for_powers_of_two():
    """The net of figure 1 of the paper, written out with the sizes of BiGAN's release."""
    generator = Generator(100, 64, width=64)
    maps = [m for m in generator.blocks if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.in_channels, m.out_channels) for m in maps] == [(512, 256), (256, 128), (128, 64), (64, 3)]
    assert generator.dense.out_features == 512 * 4 * 4
    assert isinstance(generator.blocks[-1], nn.Sigmoid)
    sides = []
    for module in maps:
        module.register_forward_hook(lambda _, inputs, made: sides.append((inputs[0].shape[-1], made.shape[-1])))
    with torch.no_grad():
        generator.eval()(torch.zeros(1, 100))
    assert sides == [(4, 8), (8, 16), (16, 32), (32, 64)]


def test_images_generated_in_bf16_are_not_rounded():
    """As multiples of 1/256 a critic could tell them from images by that alone."""
    torch.manual_seed(0)
    generator = Generator(5, 16, width=8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made = generator(torch.randn(64, 5))
    assert made.dtype == torch.float32
    bright = made[made > 0.5]
    assert ((bright * 256) % 1 == 0).float().mean() < 0.1


def test_generator_channels_are_bounded():
    generator = Generator(2, 256, width=64)
    assert (
        max(module.in_channels for module in generator.blocks if isinstance(module, nn.ConvTranspose2d)) == MAX_CHANNELS
    )


def test_generated_images_depend_on_noise_only():
    torch.manual_seed(0)
    generator = Generator(4, 16, width=4).eval()
    noise = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(generator(noise)[[2, 0]], generator(noise[[2, 0]]))
        assert not torch.equal(*generator(noise)[:2])


def test_noise_is_uniform_from_minus_one_to_one():
    noise = uniform_noise(2000, 5, torch.Generator().manual_seed(0))
    assert noise.shape == (2000, 5)
    assert -1 <= noise.min() < -0.99
    assert 0.99 < noise.max() < 1
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.var().item() == pytest.approx(1 / 3, rel=0.03)


def test_generator_rejects_size_0():
    with pytest.raises(UserError, match="at least 8 pixels, got 7"):
        Generator(4, 7)
