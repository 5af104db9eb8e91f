"""ConvNet: the default encoder, designed for the best probe accuracy per minute on a CPU at 32 to 128 pixels.

The pool is placed between convolution and batch norm. Max pooling commutes with ReLU and with a norm of positive scale,
which then process a quarter of the positions: on two cores a training step is 25 % faster. Views above 48 pixels are
downsampled by the stride of the first convolution, so the cost grows slowly with their size. The architecture was
chosen among ten plain nets, each trained for one minute on rotation prediction with CIFAR-10.
"""

from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer
from selftaught.encoders.preprocess import make_preprocess
from selftaught.encoders.sequential import chained
from selftaught.errors import UserError, require_between
from selftaught.limits import CHANNELS


class ConvNet(Encoder):
    """Three 3 x 3 convolutions with pools and batch norm: the fast default.

    Args:
        size: side of the views in pixels; the stride of the first convolution is 1 up to 48, 2 up to 96, 4 above.
        input_mode: input channels, see `preprocess.py`.
        width: channels of the first layer; the others have twice and four times as many.
    """

    def __init__(self, *, size: int = 32, input_mode: str = "color", width: int = 64) -> None:
        super().__init__()
        if size < 8:
            raise UserError(f"convnet needs --size of at least 8, got {size}.")
        require_between("--width of convnet", width, *CHANNELS, hint="; the default is 64")
        self.input_mode, self.preprocess = input_mode, (preprocess := make_preprocess(input_mode))
        step = 1 if size <= 48 else 2 if size <= 96 else 4
        self.blocks = nn.ModuleDict(
            {
                "layer1": _block(preprocess.channels, width, kernel=2 * step + 1, stride=step),
                "layer2": _block(width, 2 * width),
                "layer3": _block(2 * width, 4 * width),
            }
        )
        self.layers = {f"layer{n}": Layer(2 ** (n - 1) * width, 2**n * step) for n in (1, 2, 3)}

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> `layer1` to `layer3`, (B, C, H / stride, W / stride) each."""
        return chained(self.blocks, inputs)


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.MaxPool2d(2), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
