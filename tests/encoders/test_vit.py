"""The vision transformer: tokens, masked encoding and attention against definitions written out here."""

import math

import pytest
import torch
from torch import nn

from selftaught.contracts import TokenEncoder
from selftaught.encoders.vit import ViT, positions
from selftaught.errors import UserError


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return ViT(size=16, patch=4, depth=3, width=32, heads=2).eval()


def test_features_are_encoded_tokens_as_maps(encoder):
    images = torch.rand(2, 3, 16, 16)
    assert isinstance(encoder, TokenEncoder)
    encoded = encoder.encode(encoder.tokens(images))
    for name, feature in encoder.features(encoder.preprocess(images)).items():
        assert feature.shape == (2, 32, 4, 4)
        for row in range(4):
            for column in range(4):
                torch.testing.assert_close(feature[:, :, row, column], encoded[name][:, 4 * row + column])


def test_dropped_tokens_have_no_influence(encoder):
    images = torch.rand(2, 3, 16, 16)
    keep = torch.tensor([[5, 0, 15], [2, 3, 9]])
    before = encoder.encode(encoder.tokens(images), keep)["block03"]
    assert before.shape == (2, 3, 32)
    changed = images.clone()
    changed[0, :, :4, 4:8] = 0  # token 1 of the first image, which is not kept
    torch.testing.assert_close(encoder.encode(encoder.tokens(changed), keep)["block03"], before)
    changed[0, :, 12:, 12:] = 0  # token 15 is
    after = encoder.encode(encoder.tokens(changed), keep)["block03"]
    assert not torch.allclose(after[0], before[0])
    torch.testing.assert_close(after[1], before[1])


def test_the_order_of_kept_tokens_is_the_order_of_the_output(encoder):
    tokens = encoder.tokens(torch.rand(1, 3, 16, 16))
    forward = encoder.encode(tokens, torch.tensor([[1, 7, 4]]))["block02"]
    backward = encoder.encode(tokens, torch.tensor([[4, 7, 1]]))["block02"]
    torch.testing.assert_close(forward.flip(1), backward, atol=1e-5, rtol=1e-5)


def test_attention_of_the_last_block_reproduces_its_output(encoder):
    images = torch.rand(2, 3, 16, 16)
    attention = encoder.attention(images)
    assert attention.shape == (2, 2, 16, 16)
    torch.testing.assert_close(attention.sum(3), torch.ones(2, 2, 16))
    hidden = encoder.tokens(images)
    for block in encoder.blocks[:-1]:
        hidden = block(hidden)
    last = encoder.blocks[-1]
    value = last.attn.qkv(last.norm1(hidden))[..., 64:].reshape(2, 16, 2, 16).transpose(1, 2)
    hidden = hidden + last.attn.proj((attention @ value).transpose(1, 2).reshape(2, 16, 32))
    hidden = hidden + last.mlp(last.norm2(hidden))
    torch.testing.assert_close(encoder.norm(hidden), encoder.encode(encoder.tokens(images))["block03"])


def test_position_embeddings_are_sines_and_cosines_of_row_and_column():
    found = positions(3, 5, 8)
    for place in range(15):
        row, column = divmod(place, 5)
        expected = []
        for index in (row, column):
            angles = [index * 10_000 ** (-k / 2) for k in range(2)]
            expected += [*map(math.sin, angles), *map(math.cos, angles)]
        torch.testing.assert_close(found[place], torch.tensor(expected))


def test_views_of_another_size_are_encoded(encoder):
    assert encoder(torch.rand(1, 3, 24, 24)).shape == (1, 32)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 30, "patch": 4}, "--size to be a multiple of --patch, got 30 and 4"),
        ({"width": 30}, "--width to be a multiple of 12"),
        ({"depth": 0}, "--depth of vit must be from 1 to 128, got 0"),
        ({"patch": 0}, "multiple of --patch"),
    ],
)
def test_invalid_options_are_rejected(options, words):
    with pytest.raises(UserError, match=words):
        ViT(**options)


def test_view_sizes_must_be_multiples_of_the_patch(encoder):
    with pytest.raises(UserError, match="multiple of its patches of 4 pixels, got 18"):
        encoder(torch.rand(1, 3, 18, 18))


def test_every_linear_layer_is_initialized(encoder):
    for module in encoder.blocks.modules():
        if isinstance(module, nn.Linear):
            bound = math.sqrt(6 / (module.in_features + module.out_features))
            assert 0.9 * bound < module.weight.abs().max() <= bound
