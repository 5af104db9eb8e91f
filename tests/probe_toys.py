"""Images that are their own features, for tests that know what a probe must find."""

import torch
from torch import Tensor, nn

from selftaught.augment.warp import resample
from selftaught.contracts import Batch, Encoder, Layer, Source


class GivenBatch(Batch):
    def __init__(self, images: Tensor, index: Tensor, labels: Tensor, population: int) -> None:
        self.images, self.index, self.population = images, index, population
        self.targets = {"label" if labels.ndim == 1 else "multilabel": labels}

    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        return resample(self.images, matrix, size)


class Given(Source):
    """These images, with these labels: (n,) int64, or (n, k) int8 where images may have several classes."""

    name = fingerprint = "given"

    def __init__(self, images: Tensor, labels: Tensor, classes: tuple[str, ...] | None = ("a", "b")) -> None:
        self.images, self.labels, self.classes, self.side = images, labels, classes, images.shape[-1]
        self.ids = torch.empty(0, dtype=torch.int64)
        self.targets = frozenset({"label" if labels.ndim == 1 else "multilabel"})

    @property
    def content_ids(self) -> Tensor:
        return self.ids

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor, device: torch.device) -> GivenBatch:
        return GivenBatch(self.images[indices], indices, self.labels[indices], len(self))


class Plain(Encoder):
    """Says the image itself, and its mean."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.input_mode, self.preprocess = (
            {"image": Layer(3, 1), "mean": Layer(3, 0)},
            "color",
            nn.Identity(),
        )

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"image": inputs, "mean": inputs.mean((2, 3))}


class Small(Encoder):
    """A random convolution with batch normalisation."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.layers, self.input_mode, self.preprocess = {"only": Layer(4, 1)}, "color", nn.Identity()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        with torch.no_grad():
            self.convolution.weight.normal_(generator=torch.Generator().manual_seed(seed))

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"only": torch.relu(self.norm(self.convolution(inputs)))}


def half_red(count: int, seed: int, side: int = 4) -> Given:
    """Two classes that a hyperplane parts: the mean of red is above or below a half by a margin."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count,), generator=generator)
    images = torch.rand(count, 3, side, side, generator=generator)
    images[:, 0] = 0.35 + 0.3 * labels[:, None, None] + 0.1 * images[:, 0]
    return Given(images, labels)


def noise(count: int, seed: int, side: int = 4) -> Given:
    """Images that say nothing of their labels."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, side, side, generator=generator)
    return Given(images, torch.randint(2, (count,), generator=generator))


def findings(count: int, seed: int, side: int = 4, noise: float = 0.3) -> Given:
    """Images that may have several of three classes, one for each color that is bright; none is common."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(count, 3, generator=generator) < torch.tensor([0.5, 0.3, 0.15])
    images = torch.rand(count, 3, side, side, generator=generator)
    shades = 0.35 + 0.3 * labels + noise * torch.randn(count, 3, generator=generator)
    return Given(shades[:, :, None, None] + 0.1 * images, labels.to(torch.int8), ("red", "green", "blue"))
