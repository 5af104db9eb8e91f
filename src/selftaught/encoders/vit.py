"""A small vision transformer for images of 32 to 128 pixels that exposes its tokens and its attention.

Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021. https://arxiv.org/abs/2010.11929
Positions are fixed sine-cosine embeddings of row and column, as in He et al. 2022 (MAE), so that views of any size can
be encoded. There is no class token; features are patch tokens after the final norm, as DINO probes them. The blocks are
timm's. Pretrained transformers are available as `timm:vit_...`.

Letters: B images, L tokens, D channels.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from selftaught.contracts import Layer, TokenEncoder
from selftaught.encoders.preprocess import make_preprocess
from selftaught.errors import UserError, require_between
from selftaught.limits import DEPTH, HEADS, WIDTH


class ViT(TokenEncoder):
    """A vision transformer with layers `block01`, `block02`, ... as maps (B, D, H / patch, W / patch).

    Args:
        size: side of the views in pixels, a multiple of `patch`.
        input_mode: input channels, see `preprocess.py`.
        patch: side of a patch in pixels; None takes an eighth of the size, at least 2.
        depth: number of blocks.
        width: channels, a multiple of four times `heads`.
        heads: attention heads.

    Raises:
        UserError: the size is not a multiple of the patch, or the width not one of four times the heads.
    """

    def __init__(
        self,
        *,
        size: int = 32,
        input_mode: str = "color",
        patch: int | None = None,
        depth: int = 6,
        width: int = 192,
        heads: int = 3,
    ) -> None:
        from timm.models.vision_transformer import Block  # here, because importing timm takes seconds

        super().__init__()
        patch = max(2, size // 8) if patch is None else patch
        _check(size, patch, depth, width, heads)
        self.patch, self.width, self.heads = patch, width, heads
        self.input_mode, self.preprocess = input_mode, (preprocess := make_preprocess(input_mode))
        self.embed = nn.Conv2d(preprocess.channels, width, patch, stride=patch)
        self.blocks = nn.ModuleList(Block(width, heads, qkv_bias=True) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.layers = {f"block{number:02}": Layer(width, patch) for number in range(1, depth + 1)}
        # As MAE: the patch embedding is initialized like a linear layer, linear layers by Xavier's uniform.
        nn.init.xavier_uniform_(self.embed.weight.view(width, -1))
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def tokens(self, images: Tensor) -> Tensor:
        """See `TokenEncoder`."""
        return self._embedded(self.preprocess(images))

    def encode(self, tokens: Tensor, keep: Tensor | None = None) -> dict[str, Tensor]:
        """See `TokenEncoder`."""
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[2]))
        features = {}
        for name, block in zip(self.layers, self.blocks, strict=True):
            tokens = block(tokens)
            features[name] = self.norm(tokens)
        return features

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> (B, D, H / patch, W / patch) for every layer."""
        rows, columns = (side // self.patch for side in inputs.shape[-2:])
        encoded = self.encode(self._embedded(inputs))
        return {name: x.transpose(1, 2).reshape(len(x), -1, rows, columns) for name, x in encoded.items()}

    def attention(self, images: Tensor) -> Tensor:
        """See `TokenEncoder`."""
        tokens = self.tokens(images)
        *earlier, last = self.blocks
        for block in earlier:
            tokens = block(tokens)
        block = cast(Any, last)  # timm's classes are not typed
        qkv: Tensor = block.attn.qkv(block.norm1(tokens))
        query, key, _ = qkv.reshape(*qkv.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return (query.float() @ key.float().transpose(2, 3) * query.shape[3] ** -0.5).softmax(3)

    def _embedded(self, inputs: Tensor) -> Tensor:
        height, width = inputs.shape[-2:]
        if height % self.patch or width % self.patch:
            raise UserError(
                f"vit expects views whose side is a multiple of its patches of {self.patch} pixels, got {height}: "
                "choose another --size, --crop or --patch."
            )
        embedded: Tensor = self.embed(inputs).flatten(2).transpose(1, 2)
        return embedded + positions(height // self.patch, width // self.patch, self.width).to(embedded)


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Sine-cosine embeddings of a grid, (rows * columns, width): half the channels for the row, half for the column.

    Vaswani et al. 2017, section 3.5, in two dimensions: frequencies from 1 to 1 / 10,000.
    """
    frequency = 10_000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))

    def axis(length: int) -> Tensor:
        angle = torch.arange(length, dtype=torch.float64)[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], 1)

    row, column = axis(rows)[:, None].expand(-1, columns, -1), axis(columns)[None].expand(rows, -1, -1)
    return torch.cat([row, column], 2).flatten(0, 1).float()


def _check(size: int, patch: int, depth: int, width: int, heads: int) -> None:
    if patch < 1 or size % patch:
        raise UserError(f"vit expects --size to be a multiple of --patch, got {size} and {patch}.")
    for name, value, limits in (("depth", depth, DEPTH), ("heads", heads, HEADS), ("width", width, WIDTH)):
        require_between(f"--{name} of vit", value, *limits)
    if width % (4 * heads):
        raise UserError(f"vit expects --width to be a multiple of {4 * heads} with {heads} heads, got {width}.")
