"""The four nouns everything else is made of: Source, Batch, Encoder, Task. Read this page first.

    source -> batch -> task.views -> encoder.preprocess -> encoder.features -> task.loss

Letters, for the whole package: B images, K views of one image, C channels, H W pixels, D features, N all images.

Conventions that hold everywhere:

- Images are float32 colour in [0, 1], shape (B, 3, H, W), unless a docstring says otherwise.
- A geometry is a 3 x 3 matrix that maps *output* coordinates to *image* coordinates, both running from -1 to 1 over the
  square image, x to the right and y down; the identity shows the whole image. Matrices live on the CPU: they are tiny,
  are drawn there, and decide (without waiting for a device) which pyramid level is read.
- Randomness comes from one CPU `torch.Generator`, the last argument and required, so that a seed means the same views
  on every device. The loop reseeds it, and the ambient generators, from (seed, step): no random state to save.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

Views = dict[str, Tensor]
"""What a task shows and asks: tensors by name, first axis B or K * B, unless all of the batch share it."""

Outcome = dict[str, Tensor]
"""What a loss found, detached: scalars are logged by name, larger tensors only reach `after_step`."""


class Batch(ABC):
    """Some images of a source, on a device."""

    index: Tensor
    """(B,) int64 on the device: which images of the source these are."""
    targets: Mapping[str, Tensor]
    """What the source knows of them: `label` (B,) int64, or pictures (B, C, H, W) such as `depth`, or `real` (B,)."""
    population: int
    """How many images the source has."""

    def __len__(self) -> int:
        return len(self.index)

    @abstractmethod
    def warp(self, matrix: Tensor, size: int, of: str = "image") -> Tensor:
        """Sample the images through a geometry: the only resample there is, antialiased.

        Args:
            matrix: (B, 3, 3), or (B, K, 3, 3) for K views of each image; on the CPU.
            size: side of the output in pixels.
            of: "image", or the name of a target that is a picture, to be moved exactly as the image is.

        Returns:
            (B, C, size, size), or (B, K, C, size, size), in the picture's own range ([0, 1] for the image).
        """


class Source(ABC):
    """Where images come from: fixed order, fixed length, the same image for the same index for ever."""

    name: str
    """What the user called it, for logs and reports."""
    fingerprint: str
    """Changes when the images, their order or their targets change."""
    classes: tuple[str, ...] | None
    """Names of the labels, or None where there are none."""
    targets: frozenset[str]
    """Names of what every batch carries in `targets`."""
    side: int
    """Pixels along the stored square image: views up to this size are not magnified."""

    @property
    def content_ids(self) -> Tensor:
        """(M,) int64 on the CPU: digests of the encoded images that this source is made of.

        Equal images have equal digests in every source, whatever their names, labels, order and stored size. Image i of
        the source is made from number i modulo M: itself where images are stored (M = N), its photo where they are
        crops. A source without encoded images has none (M = 0).
        """
        return torch.empty(0, dtype=torch.int64)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batch(self, indices: Tensor, device: torch.device) -> Batch:
        """The images at `indices` ((B,) int64, CPU) on `device`."""

    def batches(self, size: int, device: torch.device) -> Iterator[Batch]:
        """Every image once, in order, `size` at a time (the last batch may be smaller)."""
        for indices in torch.split(torch.arange(len(self)), size):
            yield self.batch(indices, device)

    def sample(self, most: int) -> Iterator[Batch]:
        """At most `most` images, spread evenly over the source, on the CPU: for statistics of its images."""
        for indices in torch.split(evenly_spaced(most, len(self)), 256):
            yield self.batch(indices, torch.device("cpu"))


def evenly_spaced(count: int, total: int) -> Tensor:
    """Indices spread evenly from 0 to `total` - 1, exact for every `total` that fits in int64.

    Integer arithmetic, because floats round: float32 cannot represent 99,999,999 and would return 100,000,000.

    Args:
        count: how many, below 2^31; all indices where there are no more than that.
        total: how many there are to choose from.

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
    """A named tap of an encoder."""

    channels: int
    stride: int
    """Input pixels per step of the feature map; 0 where the feature has no positions (B, D)."""


