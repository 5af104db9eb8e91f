"""DeepCluster: Classify images into pseudo-labels obtained by clustering the encoder's own features.

Clustering and training alternate.
Even clusters of random features agree with the content of images better than chance. Learning to predict them from
random crops improves the features, from which the next clusters are computed.

Caron, Bojanowski, Joulin, Douze, "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018.
https://arxiv.org/abs/1807.05520

An epoch is the training between two clusterings, not a pass over the source: at most `clustered` images are clustered,
and `shown` are drawn from them. So a folder of two hundred images is not clustered every third step, and a million
images need not all be loaded before the first step. For the paper's schedule set both to the number of images.

The optimizer is the paper's: SGD with a constant learning rate of 0.05, momentum 0.9 and weight decay 1e-5. The top
layer is reinitialized after each clustering, so with a learning rate that decays to zero the last ones would stay
untrained. (The released code trains the top layer without momentum; here its momentum is reset at each clustering.)

Letters: B images, N of the source, n of them clustered, D features, k clusters.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.views import ViewAugmentation
from selftaught.augment.warp import identity, to_device
from selftaught.contracts import Batch, Encoder, EpochUpdate, Outputs, Source, Views
from selftaught.errors import UserError, require_ranges
from selftaught.limits import FRACTION, IMAGES, ITERATIONS, WIDTH, Range
from selftaught.modules.clusters import ami, kmeans, require_clustering, whitened
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.heads import HeadKind
from selftaught.modules.processes import in_parts, processes

FEATURE_BATCH = 256
"""Batch size of the feature extraction for clustering."""

CLUSTERS = Range(2, 10**6)


@dataclass(frozen=True)
class DeepCluster(CroppedTask):
    """Classify images into the k-means clusters of the encoder's features."""

    defaults = {  # noqa: RUF012
        "optimizer": "sgd",
        "learning_rate": 0.05,
        "weight_decay": 1e-5,
        "schedule": "constant",
        "warmup": 0.0,
    }
    index_based = True

    crop: float = 1.0
    """Side of the views as a fraction of --size: 0.75 halves the cost, and features of whole images are better where
    objects appear larger than in training (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"); 1 for
    an encoder with a fixed input size."""
    scale: tuple[float, float] = (0.3, 1.0)
    """Smallest and largest area of a crop, as a fraction of the image; objects appear as large as in the whole image
    where it is the square of `crop`."""
    clusters: int = 100
    """Maximum number of clusters; best in the paper: ten per class, 10,000 on ImageNet."""
    per_cluster: int = 10
    """Minimum mean number of images per cluster; with fewer images there are fewer clusters (paper: 128)."""
    clustered: int = 20_000
    """Maximum number of images to cluster; a new random sample each time if the source has more."""
    shown: int = 10_000
    """Number of training images between two clusterings (paper: every image once)."""
    components: int = 64
    """Maximum number of PCA components before k-means (paper: 256 of 4,096 dimensions; here there are 512)."""
    iterations: int = 20
    """Number of k-means iterations (released code)."""
    input_mode: Literal["sobel", "color"] = "sobel"
    """Encoder input: Sobel gradients of the grayscale image, or colors; with colors, clusters tend to form by color
    alone (section 3.3)."""
    head: HeadKind = "mlp"
    """Head: mlp has a hidden layer that is kept when the top layer is reinitialized, as the paper's fc6 and fc7; linear
    is the top layer alone."""
    jitter: float = 0.0
    """Color jitter: strength for brightness, contrast and saturation, a quarter of it for hue, and a fifth of the
    images in grayscale. None in the paper, whose input has no color; try 0.4 with --input-mode color."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, clusters=CLUSTERS, per_cluster=IMAGES, clustered=IMAGES, shown=IMAGES, components=WIDTH)
        require_ranges(self, iterations=ITERATIONS, jitter=FRACTION)
        if self.clustered < 2 * self.per_cluster:
            raise UserError(
                f"--clustered must be at least {2 * self.per_cluster}, two clusters of --per-cluster "
                f"{self.per_cluster} images, got {self.clustered}."
            )

    def augmentation(self) -> ViewAugmentation:
        """A random crop, with color jitter if `jitter` is above 0."""
        spread, grayscale = self.jitter, 0.2 if self.jitter else 0.0
        jitter = (spread, spread, spread, spread / 4)
        return ViewAugmentation(
            self.scale, flip=0.5 * self.flip, jitter=jitter, jitter_probability=1.0, grayscale=grayscale, blur=0.0
        )

    def view_sizes(self) -> dict[str, int]:
        """Crops in training, and whole images for clustering."""
        return {"crop": self.side, "view": self.size}

    def encoder_options(self) -> Mapping[str, object]:
        """The encoder's input mode."""
        return {"input_mode": self.input_mode}

    def epoch(self, source: Source) -> int:
        """Training images between two clusterings."""
        return self.shown

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """Hidden layer (`body`), classifier (`top`, reinitialized after each clustering) and cluster assignments."""
        require_clustering()
        if (count := self._count(source)) < self.clusters:
            logging.getLogger(__name__).warning(
                "deepcluster uses %d clusters instead of %d, so that each has %d images on average",
                count, self.clusters, self.per_cluster,
            )  # fmt: skip
        channels = encoder.last.channels
        top = nn.Linear(512 if self.head == "mlp" else channels, count)
        _reinitialize(top, torch.Generator().manual_seed(torch.initial_seed()))
        body: nn.Module = nn.Identity()
        if self.head == "mlp":
            body = nn.Sequential(nn.Linear(channels, 512, bias=False), nn.BatchNorm1d(512))
        return nn.ModuleDict({"body": body, "top": top, "clusters": Clusters(source, count)})

    def _count(self, source: Source) -> int:
        images = min(len(source), self.clustered)
        if images < 2 * self.per_cluster:
            raise UserError(
                f"deepcluster needs at least {2 * self.per_cluster} images, two clusters of {self.per_cluster}, but "
                f"{source.name} has {len(source)}; add images or decrease --per-cluster."
            )
        return min(self.clusters, images // self.per_cluster)

    def before_epoch(
        self, encoder: Encoder, heads: nn.ModuleDict, source: Source, generator: torch.Generator
    ) -> EpochUpdate:
        """Cluster a sample of the images and reinitialize the top layer, as cluster indices changed their meaning."""
        part = torch.arange(len(source))
        if len(source) > self.clustered:
            part = torch.randperm(len(source), generator=generator)[: self.clustered].sort().values
        features, labels = self._features(encoder, heads, source, part)
        seed = int(torch.randint(2**31 - 1, (), generator=generator))
        clusters, top = cast(Clusters, heads["clusters"]), cast(nn.Linear, heads["top"])
        points = whitened(features, self.components)
        assignment = processes().first(lambda: kmeans(points, clusters.count, self.iterations, seed))
        clusters.assign(part, assignment, labels)
        _reinitialize(top, generator)
        # Uniform over non-empty clusters (section 3.2): an image's weight is inverse to the size of its cluster.
        weights = torch.zeros(len(source), dtype=torch.float64)
        weights[part] = 1 / assignment.bincount(minlength=clusters.count)[assignment].double()
        return EpochUpdate(weights=weights, reset=[top])

    def _features(self, encoder: Encoder, heads: nn.ModuleDict, source: Source, part: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, D) of whole images and labels (n,), -1 for unlabeled ones, both on the CPU.

        The paper clusters the output of its last hidden layer before the ReLU (released code; section 3.3 states only
        "features") for central crops; with a linear head the features are the encoder's own.
        """
        device = cast(Clusters, heads["clusters"]).assignments.device
        labels = []

        def compute(part: Tensor) -> Tensor:
            features = []
            for indices in torch.split(part, FEATURE_BATCH):
                batch = source.batch(indices, device)
                features.append(heads["body"](encoder(batch.warp(identity(len(batch)), self.size))).float().cpu())
                labels.append(batch.targets["label"].cpu() if "label" in source.targets else -torch.ones_like(indices))
            return torch.cat(features)

        return in_parts(part, compute), in_parts(part, lambda part: torch.cat(labels))

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), one crop of each image, and `index` (B,), the images' indices."""
        if self.head == "mlp" and len(batch) * processes().count < 2:
            raise UserError(
                "deepcluster with --head mlp needs at least two images per batch, got 1; increase --batch-size."
            )
        images = self.augmentation().views(batch, self.side, generator)
        return {"images": images, "index": batch.index}

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Cross-entropy with the cluster assignments as labels (equation 1)."""
        features = heads["body"](encoder(views["images"]))
        logits = heads["top"](features.relu() if self.head == "mlp" else features).float()
        clusters = cast(Clusters, heads["clusters"])
        labels = clusters.assignments[views["index"]]
        assigned = labels >= 0  # always true in training, which draws clustered images only
        accuracy = ((logits.argmax(1) == labels) & assigned).sum() / assigned.sum().clamp(min=1)
        return F.cross_entropy(logits, labels, ignore_index=-1), {"accuracy": accuracy, **clusters.agreement}

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """The crops, sorted by cluster."""
        clusters = cast(Clusters, heads["clusters"])
        return {"views": views["images"][clusters.assignments[views["index"]].argsort(stable=True)]}

    def auditable_indices(self, heads: nn.ModuleDict, source: Source) -> Tensor:
        """The images of the last clustering."""
        return (cast(Clusters, heads["clusters"]).assignments >= 0).nonzero().flatten().cpu()

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """1 / k."""
        return {"accuracy": 1 / self._count(source)}


class Clusters(nn.Module):
    """The last cluster assignments, in buffers, so that they are part of checkpoints.

    Args:
        source: the images.
        count: k.
    """

    assignments: Tensor
    """(N,) int64: the cluster of each image, -1 if it was not clustered. Random before the first clustering."""
    num_clusterings: Tensor
    """() int64: number of clusterings so far."""

    def __init__(self, source: Source, count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("assignments", torch.randint(count, (len(source),)))
        self.register_buffer("num_clusterings", torch.tensor(0))
        self.register_buffer("ami_before", torch.tensor(0.0))
        if "label" in source.targets:
            self.register_buffer("ami_labels", torch.tensor(0.0))

    @property
    def agreement(self) -> dict[str, Tensor]:
        """Adjusted mutual information with the previous clusters (figure 2b) and with labels, if any (figure 2a).

        The paper's is not adjusted for chance; here each clustering samples its images anew.
        """
        return {name: value for name, value in self.named_buffers() if name.startswith("ami_")}

    def assign(self, part: Tensor, assignment: Tensor, labels: Tensor) -> None:
        """Store a clustering and compare it with the previous one and with the labels.

        Args:
            part: (n,) indices of the clustered images.
            assignment: (n,) the cluster of each.
            labels: (n,) the label of each, -1 if unlabeled.
        """
        agreement = {"ami_before": (self.assignments.cpu()[part], assignment)}
        if "ami_labels" in self.agreement:
            agreement["ami_labels"] = (labels, assignment)
        for name, (first, second) in agreement.items():
            valid = first >= 0
            getattr(self, name).fill_(ami(first[valid], second[valid]))
        self.assignments.fill_(-1)
        self.assignments[to_device(part, self.assignments.device)] = to_device(assignment, self.assignments.device)
        self.num_clusterings += 1


def _reinitialize(top: nn.Linear, generator: torch.Generator) -> None:
    """Draw weights from N(0, 0.01) and set biases to 0 (released code)."""
    with torch.no_grad():
        top.weight.copy_(0.01 * torch.randn(top.weight.shape, generator=generator))
        top.bias.zero_()
