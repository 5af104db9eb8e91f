"""Tiles: a square grid of windows cut from one view, each moved a little, and what takes the giveaways out of them.

    crop[:, None] @ grid_tiles(...)   one crop per image, then its tiles: one resample, and tiles at the crop's zoom

All lengths are shares of the view's side, so that one setting serves 64 and 256 pixels; row by row, tile k of a grid of
n x n stands in row k // n and column k % n.

Letters: B images, K tiles of an image, n tiles of all images.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.warp import affine, to_device
from selftaught.errors import UserError

Evening = Literal["color", "rms", "mean", "none"]
"""What tiles are given in common, see `normalize_tiles`."""

LEAST = 3
"""Pixels along the smallest tile in which there is anything to see."""


def tile_pixels(size: int, tile: float) -> int:
    """Side in pixels of a tile that is the share `tile` of a view of `size` pixels, rounded down so that tiles fit.

    Raises:
        UserError: nothing can be seen in so small a tile.
    """
    pixels = int(size * tile + 1e-6)
    if pixels < LEAST:
        raise UserError(
            f"a tile needs at least {LEAST} pixels a side, found {max(pixels, 0)} (--tile {tile:g} of --size {size}): "
            "give a larger --size."
        )
    return pixels


def require_fit(grid: int, tile: float, gap: float, jitter: float) -> None:
    """Refuse a grid of tiles that is none or does not fit into its view; arguments as in `grid_tiles`."""
    if grid < 2:
        raise UserError(f"a grid needs at least 2 tiles a side, found {grid}: give --grid 3.")
    if tile <= 0 or gap < 0 or jitter < 0:
        raise UserError(
            f"tiles need --tile above 0 and gaps of at least 0, found --tile {tile:g}, --gap {gap:g}, jitter "
            f"{jitter:g}: leave them out."
        )
    needed = grid * tile + (grid - 1) * gap + 2 * jitter
    if needed > 1 + 1e-6:
        raise UserError(
            f"a row of tiles must fit into the view, whose side is 1, found {grid} tiles of {tile:g} with gaps of "
            f"{gap:g} and a jitter of {jitter:g}, {needed:.3g} in all: give a smaller --tile or --gap."
        )


def grid_tiles(
    count: int,
    generator: torch.Generator,
    *,
    grid: int = 3,
    tile: float = 1 / 4,
    gap: float = 1 / 12,
    jitter: float | None = None,
    margin: float = 0.0,
) -> Tensor:
    """Windows on a grid, the grid at random in the view and each window at random about its place.

    By default Noroozi and Favaro's nine: a view of 255 pixels, cells of 85, tiles of 64 anywhere in their cells (so
    neighbours are 0 to 42 pixels apart, 21 in the mean).

    Args:
        count: how many views.
        generator: of the randomness.
        grid: tiles along a side of the grid.
        tile: side of a tile.
        gap: mean distance between neighbouring tiles.
        jitter: how far each tile strays from its place in either direction; None is half of `gap`, as far as tiles go
            without overlapping.
        margin: how much more is shown on each side of a tile, for `shift_channels` to cut off.

    Returns:
        (count, grid * grid, 3, 3), row by row.
    """
    jitter = gap / 2 if jitter is None else jitter
    require_fit(grid, tile, gap, jitter)
    pitch, room = tile + gap, 1 - (grid * tile + (grid - 1) * gap + 2 * jitter)
    place = torch.arange(grid * grid)
    corner = torch.stack([place % grid, place // grid], 1) * pitch + jitter  # (K, 2): x, y of the top left, 0 to 1
    origin = max(room, 0.0) * torch.rand(count, 1, 2, generator=generator)
    stray = jitter * (2 * torch.rand(count, grid * grid, 2, generator=generator) - 1)
    x, y = (2 * (corner + origin + stray) + tile - 1).reshape(-1, 2).unbind(1)
    side = tile + 2 * margin
    matrices = affine(x=x, y=y, width=side, height=side, count=count * grid * grid)
    return matrices.reshape(count, grid * grid, 3, 3)


def shift_channels(tiles: Tensor, margin: int, generator: torch.Generator) -> Tensor:
    """Move red, green and blue of each tile apart by whole pixels, each by up to `margin` to every side.

    A lens draws the three colours at slightly different magnifications, so their offset tells where in a photo a tile
    was: chromatic aberration, noise after this.

    Args:
        tiles: (n, 3, t + 2 * margin, t + 2 * margin).
        margin: pixels to cut off on each side, 0 or more.
        generator: of the randomness.

    Returns:
        (n, 3, t, t).
    """
    if not margin:
        return tiles
    count, side = len(tiles), tiles.shape[-1] - 2 * margin
    first = torch.randint(2 * margin + 1, (2, count, 3, 1), generator=generator)
    row, column = to_device(first + torch.arange(side), tiles.device)  # (n, 3, t) each
    wide = tiles.shape[-1]
    rows = tiles.gather(2, row[..., None].expand(-1, -1, -1, wide))
    return rows.gather(3, column[:, :, None].expand(-1, -1, side, -1))


def pixelate(tiles: Tensor, chosen: Tensor, side: int) -> Tensor:
    """Shrink some tiles to `side` pixels and magnify them again.

    Args:
        tiles: (n, C, t, t).
        chosen: (n,) 1 to do it, 0 to leave the tile as it is.
        side: pixels along the shrunk tile.
    """
    small = F.interpolate(tiles, size=(side, side), mode="bilinear", antialias=True)
    coarse = F.interpolate(small, size=tiles.shape[-2:], mode="bilinear")
    return torch.where(to_device(chosen, tiles.device).bool()[:, None, None, None], coarse, tiles)


def mosaic(tiles: Tensor, gap: int = 1) -> Tensor:
    """Tiles side by side for people, on white: (B, n * n, 3, t, t) -> (B, 3, n * (t + gap) - gap, ...) in [0, 1]."""
    count, places, channels, side = tiles.shape[:4]
    grid = math.isqrt(places)
    framed = F.pad(tiles.clamp(0, 1), (0, gap, 0, gap), value=1.0)
    rows = framed.reshape(count, grid, grid, channels, side + gap, side + gap).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(count, channels, grid * (side + gap), grid * (side + gap))[..., : -gap or None, : -gap or None]


MEAN, DEVIATION = 0.449, 0.226
"""Of a pixel over ImageNet's photos, the three colours averaged (torchvision's 0.485, 0.456, 0.406 and 0.229, ...)."""


def normalize_tiles(tiles: Tensor, what: Evening = "color") -> Tensor:
    """Even out what tells which tiles were neighbours: their light and tint.

    Not 0 and 1 but those of a usual photo: an encoder's `look` goes on from colours in about [0, 1], here and on the
    whole images that it will read later, and should find the two alike.

    Args:
        tiles: (n, C, t, t) in [0, 1].
        what: "color", every colour of every tile has mean 0.449 and deviation 0.226; "rms", every tile as a whole has;
            "mean", it has that mean; "none".

    Returns:
        (n, C, t, t); a bright spot may pass 1, a dark one 0.
    """
    if what == "none":
        return tiles
    over = (2, 3) if what == "color" else (1, 2, 3)
    mean = tiles.mean(over, keepdim=True)
    if what == "mean":
        return tiles - mean + MEAN
    # Below two 8-bit steps a deviation is the noise of rounding, and would be magnified to a texture of its own.
    deviation = tiles.std(over, keepdim=True, correction=0).clamp(min=2 / 255)
    return (tiles - mean) * (DEVIATION / deviation) + MEAN
