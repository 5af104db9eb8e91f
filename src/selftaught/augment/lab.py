"""Conversion between sRGB and CIE L*a*b* (D65), which separates lightness from color and is perceptually uniform.

L is between 0 (black) and 100 (white); for sRGB colors a (green to red) is between -86 and 98, and b (blue to yellow)
between -108 and 94; both are 0 for gray. Sources: IEC 61966-2-1 (sRGB) and CIE 15 (Lab). All operations are
elementwise, so autocast does not reduce their precision, and have finite gradients everywhere.

One difference to scikit-image, below 0.01: its white point is D65 rounded to five digits; here it is computed from the
matrix and full red, green and blue, so that gray has a and b of exactly 0.
"""

import torch
from torch import Tensor

_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
"""Linear sRGB to XYZ. Each row is divided by its sum, the X, Y or Z of white, to which Lab is relative."""
_RELATIVE = tuple(tuple(weight / sum(row) for weight in row) for row in _TO_XYZ)
_BACK = tuple(map(tuple, torch.linalg.inv(torch.tensor(_RELATIVE, dtype=torch.float64)).tolist()))
_KNEE = 6 / 29
"""Below this root the function is linear (dark colors)."""


def rgb_to_lab(images: Tensor) -> Tensor:
    """(..., 3, H, W) sRGB in [0, 1] -> (..., 3, H, W): L, a and b."""
    x, y, z = (_root(_mixed(_linear(images), weights)) for weights in _RELATIVE)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -3)


def rgb_to_lightness(images: Tensor) -> Tensor:
    """(..., 3, H, W) sRGB in [0, 1] -> (..., 1, H, W): L alone, at a third of the cost."""
    return 116 * _root(_mixed(_linear(images), _RELATIVE[1])).unsqueeze(-3) - 16


def lab_to_rgb(lab: Tensor) -> Tensor:
    """(..., 3, H, W) of L, a and b -> (..., 3, H, W) sRGB; colors outside of its gamut are clamped to [0, 1]."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    xyz = torch.stack([_cube(root) for root in (y + a / 500, y, y - b / 200)], -3)
    linear = torch.stack([_mixed(xyz, weights) for weights in _BACK], -3)
    # IEC 61966-2-1: linear light to sRGB values.
    rgb = torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)
    return rgb.clamp(0, 1)


def gamut(step: float = 10.0) -> Tensor:
    """Centers of the cells of a square grid over a and b that contain sRGB colors: (Q, 2), Q is 261 for steps of 10.

    A cell is included if its center is the nearest one to any of the 256^3 8-bit colors, of any L. Every third level on
    the faces of the color cube suffices for steps of 10: from any color, a line of constant a and b meets a face.
    Zhang, Isola and Efros (2016) have 313 cells; their released list is a larger set, of unknown rule.
    """
    levels = torch.arange(0, 256, 3) / 255
    first, second = torch.cartesian_prod(levels, levels).unbind(1)
    faces = [(torch.full_like(first, end), first, second) for end in (0.0, 1.0)]
    turned = [torch.stack(face[turn:] + face[:turn]) for face in faces for turn in range(3)]
    colors = rgb_to_lab(torch.cat(turned, 1)[:, :, None])[1:, :, 0]
    return step * torch.unique((colors / step).round(), dim=1).T


def _mixed(pictures: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Weighted sum over channels, (..., 3, H, W) -> (..., H, W); not a matrix product, which autocast would round."""
    first, second, third = pictures.unbind(-3)
    return weights[0] * first + weights[1] * second + weights[2] * third


def _linear(images: Tensor) -> Tensor:
    """IEC 61966-2-1: sRGB values to linear light."""
    return torch.where(images <= 0.04045, images / 12.92, ((images + 0.055) / 1.055).clamp(min=0) ** 2.4)


def _root(light: Tensor) -> Tensor:
    """CIE 15: the cube root, linear for dark colors."""
    # The clamp changes no value; it removes the infinite slope of the cube root at black from the gradient.
    return torch.where(light > _KNEE**3, light.clamp(min=_KNEE**3) ** (1 / 3), light / (3 * _KNEE**2) + 4 / 29)


def _cube(root: Tensor) -> Tensor:
    """The inverse of `_root`."""
    return torch.where(root > _KNEE, root**3, 3 * _KNEE**2 * (root - 4 / 29))
