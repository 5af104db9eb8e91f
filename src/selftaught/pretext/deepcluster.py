"""DeepCluster: Classify images into pseudo-labels, which are clusters of the encoder's own features, in alternation.

Even clusters of random features agree with the content of images better than chance. Learning to predict them from
random crops improves the features, and the next clusters are made of these.

Caron, Bojanowski, Joulin, Douze, "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018.
https://arxiv.org/abs/1807.05520

An epoch here is not a pass over the source, but the steps from one clustering to the next: at most `clustered` images
are clustered, and `shown` are drawn from them. So a folder of two hundred images is not clustered every third step, and
a million images are not all loaded before the first step. For the paper's schedule set both to the number of images.

The optimizer is the paper's: SGD at a constant rate of 0.05, momentum 0.9, weight decay 1e-5. The top layer starts anew
at each clustering, so a rate that falls to zero would leave the last ones untrained. (The released code trains the top
layer without momentum; here its momentum is reset at each clustering.)

Letters: B images, N of the source, n of them clustered, D features, k clusters.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.color import random_color, recolor
from selftaught.augment.warp import identity, to_device
from selftaught.contracts import Batch, Encoder, EpochUpdate, Outcome, Source, Views
from selftaught.errors import UserError
from selftaught.modules.clusters import adjusted_nmi, kmeans, require_faiss, whitened
from selftaught.modules.crops import CropTask
from selftaught.modules.heads import HeadKind, require_readable

READ = 256
"""Images that the encoder sees at a time while they are clustered."""


@dataclass(frozen=True)
class DeepCluster(CropTask):
    """Classify images into clusters, found by k-means of the encoder's features."""

    defaults = {  # noqa: RUF012
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "weight_decay": 1e-5,
        "schedule": "constant",
        "warmup": 0.0,
    }
    index_based = True

    clusters: int = 100
    """Number of clusters, at most; the paper's best is ten per class, 10,000 on ImageNet."""
    per_cluster: int = 10
    """Smallest mean number of images per cluster: fewer images make fewer clusters (paper: 128)."""
    clustered: int = 20_000
    """Number of images that are clustered, a new random sample each time where the source has more."""
    shown: int = 10_000
    """Number of images trained on between two clusterings (paper: every image once)."""
    components: int = 64
    """Largest number of PCA components before k-means (paper: 256 of 4,096 dimensions; here there are 512)."""
    iterations: int = 20
    """Number of k-means iterations (released code)."""
    input_mode: Literal["sobel", "color"] = "sobel"
    """Encoder input: Sobel gradients of the grayscale image, or colors, by which alone clusters tend to form (section
    3.3)."""
    head: HeadKind = "mlp"
    """mlp: a hidden layer that is kept when the top layer starts anew, as the paper's fc6 and fc7; linear: the top
    layer alone."""
    crop: float = 1.0
    scale: tuple[float, float] = (0.3, 1.0)
    jitter: float = 0.0
    """Color jitter in training: brightness, contrast and saturation by this, hue by a quarter of it, and a fifth of the
    images in grayscale. None in the paper, whose input has no color; try 0.4 with --input-mode color."""

    def __post_init__(self) -> None:
        """Refuse what cannot be clustered."""
        super().__post_init__()
        for name, least in (("clusters", 2), ("per_cluster", 1), ("shown", 1), ("components", 1), ("iterations", 1)):
            if (value := getattr(self, name)) < least:
                flag = name.replace("_", "-")
                raise UserError(f"--{flag} must be at least {least}, found {value}: give a larger one.")
        if not 0 <= self.jitter <= 1:
            raise UserError(f"--jitter must lie in [0, 1], found {self.jitter}: try 0.4.")
        if self.clustered < 2 * self.per_cluster:
            raise UserError(
                f"--clustered must hold two clusters of --per-cluster {self.per_cluster} images, found "
                f"{self.clustered}: give a larger one."
            )

    def encoder_options(self) -> Mapping[str, object]:
        """What the encoder is to read of colour."""
        return {"input_mode": self.input_mode}

    def epoch(self, source: Source) -> int:
        """Images shown between two clusterings."""
        return self.shown

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """The part that lasts ("body"), the part that begins anew ("top"), and what was found ("clusters")."""
        require_faiss()
        require_readable(encoder, self.side, "crop")
        if (count := self._count(source)) < self.clusters:
            logging.getLogger(__name__).warning(
                "deepcluster takes %d clusters and not %d, so that each has %d images on average",
                count, self.clusters, self.per_cluster,
            )  # fmt: skip
        channels = encoder.last.channels
        top = nn.Linear(512 if self.head == "mlp" else channels, count)
        _begin_anew(top, torch.Generator().manual_seed(torch.initial_seed()))
        body: nn.Module = nn.Identity()
        if self.head == "mlp":
            body = nn.Sequential(nn.Linear(channels, 512, bias=False), nn.BatchNorm1d(512))
        return nn.ModuleDict({"body": body, "top": top, "clusters": Clusters(source, count)})

    def _count(self, source: Source) -> int:
        images = min(len(source), self.clustered)
        if images < 2 * self.per_cluster:
            raise UserError(
                f"deepcluster needs two clusters of {self.per_cluster} images, found {len(source)} images in "
                f"{source.name}: give more images, or a smaller --per-cluster."
            )
        return min(self.clusters, images // self.per_cluster)

    def before_epoch(
        self, encoder: Encoder, heads: nn.ModuleDict, source: Source, generator: torch.Generator
    ) -> EpochUpdate:
        """Cluster a part of the images, and begin the top layer anew: its old answers mean nothing now."""
        part = torch.arange(len(source))
        if len(source) > self.clustered:
            part = torch.randperm(len(source), generator=generator)[: self.clustered].sort().values
        features, labels = self._read(encoder, heads, source, part)
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        clusters, top = cast(Clusters, heads["clusters"]), cast(nn.Linear, heads["top"])
        found = kmeans(whitened(features, self.components), clusters.count, self.iterations, seed)
        clusters.learn(part, found, labels)
        _begin_anew(top, generator)
        # Uniform over the clusters that are not empty (section 3.2): the more images in one, the less each counts.
        weights = torch.zeros(len(source), dtype=torch.float64)
        weights[part] = 1 / found.bincount(minlength=clusters.count)[found].double()
        return EpochUpdate(weights=weights, reset=[top])

    def _read(self, encoder: Encoder, heads: nn.ModuleDict, source: Source, part: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, D) of whole images and labels (n,), -1 where there is none, both on the CPU.

        The paper clusters what its last hidden layer says before the ReLU (released code; section 3.3 says no more than
        "features"), from central crops; with a linear head that is the encoder itself.
        """
        device = cast(Clusters, heads["clusters"]).of.device
        features, labels = [], []
        for indices in torch.split(part, READ):
            batch = source.batch(indices, device)
            features.append(heads["body"](encoder(batch.warp(identity(len(batch)), self.size))).float().cpu())
            labels.append(batch.targets["label"].cpu() if "label" in source.targets else -torch.ones_like(indices))
        return torch.cat(features), torch.cat(labels)

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), one crop of each, and `index` (B,), which images these are."""
        if self.head == "mlp" and len(batch) < 2:
            raise UserError(
                "deepcluster with --head mlp needs two images in a batch, found 1: give a larger --batch-size."
            )
        images = self.cropped(batch, generator)
        if self.jitter:
            spread = dict.fromkeys(("brightness", "contrast", "saturation"), self.jitter)
            images = recolor(images, *random_color(len(batch), generator, **spread, hue=self.jitter / 4, grey=0.2))
        return {"images": images, "index": batch.index}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outcome]:
        """Cross-entropy with the clusters (equation 1)."""
        features = heads["body"](encoder(views["images"]))
        logits = heads["top"](features.relu() if self.head == "mlp" else features).float()
        clusters = cast(Clusters, heads["clusters"])
        labels = clusters.of[views["index"]]
        known = labels >= 0  # all in training, which draws no others
        accuracy = ((logits.argmax(1) == labels) & known).sum() / known.sum().clamp(min=1)
        return F.cross_entropy(logits, labels, ignore_index=-1), {"accuracy": accuracy, **clusters.agreement}

    def show(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The crops, ordered by cluster."""
        clusters = cast(Clusters, heads["clusters"])
        return {"views": views["images"][clusters.of[views["index"]].argsort(stable=True)]}

    def auditable_indices(self, heads: nn.ModuleDict, source: Source) -> Tensor:
        """Those of the last clustering."""
        return (cast(Clusters, heads["clusters"]).of >= 0).nonzero().flatten().cpu()

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """One in k."""
        return {"accuracy": 1 / self._count(source)}


class Clusters(nn.Module):
    """What k-means found last: buffers, so that a checkpoint holds it.

    Args:
        source: the images.
        count: k.
    """

    of: Tensor
    """(N,) int64: the cluster of each image, -1 where it took no part. Before the first clustering any."""
    times: Tensor
    """() int64: clusterings so far."""

    def __init__(self, source: Source, count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("of", torch.randint(count, (len(source),)))
        self.register_buffer("times", torch.tensor(0))
        self.register_buffer("nmi_before", torch.tensor(0.0))
        if "label" in source.targets:
            self.register_buffer("nmi_labels", torch.tensor(0.0))

    @property
    def agreement(self) -> dict[str, Tensor]:
        """Mutual information with the clusters before (figure 2b) and with labels, if any (figure 2a).

        Normalised as there, and adjusted for chance, as the part that is clustered is another one each time.
        """
        return {name: value for name, value in self.named_buffers() if name.startswith("nmi_")}

    def learn(self, part: Tensor, found: Tensor, labels: Tensor) -> None:
        """Take up a clustering.

        Args:
            part: (n,) which images.
            found: (n,) the cluster of each.
            labels: (n,) what they show, -1 where that is unknown.
        """
        agreement = {"nmi_before": (self.of.cpu()[part], found)}
        if "nmi_labels" in self.agreement:
            agreement["nmi_labels"] = (labels, found)
        for name, (first, second) in agreement.items():
            known = first >= 0
            getattr(self, name).fill_(adjusted_nmi(first[known], second[known]))
        self.of.fill_(-1)
        self.of[to_device(part, self.of.device)] = to_device(found, self.of.device)
        self.times += 1


def _begin_anew(top: nn.Linear, generator: torch.Generator) -> None:
    """Weights from N(0, 0.01), bias 0 (released code)."""
    with torch.no_grad():
        top.weight.copy_(0.01 * torch.randn(top.weight.shape, generator=generator))
        top.bias.zero_()
