"""The baselines of a probe: the same encoder with random weights, and raw pixels.

Random weights get the same input as trained ones, and their batch-norm statistics are computed on the training images
first: in eval mode an untrained batch normalization would otherwise pass its input through, which is another network
than the one that training starts from. It is mostly the stronger baseline: on 5,000 images of CIFAR-10 our convnet's
three layers gained 0.4, 1.7 and 1.2 points by it (mean of three seeds, 8 of 9 up); a net of six convolutions 0.6, -0.3
and -1.3 (one seed).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import affine
from selftaught.contracts import Encoder, Layer, Source, evenly_spaced
from selftaught.evaluation.features import DIMENSIONS, grid


class Pixels(Encoder):
    """The image itself as its only layer, average-pooled where it has too many pixels.

    Args:
        dimensions: the most numbers wanted.
    """

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.layers = {"pixels": Layer(3, 1)}
        self.input_mode = "color"
        self.preprocess = nn.Identity()

    def features(self, seen: Tensor) -> dict[str, Tensor]:
        """See `Encoder`; always averaged: a maximum of colours is no image."""
        return {"pixels": F.adaptive_avg_pool2d(seen, grid(3, seen.shape[-1], self.dimensions))}


def calibrate(
    encoder: Encoder, source: Source, size: int, device: torch.device, images: int = 2048, window: float = 1.0
) -> bool:
    """Set every batch normalization's statistics to those of whole images; all else is left as it is.

    Args:
        encoder: on `device`; left in eval mode.
        source: the images; `images` of them are taken, evenly spread, since a source may be in order of class.
        size: side of the views in pixels.
        device: where to compute.
        images: how many.
        window: side of the center crop as a fraction of the image; 1 is the whole image.

    Returns:
        Whether the encoder has batch normalization.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return False
    momenta = [norm.momentum for norm in norms]
    encoder.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
        norm.train()
    chosen = evenly_spaced(images, len(source))
    with torch.no_grad():
        for indices in chosen.chunk(max(1, len(chosen) // 256)):
            batch = source.batch(indices, device)
            matrix = affine(width=window, height=window, count=len(batch))
            encoder.features(encoder.preprocess(batch.warp(matrix, size)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
    return True
