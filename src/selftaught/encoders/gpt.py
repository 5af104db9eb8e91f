"""GPT on pixels: a transformer on the sequence of an image's pixels, each quantized to a token of a color palette.

Chen, Radford, Child, Wu, Jun, Luan, Sutskever, "Generative Pretraining from Pixels", ICML 2020 (iGPT).
http://proceedings.mlr.press/v119/chen20s.html (sections are given by name), and its release, openai/image-gpt.

Layers are the normalized *inputs* of each block, as the paper probes them ("Linear Probing": the average over positions
of n^l = norm(h^l)), so extracting them costs nothing; `embed` is n^0, whose average contains only the histogram of
colors. The palette is in `preprocess` and is fitted by `fit`.

Not covered: continuous colors, and sparse attention (the cost grows with the fourth power of the side).

Letters: B images, L positions, D features, K colors of the palette.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer, Source
from selftaught.encoders.palette import Palette
from selftaught.errors import UserError, require_between, unknown
from selftaught.limits import COLORS, DEPTH, HEADS, WIDTH, Range

Norm = Literal["layer", "rms"]
CONTEXT = Range(1, 256)
_SILU_SCALE = 1.702
"""Factor of the release's activation (quick GELU), x * sigmoid(1.702 x)."""


class GPT(Encoder):
    """A GPT-2 style transformer with layers `embed`, `block01`, `block02`, ... (B, L, D).

    With causal attention, position i attends to the tokens before i, and its last layer predicts the token at i.
    Otherwise attention is bidirectional, and tokens equal to `hidden` are masked: their embedding is zero.

    Args:
        size: side of the views in pixels.
        input_mode: only "tokens" is supported.
        causal: whether attention is causal.
        depth: number of blocks. The paper's smallest model, for a GPU: 24, with width 512 and 8 heads.
        width: features per position.
        heads: attention heads; must divide the width.
        colors: number of colors in the palette (paper: 512, so 9 bits).
        context: maximum side of the quantized image in pixels; larger views are resized to it (paper: 32, 48 or 64).
        norm: layer, as in the paper; rms, without mean and bias, as in the released code.

    Raises:
        UserError: an option is invalid.
    """

    layers: dict[str, Layer]
    preprocess: Palette

    def __init__(
        self,
        *,
        size: int = 32,
        input_mode: str = "tokens",
        causal: bool = True,
        depth: int = 4,
        width: int = 128,
        heads: int = 4,
        colors: int = 512,
        context: int = 32,
        norm: Norm = "layer",
    ) -> None:
        super().__init__()
        _check(input_mode, depth, width, heads, colors, context, norm)
        side = min(size, context)
        self.input_mode, self.preprocess, self.causal = input_mode, Palette(colors, side), causal
        self.hidden = colors
        """The mask token; in a causal model, the start token."""
        # The mask token's embedding stays zero by `padding_idx` (release: h * M); the start token's is learned.
        self.tokens = nn.Embedding(colors + 1, width, padding_idx=None if causal else colors)
        self.positions = nn.Parameter(torch.empty(side * side, width))
        self.blocks = nn.ModuleList(Block(width, heads, depth, norm) for _ in range(depth))
        self.norm = _norm(width, norm)
        self.layers = {"embed": Layer(width, 0)} | {f"block{n:02}": Layer(width, 0) for n in range(1, depth + 1)}
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        if not causal:
            nn.init.zeros_(self.tokens.weight[colors])

    def fit(self, source: Source) -> None:
        """Fit the palette."""
        self.preprocess.fit(source)

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, L) int64 tokens -> (B, L, D) for every layer."""
        return dict(zip(self.layers, self._encode(self._shifted(inputs) if self.causal else inputs), strict=True))

    def _shifted(self, tokens: Tensor) -> Tensor:
        """The start token followed by all tokens but the last."""
        return F.pad(tokens[:, :-1], (1, 0), value=self.hidden)

    def _encode(self, tokens: Tensor, begin: int = 0, cache: "list[KeyValueCache] | None" = None) -> list[Tensor]:
        """Features of tokens (B, n) at the positions from `begin` on: depth + 1 tensors (B, n, D)."""
        hidden = self.tokens(tokens) + self.positions[begin : begin + tokens.shape[1]]
        features = []
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            normed = block.norm1(hidden)
            features.append(normed)
            hidden = block(hidden, normed, self.causal, None if cache is None else cache[number])
        return [*features, self.norm(hidden)]

    @torch.no_grad()
    def complete(
        self, tokens: Tensor, predict: Callable[[Tensor], Tensor], draws: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Complete images by autoregressive sampling, token by token.

        Keys and values are cached, so that each new token costs one position.

        Args:
            tokens: (B, n) int64, the first n tokens of each image; n may be 0.
            predict: features (B, D) of the last layer -> logits (B, K).
            draws: (B, L) uniform in [0, 1), the random numbers for sampling each position.
            temperature: softmax temperature; below 1 favors likely tokens.

        Returns:
            (B, L) int64, starting with `tokens`.
        """
        assert self.causal, "autoregressive sampling requires causal attention"
        count, length = draws.shape
        cache = [KeyValueCache(self.positions, count, length) for _ in self.blocks]
        new, begin = F.pad(tokens, (1, 0), value=self.hidden), 0
        for position in range(tokens.shape[1], length):
            last = self._encode(new, begin, cache)[-1][:, -1]
            cumulative = (predict(last).float() / temperature).softmax(1).cumsum(1)
            sampled = torch.searchsorted(cumulative, draws[:, position, None] * cumulative[:, -1:], right=True)
            new, begin = sampled.clamp(max=cumulative.shape[1] - 1), position + 1
            tokens = torch.cat([tokens, new], 1)
        return tokens


