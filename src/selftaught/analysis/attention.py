"""Attention maps: where the activations of a layer are large, or the attention weights of a transformer.

RotNet (Gidaris, Singh, Komodakis, ICLR 2018, https://arxiv.org/abs/1803.07728, figure 3) shows, for every position, the
sum over channels of |activation| ** p, with p = 1, 2 and 4 for its first, second and third convolution. This is the
activation-based attention of Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017,
https://arxiv.org/abs/1612.03928, section 3.1. A larger power gives more weight to the strongest channels.

A `TokenEncoder` has attention proper. Without a class token there is no single query, so the map is the attention that
a patch receives, averaged over all queries, of each head of the last block and of their mean.
"""

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor

from selftaught.contracts import Encoder, TokenEncoder
from selftaught.errors import UserError, unknown

POWERS = (1.0, 2.0, 4.0)
"""Powers of RotNet's figure 3."""
MAX_POWER = 16.0
"""Larger powers show the single largest activation and overflow float32."""


def activation_map(feature: Tensor, power: float) -> Tensor:
    """(B, C, H, W) -> (B, H, W): sum over channels of |activation| ** power."""
    return feature.float().abs().pow(power).sum(1)


def attention_maps(
    encoder: Encoder, images: Tensor, layers: Sequence[str] = (), powers: Sequence[float] = POWERS
) -> dict[str, Tensor]:
    """Attention maps of images.

    Args:
        encoder: on the device of `images`; left in eval mode.
        images: (B, 3, H, W) in [0, 1].
        layers: layers whose activations are mapped; by default every layer with positions, or the attention of the
            last block where the encoder is a `TokenEncoder`.
        powers: P exponents of activations; attention weights have none and are the same for every power.

    Returns:
        Name -> (B, P, h, w) float32: layers; or "mean", "head 1", "head 2", ...

    Raises:
        UserError: a layer does not exist or has no positions, or a power is out of range.
    """
    if not powers or any(not 0 < power <= MAX_POWER for power in powers):
        given = " ".join(f"{power:g}" for power in powers) or "none"
        raise UserError(f"--powers expects numbers above 0 and up to {MAX_POWER:g}, got {given}.")
    for layer in layers:
        if layer not in encoder.layers:
            raise unknown("layer", layer, encoder.layers)
    encoder.eval()
    with torch.inference_mode():
        if isinstance(encoder, TokenEncoder) and not layers:
            received = _received(encoder, images)
            return {name: maps[:, None].expand(-1, len(powers), -1, -1) for name, maps in received.items()}
        features = encoder.features(encoder.preprocess(images))
        maps = {name: spatial(feature) for name, feature in features.items() if not layers or name in layers}
        missing = [name for name, feature in maps.items() if feature is None]
        if layers and missing:
            raise UserError(f"the layer {missing[0]} has no positions, so it has no attention map: omit it.")
        drawn = {
            name: torch.stack([activation_map(feature, power) for power in powers], 1)
            for name, feature in maps.items()
            if feature is not None
        }
    if not drawn:
        raise UserError("no layer of this encoder has positions, so there are no attention maps to draw.")
    if not all(feature.isfinite().all() for feature in drawn.values()):
        raise UserError("the activations contain infinity or NaN: use smaller --powers, or another run.")
    return drawn


def spatial(feature: Tensor) -> Tensor | None:
    """A feature as a map (B, C, H, W), or None if it has no positions.

    (B, L, D) is laid out row by row on a square, as the pixels of `gpt` are; L = 1 and other L have no positions.
    """
    if feature.ndim == 4:
        return feature if feature.shape[2] * feature.shape[3] > 1 else None
    if feature.ndim == 3 and (side := isqrt(feature.shape[1])) ** 2 == feature.shape[1] > 1:
        return feature.transpose(1, 2).reshape(len(feature), -1, side, side)
    return None


def _received(encoder: TokenEncoder, images: Tensor) -> dict[str, Tensor]:
    """The attention that each patch receives, averaged over queries: name -> (B, h, w)."""
    weights = encoder.attention(images).float()  # (B, heads, queries, keys)
    rows, columns = (side // encoder.patch for side in images.shape[-2:])
    heads = weights.mean(2).reshape(*weights.shape[:2], rows, columns)
    return {"mean": heads.mean(1), **{f"head {n + 1}": heads[:, n] for n in range(heads.shape[1])}}
