"""Geometry of dense targets: depth, normals, contours and instance ids are warped exactly as their image.

Conventions (also of `Batch.targets`):

- depth (B, 1, H, W): meters along the viewing axis of the camera (the z coordinate, not the length of the ray); 0 where
  it is unknown or infinite, as in the sky.
- normals (B, 3, H, W): unit vectors of surfaces in camera space: x to the right, y up, z toward the camera (OpenGL,
  Hypersim); the zero vector where undefined.
- contours (B, 1, H, W): in [0, 1], 1 on the boundary between two instances.
- instances (B, 1, H, W): integer ids as floats, 0 for the background; ids of two images are unrelated.

Depth and normals are averaged over the valid pixels only, so what is undefined does not bleed into its surroundings; a
pixel less than half of which is valid is undefined. Depth is not rescaled by a zoom, and normals are not changed by
one: a crop is a smaller field of view of the same camera, with an axis that differs from the crop's center.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.warp import positions, resample, to_device

DENSE_TARGETS = ("depth", "normals", "contours", "instances")
"""All names of dense targets."""
MIN_SHARE = 0.5
"""Smallest valid share of an output pixel's area that makes the pixel valid."""
MIN_LENGTH = 1e-3
"""Smallest length of an average of normals: below, they cancel out and the average has no direction."""


def warp_dense(name: str, values: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Sample dense targets through a geometry.

    Args:
        name: one of `DENSE_TARGETS`.
        values: (B, C, H, W) float.
        matrix: (B, 3, 3), or (B, K, 3, 3) for K views of each image; float32 on the CPU.
        size: side of the output in pixels.

    Returns:
        (B, C, size, size), or (B, K, C, size, size).
    """
    if name == "depth":
        return warp_depth(values, matrix, size)
    if name == "normals":
        return warp_normals(values, matrix, size)
    if name == "instances":
        return sample_nearest(values, matrix, size)
    assert name == "contours", name
    return resample(values, matrix, size)


def warp_depth(depth: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Average depth over valid pixels; see `warp_dense`."""
    total, share = _weighted(depth, (depth > 0).to(depth.dtype), matrix, size)
    return torch.where(share >= MIN_SHARE, total / share.clamp(min=MIN_SHARE), 0)


def warp_normals(normals: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Average normals over valid pixels, turn them with the image and normalize them; see `warp_dense`.

    They are turned by the rotation or reflection nearest to the matrix, and mirrored where the image is continued by
    mirroring beyond its border.
    """
    valid = (normals.norm(dim=1, keepdim=True) > MIN_LENGTH).to(normals.dtype)
    total, share = _weighted(normals, valid, matrix, size)
    turned = torch.cat((_turned(total[..., :2, :, :], matrix, size), total[..., 2:, :, :]), dim=-3)
    length = turned.norm(dim=-3, keepdim=True)
    return torch.where((share >= MIN_SHARE) & (length > MIN_LENGTH), turned / length.clamp(min=MIN_LENGTH), 0)


def sample_nearest(values: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Sample the nearest pixel, for ids, which cannot be averaged; see `warp_dense`."""
    views = matrix if matrix.ndim == 4 else matrix[:, None]
    count, copies = views.shape[:2]
    flat = to_device(views.reshape(-1, 3, 3).to(values.dtype), values.device)
    owners = values if copies == 1 else values.repeat_interleave(copies, 0)
    grid = positions(flat, size)
    out = F.grid_sample(owners, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    out = out.reshape(count, copies, *out.shape[1:])
    return out if matrix.ndim == 4 else out[:, 0]


def contours_of(instances: Tensor) -> Tensor:
    """Contours of instances: pixels with a neighbor (above, below, left or right) of another instance.

    Args:
        instances: (..., H, W) ids.

    Returns:
        (..., H, W) bool. Lines are two pixels wide, one on each side of the boundary, so a mirrored image has the
        mirrored contours.
    """
    contours = torch.zeros_like(instances, dtype=torch.bool)
    across = instances[..., 1:] != instances[..., :-1]
    down = instances[..., 1:, :] != instances[..., :-1, :]
    contours[..., 1:] |= across
    contours[..., :-1] |= across
    contours[..., 1:, :] |= down
    contours[..., :-1, :] |= down
    return contours


def _weighted(values: Tensor, valid: Tensor, matrix: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sample the sum of valid values, and the valid share of each pixel."""
    sampled = resample(torch.cat((values * valid, valid), 1), matrix, size)
    return sampled[..., :-1, :, :], sampled[..., -1:, :, :]


def _turned(xy: Tensor, matrix: Tensor, size: int) -> Tensor:
    """The first two components of sampled normals, turned with the image: (B, [K,] 2, size, size)."""
    linear = matrix[..., :2, :2]
    (a, b), (c, d) = linear[..., 0, :].unbind(-1), linear[..., 1, :].unbind(-1)
    cofactors = torch.stack((torch.stack((d, -c), -1), torch.stack((-b, a), -1)), -2)
    nearest = linear + torch.sign(a * d - b * c)[..., None, None] * cofactors  # orthogonal, up to a factor
    nearest = nearest / nearest[..., 0, :].norm(dim=-1).clamp(min=1e-12)[..., None, None]
    # The content moves by the inverse, the transpose. Both matrices are for y down, normals have y up.
    axes = torch.tensor([1.0, -1.0])
    turn = to_device((axes[:, None] * nearest.transpose(-1, -2) * axes).to(xy.dtype), xy.device)
    flat = to_device(matrix.reshape(-1, 3, 3).to(xy.dtype), xy.device)
    reflections = torch.floor((positions(flat, size) + 1) / 2).remainder(2)  # 1 where mirrored an odd number of times
    mirrored = (1 - 2 * reflections).permute(0, 3, 1, 2).reshape(xy.shape)
    return torch.einsum("...ij,...jhw->...ihw", turn, xy * mirrored)
