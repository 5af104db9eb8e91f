"""The abstract base classes of the package: Source, Batch, Encoder and Task. Read this module first.

    source -> batch -> task.views -> encoder.preprocess -> encoder.features -> task.loss

Letters, for the whole package: B images, K views of one image, C channels, H W pixels, D features, N all images.

Conventions that hold everywhere:

- Images are float32 colors in [0, 1], shape (B, 3, H, W), unless a docstring states otherwise.
- A geometry is a 3 x 3 matrix that maps *output* coordinates to *image* coordinates, both running from -1 to 1 over the
  square image, x to the right and y down; the identity is the whole image. Matrices are on the CPU, where they are
  drawn: they are small, and they determine the pyramid level to sample from without synchronizing with a device.
- Randomness comes from one CPU `torch.Generator`, always the last argument and required, so that a seed gives the same
  views on every device. The loop reseeds it and the global generators from (seed, step): no random state to save.
- Several processes may share a batch, each with a part of its images. Numbers of images are drawn by `augment.draws`,
  so that an image has the same views in any process. A loss that is a mean over images needs nothing else; for one that
  compares images see `modules.processes`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

Views = dict[str, Tensor]
"""Inputs and targets of a task: tensors by name, first axis B or K * B, unless the whole batch shares them."""

Outputs = dict[str, Tensor]
"""Values that a loss returns beside itself: scalars are logged by name, larger tensors are passed to `after_step`.

A joint-embedding loss returns `embeddings` (n, D), one of each image: their collapse is reported during training."""


class Batch(ABC):
    """A batch of images from a source, on a device."""

    index: Tensor
    """(B,) int64 on the device: the images' indices in the source."""
    targets: Mapping[str, Tensor]
    """Targets by name: `label` (B,) int64, -1 where unknown; `multilabel` (B, K) int8 where images may have several
    classes, 1 for those that an image has, -1 in all where unknown; `real` (B,); or float32 dense targets at the stored
    size:

    - `depth` (B, 1, H, W): meters along the viewing axis of the camera; 0 where unknown or infinite.
    - `normals` (B, 3, H, W): unit vectors, x right, y up, z toward the camera; the zero vector where undefined.
    - `contours` (B, 1, H, W): in [0, 1], 1 on boundaries between instances.
    - `instances` (B, 1, H, W): integer ids, 0 for the background.
    """
    population: int
    """Number of images in the source."""

    def __len__(self) -> int:
        return len(self.index)

    @abstractmethod
    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        """Sample the images through a geometry, antialiased; the only resampling in the package.

        Args:
            matrix: (B, 3, 3), or (B, K, 3, 3) for K views of each image; on the CPU.
            size: side of the output in pixels.
            of: "image", or the name of a dense target, which is transformed exactly as the image: normals are turned
                with it, ids are sampled nearest, and undefined pixels do not bleed (`augment/dense.py`).

        Returns:
            (B, C, size, size), or (B, K, C, size, size), in the range of the input ([0, 1] for images).
        """


class Source(ABC):
    """A dataset with fixed order and length: an index always gives the same image."""

    name: str
    """The source as the user specified it, for logs and reports."""
    fingerprint: str
    """Changes when the images, their order or their targets change."""
    classes: tuple[str, ...] | None
    """Class names, or None if there are no labels."""
    targets: frozenset[str]
    """Names of the targets that every batch has."""
    side: int
    """Side in pixels of the stored square images: views up to this size are not upsampled."""

    @property
    def content_ids(self) -> Tensor:
        """(M,) int64 on the CPU: digests of the encoded images of this source.

        Equal images have equal digests in every source, whatever their names, labels, order and stored size. Image i of
        the source comes from digest i modulo M: its own where images are stored (M = N), that of its photo where images
        are crops. A source without encoded images has none (M = 0).
        """
        return torch.empty(0, dtype=torch.int64)

    def all_labels(self) -> Tensor:
        """The target `label`, (N,), or `multilabel`, (N, K), of every image on the CPU: see `Batch.targets`.

        A source that has them at hand overrides this, so that no image is loaded for it.
        """
        name = "label" if "label" in self.targets else "multilabel"
        return torch.cat([batch.targets[name].cpu() for batch in self.batches(4096, torch.device("cpu"))])

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """The images at `indices` ((B,) int64, CPU) on `device`."""

    def batches(self, size: int, device: torch.device) -> Iterator[Batch]:
        """All images once, in order, in batches of `size` (the last may be smaller)."""
        for indices in torch.split(torch.arange(len(self)), size):
            yield self.batch(indices, device)

    def sample(self, most: int) -> Iterator[Batch]:
        """At most `most` images, evenly spaced over the source, on the CPU, for statistics of its images."""
        for indices in torch.split(evenly_spaced(most, len(self)), 256):
            yield self.batch(indices, torch.device("cpu"))


