import math

import pytest
import torch
from torch.nn.functional import avg_pool2d, batch_norm, conv2d, max_pool2d, relu

from selftaught.encoders.nin import NIN
from selftaught.errors import UserError


@pytest.mark.parametrize("blocks", [3, 4, 5])
def test_map_sizes_at_32_px_match_the_paper(blocks):
    encoder = NIN(blocks=blocks).eval()
    shapes = {name: tuple(f.shape) for name, f in encoder.features(torch.rand(2, 3, 32, 32)).items()}
    assert shapes == {"block1": (2, 96, 16, 16)} | {f"block{n}": (2, 192, 8, 8) for n in range(2, blocks + 1)}


def test_number_of_parameters_equals_a_count_by_hand():
    block1 = 192 * 3 * 25 + 160 * 192 + 96 * 160 + 2 * (192 + 160 + 96)
    block2 = 192 * 96 * 25 + 2 * 192 * 192 + 2 * 3 * 192
    later = 192 * 192 * 9 + 2 * 192 * 192 + 2 * 3 * 192
    for blocks in (3, 5):
        expected = block1 + block2 + (blocks - 2) * later
        assert sum(p.numel() for p in NIN(blocks=blocks).parameters()) == expected


def test_blocks_have_three_convolutions_with_norm_and_relu_then_a_pool():
    encoder = NIN(blocks=3).eval()
    for name, value in encoder.state_dict().items():  # statistics that change something
        if "running" in name:
            value.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
    seen = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = encoder.features(seen)
    weights = iter(v for name, v in encoder.state_dict().items() if "num_batches" not in name)
    pools = [lambda x: max_pool2d(x, 3, 2, 1), lambda x: avg_pool2d(x, 3, 2, 1), lambda x: x]
    for name, pool in zip(found, pools, strict=True):
        for _ in range(3):
            kernel, gain, bias, mean, variance = (next(weights) for _ in range(5))
            seen = conv2d(seen, kernel, padding=kernel.shape[-1] // 2)
            seen = relu(batch_norm(seen, mean, variance, gain, bias))
        seen = pool(seen)
        torch.testing.assert_close(found[name], seen)


def test_weights_are_initialized_normal_by_fan_out():
    torch.manual_seed(0)
    convolution = NIN().blocks["block2"][0]
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (25 * 192)), rel=0.01)
    assert convolution.weight.mean().abs() < 1e-3


def test_unsupported_depths_are_rejected():
    with pytest.raises(UserError, match="nin expects 3, 4 or 5 blocks, got 2"):
        NIN(blocks=2)