class KeyValueCache:
    """Key-value cache of one block."""

    def __init__(self, like: Tensor, count: int, length: int) -> None:
        self.tensors = like.new_empty(2, count, length, like.shape[1])
        self.length = 0

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, n, D) and return all cached ones."""
        begin, self.length = self.length, self.length + keys.shape[1]
        self.tensors[0, :, begin : self.length], self.tensors[1, :, begin : self.length] = keys, values
        return self.tensors[0, :, : self.length], self.tensors[1, :, : self.length]


class Block(nn.Module):
    """Pre-norm transformer block: attention and MLP with residual connections (section "Architecture").

    Without biases, as in the release, and without dropout, as in the paper's pretraining.
    """

    def __init__(self, width: int, heads: int, depth: int, norm: Norm) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = _norm(width, norm), _norm(width, norm)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.fc1 = nn.Linear(width, 4 * width, bias=False)
        self.fc2 = nn.Linear(4 * width, width, bias=False)
        # Deviation 1 / sqrt(inputs), and 1 / sqrt(inputs * depth) for projections onto the residual stream, as in the
        # release's attention. Its MLP uses 0.02 for any width, which suits 512 and more but not narrow ones.
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.proj.weight, std=(width * depth) ** -0.5)
        nn.init.normal_(self.fc1.weight, std=_SILU_SCALE * width**-0.5)
        nn.init.normal_(self.fc2.weight, std=(4 * width * depth) ** -0.5 / _SILU_SCALE)

    def forward(self, hidden: Tensor, normed: Tensor, causal: bool, cache: KeyValueCache | None = None) -> Tensor:
        """`hidden` and `norm1` of it, (B, n, D) each -> (B, n, D)."""
        query, key, value = self.qkv(normed).chunk(3, 2)
        if cache is not None:
            key, value = cache.extended(key, value)
        query, key, value = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        # A single new position attends to everything in the cache: only longer sequences need the causal mask.
        masked = causal and query.shape[2] > 1
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=masked)
        hidden = hidden + self.proj(attended.transpose(1, 2).flatten(2))
        # The release's x * sigmoid(1.702 x), an approximation of GELU, with the factor absorbed into the two matrices:
        # SiLU is a single kernel and takes half of GELU's time on a CPU.
        return hidden + self.fc2(F.silu(self.fc1(self.norm2(hidden))))


def _norm(width: int, kind: Norm) -> nn.Module:
    return nn.LayerNorm(width) if kind == "layer" else nn.RMSNorm(width, eps=1e-5)


def _check(input_mode: str, depth: int, width: int, heads: int, colors: int, context: int, norm: str) -> None:
    """Raise `UserError` for invalid options."""
    if input_mode != "tokens":
        raise UserError(
            f"the input of gpt is color tokens, but the task requires {input_mode}: choose another encoder."
        )
    for name, value, limits in (
        ("depth", depth, DEPTH), ("heads", heads, HEADS), ("width", width, WIDTH), ("colors", colors, COLORS),
        ("context", context, CONTEXT),
    ):  # fmt: skip
        require_between(f"--{name} of gpt", value, *limits)
    if width % heads:
        raise UserError(f"--width of gpt must be a multiple of its {heads} heads, got {width}: try {64 * heads}.")
    if norm not in get_args(Norm):
        raise unknown("norm of gpt", norm, get_args(Norm))
