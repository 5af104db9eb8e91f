"""AlexNet with batch norm and without grouping: the encoder in which pretext tasks of 2015 to 2020 are compared.

Krizhevsky, Sutskever, Hinton 2012, in the form of DeepCluster's released `models/alexnet.py` (Caron et al. 2018), which
Asano, Rupprecht and Vedaldi (2020) probe too: 96-256-384-384-256 channels, no local response normalisation. Only the
convolutions: the fully connected layers are heads of tasks. Theirs have a bias before batch norm; ours have none, as
batch norm takes it out again.

The small form, for views that eleven-pixel filters at stride 4 would shrink to nothing, is ours: the papers' CIFAR
figures come from other networks.
"""

from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer
from selftaught.encoders.preprocess import make_preprocess
from selftaught.encoders.sequential import chained
from selftaught.errors import UserError, unknown

WIDTHS = (96, 256, 384, 384, 256)
_KERNELS = {"large": (11, 5, 3, 3, 3), "small": (5, 5, 3, 3, 3)}


class AlexNet(Encoder):
    """AlexNet with layers `conv1` to `conv5`, each tapped after its ReLU and before the pool that may follow.

    Sides of the maps: 224 pixels, large: 55, 27, 13, 13, 13. 32 pixels, small: 32, 16, 8, 8, 8. 96 pixels, small:
    48, 24, 12, 12, 12.

    Args:
        size: side of the views in pixels; it chooses what is not given.
        input_mode: input channels, see `preprocess.py`.
        form: "large" (conv1 11 x 11, stride 4, as published) or "small" (conv1 5 x 5, stride 1 up to 48 pixels, else
            2); None takes "small" up to 96 pixels.

    Raises:
        UserError: there is no such form, or views are too small for it.
    """

    def __init__(self, *, size: int = 224, input_mode: str = "color", form: str | None = None) -> None:
        super().__init__()
        form = form or ("small" if size <= 96 else "large")
        if form not in _KERNELS:
            raise unknown("form of AlexNet", form, _KERNELS)
        if form == "large" and size < 31:  # of less, its strides and pools leave nothing
            raise UserError(f"the large form of AlexNet needs views of 31 pixels, found {size}: give a larger --size.")
        self.input_mode, self.preprocess = input_mode, (preprocess := make_preprocess(input_mode))
        stride = 4 if form == "large" else 1 if size <= 48 else 2
        # DeepCluster pads conv1 by 2 and its pools by nothing (224 -> 55 -> 27 -> 13); small maps can spare no border.
        pool = nn.MaxPool2d(3, stride=2, padding=0 if form == "large" else 1)
        self.convolutions = nn.ModuleDict()
        inputs = preprocess.channels
        for number, (outputs, kernel) in enumerate(zip(WIDTHS, _KERNELS[form], strict=True), 1):
            first = number == 1
            convolution = nn.Conv2d(
                inputs, outputs, kernel, stride if first else 1, padding=2 if first else kernel // 2, bias=False
            )
            # Normal with deviation sqrt(2 / (kernel area * channels out)): DeepCluster's `_initialize_weights`.
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            path = [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            self.convolutions[f"conv{number}"] = nn.Sequential(*([pool] if number in (2, 3) else []), *path)
            inputs = outputs
        self.layers = {
            f"conv{number}": Layer(channels, stride * shrunk)
            for number, channels, shrunk in zip(range(1, 6), WIDTHS, (1, 2, 4, 4, 4), strict=True)
        }

    def features(self, seen: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> conv1 (B, 96, ...), conv2 (B, 256, ...), conv3 and conv4 384, conv5 256."""
        return chained(self.convolutions, seen)
