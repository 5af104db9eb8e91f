"""Raw pixels as an encoder: the baseline that every representation should exceed."""

import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer
from selftaught.encoders.preprocess import make_preprocess


class Pixels(Encoder):
    """Raw pixels (fixed, without parameters): the only layer is the image itself.

    Args:
        size: side of the views in pixels; the encoder is the same for every size.
        input_mode: input channels, see `preprocess.py`. "color" is not normalized.
        pooled_side: average-pool the image to at most this side, for a limited number of dimensions; None does not.
    """

    def __init__(self, *, size: int = 32, input_mode: str = "color", pooled_side: int | None = None) -> None:
        super().__init__()
        self.input_mode, self.pooled_side = input_mode, pooled_side
        fitting = make_preprocess(input_mode)
        self.preprocess = nn.Identity() if input_mode == "color" else fitting
        self.layers = {"pixels": Layer(fitting.channels, 1)}

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """See `Encoder`; always average-pooled, since the maximum over pixels mixes colors of different pixels."""
        side = min(inputs.shape[-1], self.pooled_side or inputs.shape[-1])
        return {"pixels": inputs if side == inputs.shape[-1] else F.adaptive_avg_pool2d(inputs, side)}
