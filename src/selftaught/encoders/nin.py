"""Network in Network, as RotNet trains it on CIFAR: blocks of one spatial convolution and two 1 x 1 convolutions.

Lin, Chen, Yan 2014, "Network In Network"; Gidaris, Singh, Komodakis 2018, "Unsupervised Representation Learning by
Predicting Image Rotations", section 3.1 and the released `architectures/NetworkInNetwork.py`. Images of 32 pixels
become 96 x 16 x 16 after the first block and 192 x 8 x 8 after every later one.

The total stride is 4 for views of any size, so views much larger than 64 pixels are slow: use `AlexNet` for them.
"""

from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer
from selftaught.encoders.preprocess import make_preprocess
from selftaught.encoders.sequential import chained
from selftaught.errors import UserError


class NIN(Encoder):
    """Network in Network with layers `block1` to `blockN`, each taken after its pool, as in RotNet.

    Args:
        size: side of the views in pixels; the network is the same for every size.
        input_mode: input channels, see `preprocess.py`.
        blocks: 3, 4 or 5. The paper's ConvB2 of 4 blocks transfers best (its table 1).

    Raises:
        UserError: for another number of blocks.
    """

    def __init__(self, *, size: int = 32, input_mode: str = "color", blocks: int = 4) -> None:
        super().__init__()
        if blocks not in (3, 4, 5):
            raise UserError(f"nin expects 3, 4 or 5 blocks, got {blocks}.")
        self.input_mode, self.preprocess = input_mode, (preprocess := make_preprocess(input_mode))
        self.blocks = nn.ModuleDict(
            {
                "block1": _block(preprocess.channels, (192, 160, 96), 5, nn.MaxPool2d(3, stride=2, padding=1)),
                "block2": _block(96, (192, 192, 192), 5, nn.AvgPool2d(3, stride=2, padding=1)),
            }
        )
        # The release's `use_avg_on_conv3=False`: later blocks keep the 8 x 8 positions of a 32-pixel image.
        for number in range(3, blocks + 1):
            self.blocks[f"block{number}"] = _block(192, (192, 192, 192), 3, nn.Identity())
        self.layers = {"block1": Layer(96, 2)} | {name: Layer(192, 4) for name in list(self.blocks)[1:]}
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # Normal with deviation sqrt(2 / (kernel area * output channels)): the release's
                # `weight_initialization`, which its training code never calls, so its runs use PyTorch's default.
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> block1 (B, 96, H/2, W/2), then (B, 192, H/4, W/4) each, rounded up."""
        return chained(self.blocks, inputs)


def _block(inputs: int, widths: tuple[int, int, int], kernel: int, pool: nn.Module) -> nn.Sequential:
    """A `kernel` x `kernel` and two 1 x 1 convolutions, each with batch norm and ReLU, then the pool."""
    layers: list[nn.Module] = []
    for outputs, side in zip(widths, (kernel, 1, 1), strict=True):
        layers.append(nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False))
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*layers, pool)
