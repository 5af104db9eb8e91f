"""ConvNet: the fast default, made for the best probe per minute on a CPU at 32 to 128 pixels.

Placeholder text.
"""

from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer
from selftaught.encoders.look import make_look


class ConvNet(Encoder):
    """Four layers of 3 x 3 convolutions with batch norm and ReLU."""

    def __init__(self, *, size: int = 32, reads: str = "color", width: int = 64) -> None:
        super().__init__()
        self.reads, self.look = reads, make_look(reads)
        channels = int(self.look.channels)
        plan = {"layer1": (width, 2), "layer2": (2 * width, 2), "layer3": (2 * width, 1)}
        self.blocks = nn.ModuleDict()
        self.layers, stride = {}, 1
        for name, (wide, pool) in plan.items():
            ops: list[nn.Module] = [nn.Conv2d(channels, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]
            if pool > 1:
                ops.append(nn.MaxPool2d(pool))
            self.blocks[name] = nn.Sequential(*ops)
            channels, stride = wide, stride * pool
            self.layers[name] = Layer(channels, stride)

    def features(self, seen: Tensor) -> dict[str, Tensor]:
        """`layer1` ... -> (B, C, H, W) each."""
        made: dict[str, Tensor] = {}
        for name, block in self.blocks.items():
            seen = block(seen)
            made[name] = seen
        return made