class Encoder(nn.Module, ABC):
    """Images to named features. A subclass fills `features` and sets the three fields in its constructor.

    `look` is a module of the encoder, so what it read in pretraining it reads downstream: nobody can feed it wrongly.
    """

    layers: dict[str, Layer]
    """Every tap, from the first to the last."""
    input_mode: str
    """What `look` makes of colour: see `encoders/look.py`."""
    preprocess: nn.Module
    """(B, 3, H, W) in [0, 1] -> what `features` reads."""

    def fit(self, source: Source) -> None:
        """Learn from the images what must be known before training: a palette, a first layer by k-means."""

    @abstractmethod
    def features(self, seen: Tensor) -> dict[str, Tensor]:
        """What every layer says of what `look` made: name -> (B, C, H, W), (B, L, D) or (B, D), keys as in `layers`."""

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D): the last layer, averaged over positions."""
        return pooled(self.last_features(images))

    @property
    def last(self) -> Layer:
        """The layer that heads read."""
        return list(self.layers.values())[-1]

    def last_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> what the last layer says of them, with its positions."""
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
    """What `before_epoch` decided."""

    weights: Tensor | None = None
    """(N,) how often each image is drawn in this epoch, relative to the others; None draws every image once."""
    reset: Sequence[nn.Module] = ()
    """Modules that start anew: the optimizer forgets what it knew of them."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    parameters: Sequence[nn.Parameter]
    lr_scale: float = 1.0
    """Factor on the learning rate of the run."""
    critic: bool = False
    """Whether these minimize `critic_loss`, by an optimizer of their own, while all other parameters are frozen."""


@dataclass(frozen=True)
class Task(ABC):
    """A pretext task: hyperparameters only. What has weights or memory is built by `heads` and lives there.

    A task imports `contracts, augment, parts, errors`, never another task, `training` or `data`.
    """

    required_targets: ClassVar[tuple[str, ...]] = ()
    """Targets the source must carry, e.g. ("label",)."""
    index_based: ClassVar[bool] = False
    """Whether its loss looks images up by their index: it can be asked about those of its pretraining alone."""
    predicts_transformation: ClassVar[bool] = False
    """Whether the answer is a transformation that `views` draws whatever the image: on pure noise it scores chance."""
    shortcut_guards: ClassVar[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {}
    """What keeps it from being solved without looking, for an audit to switch: name -> values of fields that only
    `views` uses, when it is off and when it is on."""
    defaults: ClassVar[Mapping[str, object]] = {}
    """Defaults of the run, the optimizer or the crops of photos, by name, where the task needs others than the general
    ones, e.g. {"batch_size": 32}. What is chosen explicitly takes precedence."""

    size: int = 32
    """Side, in pixels, of a whole view: what the encoder is built for and is probed at. Where a task cuts a view into
    tiles, the encoder sees these alone, at the zoom of the whole."""

    def encoder_options(self) -> Mapping[str, object]:
        """Options that the encoder must be built with, e.g. {"input_mode": "lightness"}."""
        return {}

    def uses_tiles(self) -> bool:
        """Whether it shows tiles of images: batch statistics are then set on whole images before an evaluation."""
        return False

    @abstractmethod
    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """Everything with parameters or buffers that is not the encoder: projections, decoders, memory banks."""

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """Every parameter of encoder and heads, once: by default one group.

        Override it for learning rates that differ by layer or head, or to give a task a critic. Parameters that do not
        require gradients (such as those of a momentum encoder) may be included; they are not trained.
        """
        return [ParameterGroup([*encoder.parameters(), *heads.parameters()])]

    @abstractmethod
    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """What is shown and what is asked: pure, and the only place where randomness is drawn."""

    @abstractmethod
    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """The scalar that all parameters but the critic's minimize, and values to log or to pass to `after_step`.

        `progress` is the fraction of the run that is done, 0 to 1, for schedules of temperatures, momenta and the like.
        """

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """The scalar that the parameters of `ParameterGroup.critic` minimize, by an optimizer of their own."""
        raise NotImplementedError(f"{type(self).__name__} has a critic but no critic_loss")

    def before_epoch(
        self, encoder: Encoder, heads: nn.ModuleDict, source: Source, generator: torch.Generator
    ) -> EpochUpdate:
        """Called before each epoch, in eval mode: relabel, reweigh, restart."""
        return EpochUpdate()

    def epoch(self, source: Source) -> int:
        """Images shown from one `before_epoch` to the next: by default every image of the source once."""
        return len(source)

    def after_step(  # noqa: B027
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outcome: Outcome, progress: float = 0.0
    ) -> None:
        """Called after each optimizer step, without gradients: bank entries, moving averages."""

    @abstractmethod
    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """Pictures for people: name -> (n, 3, H, W) in [0, 1]."""

    def auditable_indices(self, heads: nn.ModuleDict, source: Source) -> Tensor:
        """(n,) int64: the images that the task can be asked about: all, unless it `remembers` a part of the source."""
        return torch.arange(len(source))

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """Chance level of each logged value that has one; an audit measures the first of them."""
        return {}