def evenly_spaced(count: int, total: int) -> Tensor:
    """Evenly spaced indices from 0 to `total` - 1, exact for every `total` that fits in int64.

    Integer arithmetic, because floats round: float32 cannot represent 99,999,999 and would return 100,000,000.

    Args:
        count: number of indices, below 2^31; at most `total` are returned.
        total: number of items.

    Returns:
        (min(count, total),) int64, strictly increasing; the first is 0 and, from two on, the last is `total` - 1.
    """
    count = min(count, total)
    if count < 2:
        return torch.arange(count)
    whole, rest = divmod(total - 1, count - 1)
    place = torch.arange(count)
    # place * (total - 1) / (count - 1), rounded; split so that no product exceeds count^2 or total.
    return place * whole + (place * rest + (count - 1) // 2) // (count - 1)


@dataclass(frozen=True)
class Layer:
    """Shape of a named output of an encoder."""

    channels: int
    stride: int
    """Input pixels per step of the feature map; 0 for features without positions (B, D)."""


class Encoder(nn.Module, ABC):
    """Maps images to named features. A subclass implements `features` and sets the three fields in its constructor.

    `preprocess` is a submodule of the encoder, so downstream inputs are preprocessed exactly as in pretraining.
    """

    layers: dict[str, Layer]
    """All layers, from the first to the last."""
    input_mode: str
    """Color preprocessing, such as color, grayscale or lightness: see `encoders/preprocess.py`."""
    preprocess: nn.Module
    """(B, 3, H, W) in [0, 1] -> the input of `features`."""

    def fit(self, source: Source) -> None:
        """Compute what must be set before training from images, such as a palette or a dictionary of patches."""

    def fit_like(self, other: "Encoder") -> None:
        """Take over what `fit` computed for an encoder with the same options: it is part of the random baseline.

        An encoder whose `fit` changes anything but `preprocess` overrides both.
        """
        self.preprocess.load_state_dict(other.preprocess.state_dict())

    @abstractmethod
    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """Features of every layer from preprocessed images: (B, C, H, W), (B, L, D) or (B, D), keys as in `layers`."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D): the last layer, averaged over positions."""
        return pooled(self.last_features(images))

    @property
    def has_parameters(self) -> bool:
        """Whether there is anything to train; if not, its random weights are the encoder itself."""
        return any(True for _ in self.parameters())

    @property
    def last(self) -> Layer:
        """The last layer, the input of heads."""
        return list(self.layers.values())[-1]

    def last_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> features of the last layer, with positions."""
        return list(self.features(self.preprocess(images)).values())[-1]


class TokenEncoder(Encoder, ABC):
    """An encoder that processes an image as a sequence of patch tokens, for masked-image tasks and attention maps.

    `features` of an image equals `encode` of all its tokens, laid out as maps.
    """

    patch: int
    """Side of a patch in pixels."""

    @abstractmethod
    def tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, L, D): patch embeddings with their positions, row by row."""

    @abstractmethod
    def encode(self, tokens: Tensor, keep: Tensor | None = None) -> dict[str, Tensor]:
        """Features of every layer, computed from some of the tokens.

        Args:
            tokens: (B, L, D), see `tokens`.
            keep: (B, n) int64, the tokens that the encoder processes; None for all of them.

        Returns:
            (B, n, D) for every layer, keys as in `layers`, in the order of `keep`.
        """

    @abstractmethod
    def attention(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, heads, L, L): attention weights of the last block; every row sums to 1."""


def pooled(feature: Tensor) -> Tensor:
    """Average a feature over its positions: (B, C, H, W), (B, L, D) or (B, D) -> (B, D)."""
    if feature.ndim == 4:
        return feature.mean((2, 3))
    return feature.mean(1) if feature.ndim == 3 else feature


@dataclass(frozen=True)
class EpochUpdate:
    """Changes to the sampling and the optimizer for the next epoch, returned by `before_epoch`."""

    weights: Tensor | None = None
    """(N,) sampling weights of the images in this epoch; None uses every image once."""
    reset: Sequence[nn.Module] = ()
    """Modules that were reinitialized: their optimizer state is reset."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    """Factor on the learning rate of the run."""
    critic: bool = False
    """Whether they minimize `critic_loss`, with an optimizer of their own, while all other parameters are frozen."""


@dataclass(frozen=True)
class Task(ABC):
    """A pretext task: hyperparameters only. Parameters and buffers are created by `heads` and kept there.

    A task imports `contracts, augment, modules, errors, limits`, never another task, `training` or `data`.
    """

    index_based: ClassVar[bool] = False
    """Whether the loss depends on the images' indices: it can then be computed for pretraining images only."""
    predicts_transformation: ClassVar[bool] = False
    """Whether the target is a transformation drawn independently of the image: on noise images, accuracy is chance."""
    embedding_std: ClassVar[float | None] = None
    """Standard deviation at which the loss keeps each dimension of its `embeddings`, which may also collapse by
    shrinking; None if it compares their directions only, so that their scale does not matter."""
    projection_name: ClassVar[str] = "projection"
    """Name in `heads` of the module that `projection` makes."""
    shortcut_guards: ClassVar[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {}
    """Guards against shortcuts that an audit can switch: name -> values of fields, used in `views` only, with the guard
    off and on."""
    defaults: ClassVar[Mapping[str, object]] = {}
    """Defaults of the run, the optimizer or the crops of photos, by name, where they differ from the general ones, e.g.
    {"batch_size": 32}. Explicit settings take precedence."""

    size: int = 32
    """Side of a view in pixels: the input size of the encoder and of probes. Tasks with tiles cut them from a view of
    this size."""

    def required_targets(self) -> tuple[str, ...]:
        """Targets that the source must have, e.g. ("label",)."""
        return ()

    def real_images(self) -> Path | None:
        """A second source, of real images, or None. They are half of each batch: see the target `real`."""
        return None

    def encoder_options(self) -> Mapping[str, object]:
        """Options that the encoder must be built with, e.g. {"input_mode": "lightness"}."""
        return {}

    def view_sizes(self) -> Mapping[str, int]:
        """Sides in pixels of all images that the task passes to the encoder, which must be able to process them.

        Keys are "crop" or "tile", the setting that gives the size as a fraction of `size`, "view" for `size` itself, or
        "local view" for a size that follows from it.
        """
        return {"view": self.size}

    def uses_tiles(self) -> bool:
        """Whether views are tiles: batch norm statistics are then recomputed on whole images before an evaluation."""
        return False

    def projection(self, encoder: Encoder) -> nn.Module | None:
        """A new projection to the embeddings that the loss compares: `Encoder.forward` (B, C) -> (B, D).

        None if it compares no embeddings of whole images. `heads` contains it as `projection_name`; probes build it
        without the pretraining images, to measure the embedding beside the layers of the encoder.
        """
        return None

    @abstractmethod
    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """All parameters and buffers outside of the encoder: projections, decoders, memory banks."""

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """Parameter groups that contain every parameter of encoder and heads once; by default one group.

        Override it for learning rates that differ by layer or head, or to give a task a critic. Parameters that do not
        require gradients (such as those of a momentum encoder) may be included; they are not trained.
        """
        return [ParameterGroup([*encoder.parameters(), *heads.parameters()])]

    @abstractmethod
    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """Inputs and targets of the loss: a pure function, and the only one that draws random numbers.

        Numbers of images come from `rand`, `randn` and `randint` of `augment.draws` and from what is built on them,
        those that all images share from `common(generator)`. Other draws raise an error where processes share a batch.
        """

    @abstractmethod
    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """The loss minimized by all parameters but the critic's, and values to log or to pass to `after_step`.

        `progress` is the fraction of the run that is completed, 0 to 1, for schedules of temperatures, momenta etc.

        Where several processes share a batch, each gets the views of its images, and the run minimizes the mean of
        their losses. A loss in which images of a batch meet, other than in batch norm, uses `gather` of
        `modules.processes`; one that is divided by a count that differs between images, `average`.
        """

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """The loss minimized by the parameters of `ParameterGroup.critic`, with an optimizer of their own."""
        raise NotImplementedError(f"{type(self).__name__} has a critic but no critic_loss")

    def before_epoch(
        self, encoder: Encoder, heads: nn.ModuleDict, source: Source, generator: torch.Generator
    ) -> EpochUpdate:
        """Called before each epoch, in eval mode, to relabel or reweight images and to reinitialize modules.

        Every process does the same, with the same generator; what comes of it is taken from the first. A long pass over
        images may be divided with `in_parts` of `modules.processes`.
        """
        return EpochUpdate()

    def epoch(self, source: Source) -> int:
        """Number of training images between two calls of `before_epoch`: by default the size of the source."""
        return len(source)

    def after_step(  # noqa: B027
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Called after each optimizer step, without gradients, to update memory banks and moving averages.

        Tensors of `views` and `outputs` are those of the whole batch, in every process; scalars are means.
        """

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Pictures for reports and logs: name -> (n, 3, H, W) in [0, 1]; by default `images` of the views."""
        return {"views": views["images"]}

    def auditable_indices(self, heads: nn.ModuleDict, source: Source) -> Tensor:
        """(n,) int64: the images for which the loss can be computed: all, unless the task is `index_based`."""
        return torch.arange(len(source))

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """Chance level of each logged value that has one; the first is the value that an audit measures."""
        return {}
