"""Instance discrimination (NPID): Classify each image as itself among all images, by noise-contrastive estimation.

Each image is a class, whose weight vector is the image's last embedding, kept in a memory bank. Visually similar images
are hard to discriminate, so their embeddings become similar.

The defaults differ from the paper where its choices need hundreds of epochs: exponentials are normalized by each
image's own sum over the negatives (as in PIRL and InfoNCE) instead of a constant Z, the projection ends in a batch
norm, and the bank starts with features instead of noise. The paper's method is

    --nce-normalizer constant --no-projection-norm --bank-init random --bank-momentum 0

with 4096 negatives, temperature 0.07 and 128 dimensions, which are defaults, and the proximal term by `--proximal`.

Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018.
https://arxiv.org/abs/1805.01978

Letters: B images, m negatives, D dimensions, S pixels along a view.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from selftaught.augment.views import ViewAugmentation, crop_and_jitter
from selftaught.contracts import Batch, Encoder, EpochUpdate, Outputs, Source, Views
from selftaught.errors import require_ranges
from selftaught.limits import COEFFICIENT, WIDTH
from selftaught.modules.bank import BankKind, MemoryBank, unit
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.heads import HeadKind, embedding
from selftaught.modules.instances import InstanceNCE, bank_of, initialize_bank


@dataclass(frozen=True)
class NPID(CroppedTask):
    """Discriminate each image from all others."""

    index_based = True
    projection_name = "project"

    scale: tuple[float, float] = (0.2, 1.0)
    """Smallest and largest area of a crop, as a fraction of the image."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.2)
    """Color jitter: largest change of brightness, contrast, saturation (factors) and hue (fraction of the circle);
    PIRL's code has these values, NPID's 0.4 of each."""
    grayscale: float = 0.2
    """Fraction of the views that are converted to grayscale, so that color alone does not identify an image."""
    negatives: int = 4096
    """Number of negatives per image and step (paper: 4096); at most all other images."""
    temperature: float = 0.07
    """Temperature of the cosine similarities (paper: 0.07)."""
    # Without the batch norm and with a random bank, the constant of NPID's paper let the loss increase from 10 to 157:
    # once entries were features, every exponential was far above the Z estimated from noise.
    nce_normalizer: Literal["sum", "constant"] = "sum"
    """Normalizer of the NCE loss: each image's own sum over its negatives (sum, as in PIRL's paper), or m / n * Z with
    a constant Z estimated from the first batch (constant, as in NPID's paper and PIRL's code)."""
    bank_momentum: float = 0.5
    """Momentum of the memory bank: 0.5 in the released code, 0 in the paper."""
    dimensions: int = 128
    """Dimension of the embeddings in the bank (paper: 128)."""
    head: HeadKind = "linear"
    """Projection to the embedding: linear, as in the paper, or mlp."""
    projection_norm: bool = True
    """End the projection in a batch norm, before embeddings are normalized to unit length. The paper does not; without
    it all embeddings of an untrained encoder are nearly the same, and training is slow for many epochs."""
    bank_init: Literal["features", "random"] = "features"
    """Initial entries of the bank: features of the untrained encoder, which cost a forward pass over the images, or
    random unit vectors, as in NPID's code, with which the first epoch contrasts with noise."""
    bank: BankKind = "device"
    """Storage of the memory bank: float32 on the device, half precision there (half), or half precision in host memory
    (host)."""
    proximal: float = 0.0
    """Weight of the squared distance between a feature and its bank entry, which smooths training (paper: up to 50;
    released code: none)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        _ = self.augmentation(), self.nce  # they check their own settings
        require_ranges(self, dimensions=WIDTH, proximal=COEFFICIENT)

    def augmentation(self) -> ViewAugmentation:
        """A random crop with color jitter."""
        return crop_and_jitter(self.scale, self.flip, self.jitter, self.grayscale)

    @property
    def nce(self) -> InstanceNCE:
        """The loss."""
        return InstanceNCE(self.negatives, self.temperature, self.bank_momentum, self.nce_normalizer)

    def projection(self, encoder: Encoder) -> nn.Module:
        """The projection (f in the paper)."""
        return embedding(encoder.last.channels, self.dimensions, self.head, self.projection_norm)

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The projection and the memory bank."""
        self.nce.require_images(len(source))
        project = self.projection(encoder)
        return nn.ModuleDict({"project": project, "bank": MemoryBank(len(source), self.dimensions, self.bank)})

    def before_epoch(
        self, encoder: Encoder, heads: nn.ModuleDict, source: Source, generator: torch.Generator
    ) -> EpochUpdate:
        """Initialize the bank before the first epoch."""
        if self.bank_init == "features":
            initialize_bank(encoder, heads, source, self.side, generator)
        return EpochUpdate()

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), `index` (B,), and `sampled` (m + 1,), the negatives of all images: see `bank`."""
        images = self.augmentation().views(batch, self.side, generator)
        return {"images": images, "index": batch.index, "sampled": self.nce.sample(batch, generator)}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Noise-contrastive estimation against the bank (section 3.2), and the proximal term (3.3)."""
        bank = bank_of(heads)
        features = unit(heads["project"](encoder(views["images"])))
        entries = bank.gather(views["index"], views["sampled"])
        loss, outputs = self.nce(bank, features, entries)
        if self.proximal:
            loss = loss + self.proximal * (features - entries.positive).square().sum(1)
        return loss.mean(), {**outputs, "embeddings": features}

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Update the entries of these images with their embeddings."""
        self.nce.update(bank_of(heads), views, outputs)

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / (m + 1)."""
        return {"accuracy": self.nce.chance(source)}
