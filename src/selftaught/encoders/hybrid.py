"""Hybrid: a fixed dictionary of patches, and convolutions that are trained on top of it.

Oyallon, Belilovsky, Zagoruyko, "Scaling the Scattering Transform: Deep Hybrid Networks", ICCV 2017, with the dictionary
of Coates and Ng 2011 (see `dictionary.py`) in place of scattering, which takes four times as long. Results and the
comparison with `convnet`: results/speedrun.md.
"""

from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer, Source
from selftaught.encoders.dictionary import Dictionary
from selftaught.errors import require_between
from selftaught.limits import CHANNELS, WIDTH


class Hybrid(Encoder):
    """A fixed dictionary of patches, `codes`, then two trained convolutions with batch norm, `layer1` and `layer2`.

    All layers have the same stride: 4 up to 48 pixels, 8 up to 96, 16 above.

    Args:
        size: side of the views in pixels, see `Dictionary`.
        input_mode: input channels, see `preprocess.py`.
        filters: number of filters of the dictionary; `codes` has twice as many channels.
        width: channels of the trained layers.
    """

    def __init__(self, *, size: int = 32, input_mode: str = "color", filters: int = 128, width: int = 256) -> None:
        super().__init__()
        require_between("--width of hybrid", width, *CHANNELS, hint="; the default is 256")
        require_between("--filters of hybrid", filters, *WIDTH, hint="; the default is 128")
        self.dictionary = Dictionary(size=size, input_mode=input_mode, filters=filters)
        self.input_mode, self.preprocess = input_mode, self.dictionary.preprocess
        codes = self.dictionary.last
        self.layer1, self.layer2 = _block(codes.channels, width), _block(width, width)
        learned = Layer(width, codes.stride)
        self.layers = {"codes": codes, "layer1": learned, "layer2": learned}

    def fit(self, source: Source) -> None:
        """Compute the dictionary from patches of the images."""
        self.dictionary.fit(source)

    def fit_like(self, other: Encoder) -> None:
        """Copy the dictionary of another hybrid."""
        assert isinstance(other, Hybrid)
        self.dictionary.fit_like(other.dictionary)

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """(B, preprocess.channels, H, W) -> `codes`, `layer1` and `layer2`, (B, C, h, w) each; see `Dictionary`."""
        codes = self.dictionary.features(inputs)["codes"]
        layer1 = self.layer1(codes)
        return {"codes": codes, "layer1": layer1, "layer2": self.layer2(layer1)}


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
