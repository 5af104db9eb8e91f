"""A source in memory and a small encoder, for tests of everything that takes either."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.dense import warp_dense
from selftaught.augment.warp import resample
from selftaught.contracts import Batch, Encoder, Layer, Source
from selftaught.encoders.preprocess import make_preprocess


class ToyBatch(Batch):
    def __init__(self, pictures: dict[str, Tensor], index: Tensor, targets: dict[str, Tensor], population: int) -> None:
        self.pictures, self.index, self.targets, self.population = pictures, index, targets, population

    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        if of == "image":
            return resample(self.pictures[of], matrix, size)
        return warp_dense(of, self.pictures[of], matrix, size)


class ToySource(Source):
    """Images that can be told apart and have an up: a bright blob in a corner of its own, on a vertical ramp."""

    name, fingerprint, side = "toy", "toy", 16
    classes = ("left", "right")

    def __init__(self, count: int = 24, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        ramp = torch.linspace(0, 0.5, self.side)[None, None, :, None]
        self.images = ramp + 0.2 * torch.rand(count, 3, self.side, self.side, generator=generator)
        self.labels = torch.arange(count) % 2
        for image, label in zip(self.images, self.labels, strict=True):
            image[int(torch.randint(3, (), generator=generator)), 2:6, 2 + 7 * label : 7 + 7 * label] += 0.1
        self.images[::2, 2] += 0.2  # what is real is bluer
        depth = self.images.mean(1, keepdim=True)
        slope = torch.cat([*reversed(torch.gradient(depth, dim=(2, 3))), torch.full_like(depth, 0.1)], 1)
        contours = (depth > depth.amax((2, 3), keepdim=True) - 0.1).float()
        self.dense = {"depth": depth, "normals": F.normalize(slope, dim=1), "contours": contours}
        self.targets = frozenset({"label", "real", *self.dense})

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, device: torch.device) -> ToyBatch:
        dense = {name: values[indices] for name, values in self.dense.items()}
        targets = {"label": self.labels[indices], "real": indices % 2 == 0, **dense}
        return ToyBatch({"image": self.images[indices], **dense}, indices, targets, len(self))


class ToyEncoder(Encoder):
    """Two convolutions."""

    def __init__(self, *, size: int = 16, input_mode: str = "color") -> None:
        super().__init__()
        self.input_mode, self.preprocess = input_mode, make_preprocess(input_mode)
        self.first = nn.Conv2d(int(self.preprocess.channels), 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.layers = {"first": Layer(8, 2), "second": Layer(16, 4)}

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        first = torch.relu(self.first(inputs))
        return {"first": first, "second": torch.relu(self.second(first))}
