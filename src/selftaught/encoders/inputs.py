"""Whether an encoder can process images of certain sizes."""

import logging
from collections.abc import Mapping

import torch

from selftaught.augment.tiles import MIN_TILE
from selftaught.contracts import Encoder
from selftaught.errors import UserError


def require_input_sizes(encoder: Encoder, sizes: Mapping[str, int]) -> None:
    """Reject an encoder that cannot process images of some size, because of its strides or its patch size.

    Logs a warning if tiles contain too little to learn from.

    Args:
        encoder: the encoder.
        sizes: sides in pixels, by kind of image, see `Task.view_sizes`.

    Raises:
        UserError: the encoder cannot process them.
    """
    for kind, side in sizes.items():
        if kind == "tile" and side < MIN_TILE:
            message = "tiles of %d pixels contain too little to learn from; a larger --size gives better features"
            logging.getLogger(__name__).warning(message, side)
        try:
            _forward(encoder, side)
        except (AssertionError, RuntimeError, ValueError) as error:  # the type depends on the encoder
            flag = "--size" if kind.endswith("view") else f"--size or --{kind}"
            raise UserError(
                f"the encoder cannot process {kind}s of {side} pixels: increase {flag}, or choose another --encoder."
            ) from error


def _forward(encoder: Encoder, side: int) -> None:
    training = encoder.training
    device = next((weight.device for weight in encoder.parameters()), torch.device("cpu"))
    try:
        with torch.no_grad():
            encoder.eval()(torch.zeros(1, 3, side, side, device=device))
    finally:
        encoder.train(training)
