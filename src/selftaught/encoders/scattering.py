"""Wavelet scattering: a fixed encoder without parameters, the classical baseline of early layers.

Oyallon and Mallat, "Deep Roto-Translation Scattering for Object Classification", CVPR 2015; Oyallon, Belilovsky,
Zagoruyko, "Scaling the Scattering Transform: Deep Hybrid Networks", ICCV 2017. https://arxiv.org/abs/1703.08961
Morlet wavelets of J scales and L orientations, modulus and a low-pass filter that averages over 2^J pixels; a
coefficient of order 2 is the scattering of a modulus of order 1. The transform is kymatio's (JMLR 2020).

Coefficients of order 2 are much smaller than those of order 0, so every channel is standardized by a batch norm without
affine parameters, as in kymatio's CIFAR example. Its statistics must be computed on images before an evaluation, like
those of random weights: see `evaluation/baselines/encoders.py`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer
from selftaught.encoders.preprocess import make_preprocess
from selftaught.errors import NotApplicable, UserError


class Scattering(Encoder):
    """Wavelet scattering (fixed, without parameters), with layers `order1` and `order2`.

    `order1` has the coefficients of orders 0 and 1, `order2` those of orders 0, 1 and 2: 51 and 243 channels from color
    with 2 scales and 8 orientations.

    Args:
        size: side of the views in pixels; determines the default number of scales.
        input_mode: input channels, see `preprocess.py`.
        scales: number of scales J; maps have a stride of 2^J. None takes 2 up to 48 pixels, 3 up to 96, 4 above.
        orientations: number of orientations L of the wavelets.

    Raises:
        UserError: kymatio is not installed, or the number of scales or orientations is not possible.
    """

    def __init__(
        self, *, size: int = 32, input_mode: str = "color", scales: int | None = None, orientations: int = 8
    ) -> None:
        super().__init__()
        _kymatio()
        scales = (2 if size <= 48 else 3 if size <= 96 else 4) if scales is None else scales
        if not 1 <= scales < size.bit_length():  # 2**scales would be computed for seconds if it were huge
            raise NotApplicable(
                f"scattering expects --scales of at least 1 and 2^scales of at most {size}, got {scales}."
            )
        if not 1 <= orientations <= 64:
            raise UserError(f"scattering expects --orientations from 1 to 64, got {orientations}.")
        self.scales, self.orientations = scales, orientations
        self.input_mode, self.preprocess = input_mode, (preprocess := make_preprocess(input_mode))
        first = 1 + scales * orientations
        second = first + orientations**2 * scales * (scales - 1) // 2
        self.counts = {"order1": first, "order2": second}
        self.layers = {name: Layer(preprocess.channels * count, 2**scales) for name, count in self.counts.items()}
        self.norms = nn.ModuleDict(
            {name: nn.BatchNorm2d(layer.channels, affine=False) for name, layer in self.layers.items()}
        )
        # Not a submodule: filters depend only on the size of the views, so they are not stored with the weights.
        self._transforms: dict[tuple[int, int, torch.device], nn.Module] = {}

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> (B, C, H / 2^J, W / 2^J) for every layer; sides are rounded down."""
        coefficients = self._transform(inputs)(inputs.float().contiguous())
        return {name: self.norms[name](coefficients[:, :, :count].flatten(1, 2)) for name, count in self.counts.items()}

    def _transform(self, inputs: Tensor) -> nn.Module:
        """The transform of (B, C, H, W) to coefficients (B, C, K, H / 2^J, W / 2^J), in ascending order."""
        height, width = inputs.shape[-2:]
        key = (height, width, inputs.device)
        if key not in self._transforms:
            made: nn.Module = _kymatio()(self.scales, (height, width), L=self.orientations, max_order=2)
            self._transforms[key] = made.to(inputs.device)
        return self._transforms[key]


def _kymatio() -> Any:
    """Kymatio's scattering of images in torch.

    Its module is imported directly: `kymatio.torch` also imports the scattering of volumes, which needs a function that
    SciPy 1.17 has removed (`scipy.special.sph_harm`).
    """
    try:
        from kymatio.scattering2d.frontend.torch_frontend import ScatteringTorch2D
    except ImportError as error:
        raise NotApplicable(
            f"the encoder scattering needs kymatio ({error}): pip install 'selftaught[scattering]'."
        ) from error
    return ScatteringTorch2D
