import pytest
import torch
import torch.nn.functional as F

from selftaught.encoders import make_encoder
from selftaught.encoders.gpt import GPT
from selftaught.errors import UserError
from toys import ToySource

TINY = {"size": 4, "depth": 3, "width": 24, "heads": 3, "colors": 10}


def tiny(**options) -> GPT:
    torch.manual_seed(0)
    return GPT(**(TINY | options)).eval()


def tokens(count: int = 2, length: int = 16, colors: int = 10) -> torch.Tensor:
    return torch.randint(colors, (count, length), generator=torch.Generator().manual_seed(1))


def changed(encoder: GPT, seen: torch.Tensor, place: int) -> dict[str, list[int]]:
    """The positions, for each layer, that notice another token at `place`."""
    other = seen.clone()
    other[:, place] = (other[:, place] + 1) % 10
    before, after = encoder.features(seen), encoder.features(other)
    return {name: (before[name] != after[name]).any(2)[0].nonzero().flatten().tolist() for name in before}


@pytest.mark.parametrize("place", [0, 7, 14])
def test_causal_attention_uses_earlier_pixels_only(place):
    found = changed(tiny(), tokens(), place)
    assert found.pop("embed") == [place + 1]  # nothing is mixed yet
    for name, positions in found.items():
        assert positions == list(range(place + 1, 16)), name


@pytest.mark.parametrize("place", [0, 7, 15])
def test_bidirectional_attention_uses_all_pixels(place):
    found = changed(tiny(causal=False), tokens(), place)
    assert found.pop("embed") == [place]
    for name, positions in found.items():
        assert positions == list(range(16)), name


def test_masked_tokens_contribute_their_position_only():
    encoder = tiny(causal=False)
    seen = tokens()
    seen[:, 5] = encoder.hidden
    expected = F.layer_norm(encoder.positions[5], (24,))
    torch.testing.assert_close(encoder.features(seen)["embed"][:, 5], expected.expand(2, -1))


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("causal", [True, False])
def test_layers_equal_the_formulas_of_the_paper(causal, norm):
    """Section 2.3 written out, head by head: n = norm(h), a = h + attention(n), h' = a + mlp(norm(a)); taps are n."""
    encoder, seen = tiny(causal=causal, norm=norm), tokens(1)
    for name, weight in encoder.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)

    def normed(module, x):
        if norm == "layer":
            x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
            return x * module.weight + module.bias
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.weight

    row = seen[0].tolist()
    row = [encoder.hidden, *row[:-1]] if causal else row
    hidden = encoder.tokens.weight[row] + encoder.positions
    expected = []
    for block in encoder.blocks:
        n = normed(block.norm1, hidden)
        expected.append(n)
        query, key, value = (n @ part.T for part in block.qkv.weight.chunk(3))
        parts = []
        for head in range(3):
            mine = slice(8 * head, 8 * head + 8)
            scores = query[:, mine] @ key[:, mine].T / 8**0.5
            if causal:
                scores = scores + torch.full((16, 16), -torch.inf).triu(1)
            parts.append(scores.softmax(1) @ value[:, mine])
        hidden = hidden + torch.cat(parts, 1) @ block.proj.weight.T
        wide = normed(block.norm2, hidden) @ block.fc1.weight.T
        hidden = hidden + (wide * torch.sigmoid(wide)) @ block.fc2.weight.T
    expected.append(normed(encoder.norm, hidden))
    for found, wanted in zip(encoder.features(seen).values(), expected, strict=True):
        torch.testing.assert_close(found[0], wanted, atol=1e-4, rtol=1e-4)


def test_number_of_parameters_equals_a_count_by_hand():
    blocks = 3 * (12 * 24 * 24 + 2 * 2 * 24)
    assert sum(p.numel() for p in tiny().parameters()) == 11 * 24 + 16 * 24 + blocks + 2 * 24


def test_completion_with_cached_keys_equals_completion_without():
    """The brute force: read everything anew for each token."""
    encoder, begun = tiny(), tokens(3)[:, :5]
    weight, draws = torch.randn(10, 24), torch.rand(3, 16)
    expected = begun
    for place in range(5, 16):
        padded = F.pad(expected, (0, 16 - place))
        shares = (encoder.features(padded)["block03"][:, place] @ weight.T / 0.7).softmax(1)
        following = [
            next(k for k in range(10) if share[: k + 1].sum() > draw)
            for share, draw in zip(shares, draws[:, place], strict=True)
        ]
        expected = torch.cat([expected, torch.tensor(following)[:, None]], 1)
    found = encoder.complete(begun, lambda last: last @ weight.T, draws, 0.7)
    assert torch.equal(found, expected)
    assert torch.equal(found[:, :5], begun)


def test_samples_follow_the_predicted_distribution():
    encoder = tiny()
    share = torch.tensor([0.5, 0.3, 0.2] + [0.0] * 7)
    draws = torch.rand(1000, 16, generator=torch.Generator().manual_seed(0))
    none = torch.empty(1000, 0, dtype=torch.int64)
    found = encoder.complete(none, lambda last: share.log().expand(len(last), -1), draws)
    counts = found.flatten().bincount(minlength=10) / found.numel()
    assert counts[3:].sum() == 0
    assert (counts - share).abs().max() < 4 * (0.25 / found.numel()) ** 0.5


def test_views_larger_than_the_context_are_resized():
    encoder = tiny(size=64, context=8)
    assert encoder.positions.shape == (64, 24)
    assert encoder.preprocess(torch.rand(2, 3, 64, 64)).shape == (2, 64)
    assert tiny(size=4, context=8).positions.shape == (16, 24)


def test_palette_is_saved_with_the_weights():
    encoder, other = tiny(size=8), tiny(size=8)
    encoder.fit(ToySource())
    other.load_state_dict(encoder.state_dict())
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(other.preprocess.colors, encoder.preprocess.colors)
    assert torch.equal(other(images), encoder(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_mode": "lightness"}, "the input of gpt is color tokens, but the task requires lightness: choose"),
        ({"depth": 0}, "--depth of gpt must be from 1 to 128, got 0."),
        ({"colors": 1}, "--colors of gpt must be from 2 to 8,192, got 1."),
        ({"context": 0}, "--context of gpt must be from 1 to 256, got 0."),
        ({"width": 100}, "--width of gpt must be a multiple of its 3 heads, got 100: try 192."),
        ({"norm": "lay"}, "there is no norm of gpt called 'lay': did you mean layer?"),
    ],
)
def test_invalid_options_raise_a_user_error(options, message):
    with pytest.raises(UserError) as error:
        tiny(**options)
    assert message in str(error.value)


def test_encoders_without_causal_attention_are_rejected():
    with pytest.raises(UserError, match=r"^the encoder convnet has no option causal, .*: choose another"):
        make_encoder("convnet", size=16, input_mode="tokens", causal=True)
