"""GPT on pixels: a transformer that reads an image as a row of colours, one token after the other.

Chen, Radford, Child, Wu, Jun, Luan, Sutskever, "Generative Pretraining from Pixels", ICML 2020 (iGPT).
http://proceedings.mlr.press/v119/chen20s.html (sections are given by name), and its release, openai/image-gpt.

What is unusual: its layers are the *inputs* of the next block, behind that block's norm, as the paper probes them
("Linear Probing": the average over positions of n^l = norm(h^l)), so a tap costs nothing; `embed` is n^0, from which
only the histogram of colours can be read. What it reads is the palette in `look`, learned by `fit`.

What it does not cover: continuous colours, and sparse attention (its cost grows with the fourth power of the side).

Letters: B images, L positions, D features, K colours of the palette.
"""

from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer, Source
from selftaught.encoders.palette import Palette
from selftaught.errors import UserError, unknown

Norm = Literal["layer", "rms"]
_QUICK = 1.702
"""Of the release's activation, x * sigmoid(1.702 x)."""


class GPT(Encoder):
    """A GPT-2 style transformer with layers `embed`, `block01`, `block02`, ... (B, L, D).

    Causal, position i sees what comes before it and not itself: its last layer is asked for the token at i. Otherwise
    every position sees all, and tokens equal to `hidden` are not seen by anyone.

    Args:
        size: side of the views in pixels.
        input_mode: "tokens", nothing else.
        causal: whether a position sees only those before it.
        depth: blocks. The paper's smallest, for a GPU: 24, with width 512 and 8 heads.
        width: features at each position.
        heads: of the attention, which share the width.
        colors: in the palette (the paper's 9 bits).
        context: side in pixels of the picture that is read: larger views are shrunk to it (the paper: 32, 48 or 64).
        norm: layer, as in the paper; rms, without mean and bias, as in the released code.

    Raises:
        UserError: something of this cannot be built.
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
        """The token of what is not shown; causal, of what stands before the first."""
        # Hidden is an embedding of zero (release: h * M), which padding holds at zero; the start token is learned.
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
        """Learn the palette."""
        self.preprocess.fit(source)

    def features(self, seen: Tensor) -> dict[str, Tensor]:
        """(B, L) int64 tokens -> (B, L, D) for every layer."""
        return dict(zip(self.layers, self._read(self._shifted(seen) if self.causal else seen), strict=True))

    def _shifted(self, seen: Tensor) -> Tensor:
        """Every token one place later, behind the start token; the last is nobody's past."""
        return F.pad(seen[:, :-1], (1, 0), value=self.hidden)

    def _read(self, tokens: Tensor, begin: int = 0, past: "list[Past] | None" = None) -> list[Tensor]:
        """What every layer says of tokens (B, n) at the places from `begin` on: depth + 1 times (B, n, D)."""
        hidden = self.tokens(tokens) + self.positions[begin : begin + tokens.shape[1]]
        found = []
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            normed = block.norm1(hidden)
            found.append(normed)
            hidden = block(hidden, normed, self.causal, None if past is None else past[number])
        return [*found, self.norm(hidden)]

    @torch.no_grad()
    def complete(
        self, tokens: Tensor, predict: Callable[[Tensor], Tensor], draws: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Go on with pictures, token by token, each drawn from what is predicted after all before it.

        Keys and values of the past are kept, so that a token costs one position and not all of them anew.

        Args:
            tokens: (B, n) int64, the first n of each picture; n may be 0.
            predict: (B, D) of the last layer -> (B, K) logits.
            draws: (B, L) uniform in [0, 1), one for each place: the randomness.
            temperature: below 1 draws the likely more often.

        Returns:
            (B, L) int64, beginning with `tokens`.
        """
        assert self.causal, "what sees both sides cannot go on from one"
        count, length = draws.shape
        past = [Past(self.positions, count, length) for _ in self.blocks]
        news, begin = F.pad(tokens, (1, 0), value=self.hidden), 0
        for place in range(tokens.shape[1], length):
            last = self._read(news, begin, past)[-1][:, -1]
            share = (predict(last).float() / temperature).softmax(1).cumsum(1)
            drawn = torch.searchsorted(share, draws[:, place, None] * share[:, -1:], right=True)
            news, begin = drawn.clamp(max=share.shape[1] - 1), place + 1
            tokens = torch.cat([tokens, news], 1)
        return tokens


class Past:
    """Keys and values of one block at the places already read."""

    def __init__(self, like: Tensor, count: int, length: int) -> None:
        self.kept = like.new_empty(2, count, length, like.shape[1])
        self.length = 0

    def extended(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values up to now, these (B, n, D) included."""
        begin, self.length = self.length, self.length + keys.shape[1]
        self.kept[0, :, begin : self.length], self.kept[1, :, begin : self.length] = keys, values
        return self.kept[0, :, : self.length], self.kept[1, :, : self.length]


class Block(nn.Module):
    """Attention, then a perceptron at each position, each behind a norm and added to what was ("Architecture").

    Without biases, as the release, and without dropout, as the paper's pretraining.
    """

    def __init__(self, width: int, heads: int, depth: int, norm: Norm) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = _norm(width, norm), _norm(width, norm)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.merge = nn.Linear(width, width, bias=False)
        self.widen = nn.Linear(width, 4 * width, bias=False)
        self.narrow = nn.Linear(4 * width, width, bias=False)
        # 1 / sqrt(inputs), and 1 / sqrt(inputs * depth) for what is added, as the release's attention. Its perceptron
        # begins with 0.02 whatever the width, which suits 512 and more and leaves narrow ones nearly silent.
        nn.init.normal_(self.qkv.weight, std=width**-0.5)
        nn.init.normal_(self.merge.weight, std=(width * depth) ** -0.5)
        nn.init.normal_(self.widen.weight, std=_QUICK * width**-0.5)
        nn.init.normal_(self.narrow.weight, std=(4 * width * depth) ** -0.5 / _QUICK)

    def forward(self, hidden: Tensor, normed: Tensor, causal: bool, past: Past | None = None) -> Tensor:
        """`hidden` and `norm1` of it, (B, n, D) each -> (B, n, D)."""
        query, key, value = self.qkv(normed).chunk(3, 2)
        if past is not None:
            key, value = past.extended(key, value)
        query, key, value = (x.unflatten(2, (self.heads, -1)).transpose(1, 2) for x in (query, key, value))
        # One new position with its past sees all there is: only a whole sequence needs the triangle.
        triangle = causal and query.shape[2] > 1
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=triangle)
        hidden = hidden + self.merge(attended.transpose(1, 2).flatten(2))
        # The release's x * sigmoid(1.702 x), which is about GELU, with the factor in the matrices on either side of it:
        # so it is one kernel, and takes half of GELU's time on a CPU.
        return hidden + self.narrow(F.silu(self.widen(self.norm2(hidden))))


def _norm(width: int, kind: Norm) -> nn.Module:
    return nn.LayerNorm(width) if kind == "layer" else nn.RMSNorm(width, eps=1e-5)


def _check(input_mode: str, depth: int, width: int, heads: int, colors: int, context: int, norm: str) -> None:
    """Refuse what cannot be built."""
    if input_mode != "tokens":
        raise UserError(
            f"gpt reads tokens, colours of a palette, but the task wants {input_mode}: choose another encoder."
        )
    for name, value in {"depth": depth, "heads": heads, "colors": colors, "context": context}.items():
        if value < (least := 2 if name == "colors" else 1):
            raise UserError(f"--{name} of gpt must be at least {least}, found {value}: give a larger one.")
    if width < 1 or width % heads:
        raise UserError(f"the width of gpt must be a multiple of its {heads} heads, found {width}: try {64 * heads}.")
    if norm not in get_args(Norm):
        raise unknown("norm of gpt", norm, get_args(Norm))
