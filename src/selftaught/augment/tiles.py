"""Tiles: a square grid of windows cut from a view, each randomly displaced, and operations that remove shortcuts.

    crop[:, None] @ grid_tiles(...)   one crop per image, then its tiles: one resampling, at the scale of the crop

All lengths are fractions of the view's side, so that one setting is valid for 64 and 256 pixels. Tiles are in row-major
order: tile k of a grid of n x n is in row k // n and column k % n.

Letters: B images, K tiles per image, n tiles of all images.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.draws import rand, randint
from selftaught.augment.warp import affine, to_device
from selftaught.errors import UserError

TileNormalization = Literal["color", "rms", "mean", "none"]
"""Statistics that all tiles share after `normalize_tiles`."""

MIN_PIXELS = 3
"""Minimum side of a tile in pixels."""

MIN_TILE = 16
"""Side in pixels below which tiles contain too little to learn from: tiles of 8 pixels, from images of 32, taught
nothing."""


def tile_pixels(size: int, tile: float) -> int:
    """Side in pixels of a tile that is the fraction `tile` of a view of `size` pixels, rounded down so that tiles fit.

    Raises:
        UserError: the tile is smaller than `MIN_PIXELS`.
    """
    pixels = int(size * tile + 1e-6)
    if pixels < MIN_PIXELS:
        raise UserError(
            f"tiles must have at least {MIN_PIXELS} pixels per side, got {max(pixels, 0)} (--tile {tile:g} of "
            f"--size {size}); increase --size."
        )
    return pixels


def require_fit(grid: int, tile: float, gap: float, jitter: float) -> None:
    """Reject an invalid grid of tiles, or one that does not fit into the view; arguments as in `grid_tiles`."""
    if grid < 2:
        raise UserError(f"--grid must be at least 2 tiles per side, got {grid}; the default is 3.")
    if tile <= 0 or gap < 0 or jitter < 0:
        raise UserError(
            f"--tile must be above 0, and --gap and jitter at least 0, got --tile {tile:g}, --gap {gap:g} and jitter "
            f"{jitter:g}."
        )
    needed = grid * tile + (grid - 1) * gap + 2 * jitter
    if needed > 1 + 1e-6:
        raise UserError(
            f"{grid} tiles of {tile:g} with gaps of {gap:g} and a jitter of {jitter:g} have a width of {needed:.3g}, "
            "but must fit into the view, whose side is 1; decrease --tile or --gap."
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
    """Windows on a grid; the grid has a random position in the view, and each window a random displacement.

    The defaults are the nine tiles of Noroozi and Favaro: a view of 255 pixels, cells of 85, tiles of 64 at random in
    their cells (so neighbors are 0 to 42 pixels apart, 21 on average).

    Args:
        count: number of views.
        generator: random generator.
        grid: tiles along a side of the grid.
        tile: side of a tile.
        gap: mean distance between neighboring tiles.
        jitter: largest displacement of a tile in each direction; None is half of `gap`, the largest without overlap.
        margin: extra border on each side of a tile, for `shift_channels` to cut off.

    Returns:
        (count, grid * grid, 3, 3), row by row.
    """
    jitter = gap / 2 if jitter is None else jitter
    require_fit(grid, tile, gap, jitter)
    pitch, room = tile + gap, 1 - (grid * tile + (grid - 1) * gap + 2 * jitter)
    place = torch.arange(grid * grid)
    corner = torch.stack([place % grid, place // grid], 1) * pitch + jitter  # (K, 2): x, y of the top left, 0 to 1
    origin = max(room, 0.0) * rand(count, 1, 2, generator=generator)
    displacement = jitter * (2 * rand(count, grid * grid, 2, generator=generator) - 1)
    x, y = (2 * (corner + origin + displacement) + tile - 1).reshape(-1, 2).unbind(1)
    side = tile + 2 * margin
    matrices = affine(x=x, y=y, width=side, height=side, count=count * grid * grid)
    return matrices.reshape(count, grid * grid, 3, 3)


def shift_channels(tiles: Tensor, margin: int, generator: torch.Generator) -> Tensor:
    """Shift the color channels of each tile by whole pixels, each by up to `margin` in both directions.

    A lens magnifies the three colors slightly differently, so their offset reveals a tile's position in the photo
    (chromatic aberration); after a random shift it does not.

    Args:
        tiles: (n, 3, t + 2 * margin, t + 2 * margin).
        margin: pixels to cut off on each side, 0 or more.
        generator: random generator.

    Returns:
        (n, 3, t, t).
    """
    if not margin:
        return tiles
    count, side = len(tiles), tiles.shape[-1] - 2 * margin
    first = randint(2 * margin + 1, 2, count, 3, 1, generator=generator, axis=1)
    row, column = to_device(first + torch.arange(side), tiles.device)  # (n, 3, t) each
    wide = tiles.shape[-1]
    rows = tiles.gather(2, row[..., None].expand(-1, -1, -1, wide))
    return rows.gather(3, column[:, :, None].expand(-1, -1, side, -1))


def pixelate(tiles: Tensor, chosen: Tensor, side: int) -> Tensor:
    """Downsample some tiles to `side` pixels and upsample them again.

    Args:
        tiles: (n, C, t, t).
        chosen: (n,) 1 to pixelate, 0 for no change.
        side: side of the downsampled tiles in pixels.
    """
    small = F.interpolate(tiles, size=(side, side), mode="bilinear", antialias=True)
    coarse = F.interpolate(small, size=tiles.shape[-2:], mode="bilinear")
    return torch.where(to_device(chosen, tiles.device).bool()[:, None, None, None], coarse, tiles)


def mosaic(tiles: Tensor, gap: int = 1) -> Tensor:
    """Arrange tiles in a grid on white: (B, n * n, 3, t, t) -> (B, 3, n * (t + gap) - gap, ...) in [0, 1]."""
    count, places, channels, side = tiles.shape[:4]
    grid = math.isqrt(places)
    framed = F.pad(tiles.clamp(0, 1), (0, gap, 0, gap), value=1.0)
    rows = framed.reshape(count, grid, grid, channels, side + gap, side + gap).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(count, channels, grid * (side + gap), grid * (side + gap))[..., : -gap or None, : -gap or None]


MEAN, DEVIATION = 0.449, 0.226
"""Mean and standard deviation over ImageNet and color channels (torchvision's 0.485, 0.456, 0.406 and 0.229, ...)."""


def normalize_tiles(tiles: Tensor, what: TileNormalization = "color") -> Tensor:
    """Remove brightness, contrast and tint, which neighboring tiles share.

    The result has the statistics of an average photo instead of 0 and 1, because the encoder's preprocessing expects
    colors in about [0, 1], as in the whole images of a later probe.

    Args:
        tiles: (n, C, t, t) in [0, 1].
        what: "color": every channel of every tile has mean 0.449 and standard deviation 0.226; "rms": every tile over
            all channels; "mean": only the mean, over all channels; "none": no normalization.

    Returns:
        (n, C, t, t); values may exceed [0, 1].
    """
    if what == "none":
        return tiles
    over = (2, 3) if what == "color" else (1, 2, 3)
    mean = tiles.mean(over, keepdim=True)
    if what == "mean":
        return tiles - mean + MEAN
    # Deviations below two 8-bit steps are rounding noise, which would be amplified to a texture.
    deviation = tiles.std(over, keepdim=True, correction=0).clamp(min=2 / 255)
    return (tiles - mean) * (DEVIATION / deviation) + MEAN
