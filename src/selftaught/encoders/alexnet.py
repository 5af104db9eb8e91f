"""AlexNet with batch norm and without grouping: the standard encoder of pretext tasks from 2015 to 2020.

Krizhevsky, Sutskever, Hinton 2012, in the form of DeepCluster's released `models/alexnet.py` (Caron et al. 2018), which
Asano, Rupprecht and Vedaldi (2020) also probe: 96-256-384-384-256 channels, no local response normalization. Only the
convolutions; the fully connected layers are heads of tasks. The released convolutions have a bias before batch norm;
here they have none, because batch norm cancels it.

The small form is not from a paper: it is for views that are too small for 11 x 11 filters at stride 4. The papers'
CIFAR results come from other networks.
"""

from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer
from selftaught.encoders.preprocess import make_preprocess
from selftaught.encoders.sequential import chained
from selftaught.errors import UserError, unknown

WIDTHS = (96, 256, 384, 384, 256)
_KERNELS = {"large": (11, 5, 3, 3, 3), "small": (5, 5, 3, 3, 3)}


class AlexNet(Encoder):
    """AlexNet with layers `conv1` to `conv5`, each taken after its ReLU and before the following pool, if any.

    Sides of the maps: 224 pixels, large: 55, 27, 13, 13, 13. 32 pixels, small: 32, 16, 8, 8, 8. 96 pixels, small:
    48, 24, 12, 12, 12.

    Args:
        size: side of the views in pixels; determines the default form and the stride of the small form.
        input_mode: input channels, see `preprocess.py`.
        form: "large" (conv1 11 x 11, stride 4, as published) or "small" (conv1 5 x 5, stride 1 up to 48 pixels, else
            2); None takes "small" up to 96 pixels.

    Raises:
        UserError: there is no such form, or the views are too small for it.
    """

    def __init__(self, *, size: int = 224, input_mode: str = "color", form: str | None = None) -> None:
        super().__init__()
        form = form or ("small" if size <= 96 else "large")
        if form not in _KERNELS:
            raise unknown("form of AlexNet", form, _KERNELS)
        if form == "large" and size < 31:  # smaller maps would be empty after the strides and pools
            raise UserError(f"the large form of AlexNet needs --size of at least 31, got {size}.")
        self.input_mode, self.preprocess = input_mode, (preprocess := make_preprocess(input_mode))
        stride = 4 if form == "large" else 1 if size <= 48 else 2
        # DeepCluster pads conv1 by 2 and does not pad the pools (224 -> 55 -> 27 -> 13); small maps need padded pools.
        pool = nn.MaxPool2d(3, stride=2, padding=0 if form == "large" else 1)
        self.convolutions = nn.ModuleDict()
        inputs = preprocess.channels
        for number, (outputs, kernel) in enumerate(zip(WIDTHS, _KERNELS[form], strict=True), 1):
            first = number == 1
            convolution = nn.Conv2d(
                inputs, outputs, kernel, stride if first else 1, padding=2 if first else kernel // 2, bias=False
            )
            # Normal with standard deviation sqrt(2 / (kernel area * output channels)), as DeepCluster initializes.
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            path = [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            self.convolutions[f"conv{number}"] = nn.Sequential(*([pool] if number in (2, 3) else []), *path)
            inputs = outputs
        self.layers = {
            f"conv{number}": Layer(channels, stride * shrunk)
            for number, channels, shrunk in zip(range(1, 6), WIDTHS, (1, 2, 4, 4, 4), strict=True)
        }

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> conv1 (B, 96, ...), conv2 (B, 256, ...), conv3 and conv4 384, conv5 256."""
        return chained(self.convolutions, inputs)
