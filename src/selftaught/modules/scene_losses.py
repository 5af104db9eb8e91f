"""Losses and errors of depth, surface normals and instance contours predicted for rendered images.

Ren and Lee 2018 and their released code, https://github.com/jason718/game-feature-learning. Every function takes a
mask or weights of the images, because real images in a batch have no targets. Computed in float32.

Letters: B images, S pixels along a view.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.modules.processes import average

MIN_CONTOURS = 350 / 227**2
"""Smallest fraction of contour pixels of an image that enters the contour loss (350 of 227 x 227 pixels)."""


def depth_loss(prediction: Tensor, depth: Tensor, rendered: Tensor) -> Tensor:
    """Half of the mean squared error of log depth plus half of the squared mean error of each image.

    The second term is that of the released code, which averages the error over the batch before squaring it. The
    scale-invariant error of Eigen et al. 2014 subtracts it.

    Args:
        prediction: (B, 1, S, S), log of the depth in meters.
        depth: (B, 1, S, S) meters, 0 where unknown.
        rendered: (B,) bool, the images with targets.

    Returns:
        The mean over the images that have valid depth; 0 if there are none.
    """
    error, valid = _log_error(prediction, depth, rendered)
    pixels = valid.sum((1, 2, 3))
    squared = error.square().sum((1, 2, 3)) / pixels.clamp(min=1)
    mean = error.sum((1, 2, 3)) / pixels.clamp(min=1)
    return _mean((squared + 0.5 * mean.square()) / 2, pixels > 0)


def normals_loss(prediction: Tensor, normals: Tensor, rendered: Tensor) -> Tensor:
    """One minus the cosine between predicted and true normals, averaged over the pixels with a normal.

    Args:
        prediction: (B, 3, S, S), of any length.
        normals: (B, 3, S, S) unit vectors, zero where undefined.
        rendered: (B,) bool, the images with targets.
    """
    cosine, valid = _cosine(prediction, normals, rendered)
    return _mean(1 - cosine, valid)


def contours_loss(prediction: Tensor, contours: Tensor, rendered: Tensor) -> Tensor:
    """Binary cross-entropy of contours, with one weight per image: (pixels - contour pixels) / contour pixels.

    Images with a smaller fraction of contour pixels than `MIN_CONTOURS` are left out; the released code leaves them out
    of all three losses.

    Args:
        prediction: (B, 1, S, S) logits.
        contours: (B, 1, S, S) in [0, 1].
        rendered: (B,) bool, the images with targets.
    """
    share = contours.mean((1, 2, 3))
    loss = F.binary_cross_entropy_with_logits(prediction.float(), contours, reduction="none").mean((1, 2, 3))
    return _mean(loss * (1 - share) / share.clamp(min=MIN_CONTOURS), rendered & (share >= MIN_CONTOURS))


def depth_errors(prediction: Tensor, depth: Tensor, rendered: Tensor) -> dict[str, Tensor]:
    """Root mean square error of log depth, and that of the batch's mean log depth as the trivial prediction."""
    error, valid = _log_error(prediction, depth, rendered)
    log = depth.clamp(min=1e-3).log()
    constant = log - _overall(log, valid)
    return {
        "depth_rmse": _overall(error.square(), valid).sqrt(),
        "depth_rmse_constant": _overall(constant.square(), valid).sqrt(),
    }


def normals_errors(prediction: Tensor, normals: Tensor, rendered: Tensor) -> dict[str, Tensor]:
    """Mean angle to the true normals in degrees, and that of the batch's mean normal as the trivial prediction."""
    total = average((normals * rendered[:, None, None, None]).sum((0, 2, 3)))
    constant = total[:, None, None].expand_as(normals)
    angles = {}
    for name, vectors in (("normals_degrees", prediction), ("normals_degrees_constant", constant)):
        cosine, valid = _cosine(vectors, normals, rendered)
        angles[name] = _overall(cosine.clamp(-1, 1).acos().rad2deg(), valid)
    return angles


def contours_errors(prediction: Tensor, contours: Tensor, rendered: Tensor) -> dict[str, Tensor]:
    """F1 score of contour pixels, and that of calling every pixel a contour as the trivial prediction."""
    pixels = rendered[:, None, None, None].expand_as(contours)
    true = (contours > 0.499) & pixels  # a line of two pixels at half the resolution may be 0.5 everywhere
    scores = {}
    for name, positive in (("contours_f1", (prediction > 0) & pixels), ("contours_f1_constant", pixels)):
        counts = torch.stack([(positive & true).sum(), positive.sum() + true.sum()]).float()
        hits, total = average(counts)
        scores[name] = 2 * hits / total.clamp(min=1e-6)
    return scores


def _log_error(prediction: Tensor, depth: Tensor, rendered: Tensor) -> tuple[Tensor, Tensor]:
    """Error of log depth, 0 where the depth is unknown, and the mask of valid pixels: (B, 1, S, S) each."""
    valid = (depth > 0) & rendered[:, None, None, None]
    return torch.where(valid, prediction.float() - depth.clamp(min=1e-3).log(), 0), valid


def _cosine(prediction: Tensor, normals: Tensor, rendered: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine between vectors and the mask of pixels with a normal: (B, S, S) each."""
    valid = (normals.square().sum(1) > 0.25) & rendered[:, None, None]
    return F.cosine_similarity(prediction.float(), normals, dim=1), valid


def _mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values, 0 if none is chosen, without synchronizing with the device.

    Of several processes each has its share of it: the mean over processes is that of all values.
    """
    return torch.where(chosen, values, 0).sum() / average(chosen.sum().float()).clamp(min=1e-6)


def _overall(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values of all processes, without gradients."""
    return average(_mean(values, chosen))
