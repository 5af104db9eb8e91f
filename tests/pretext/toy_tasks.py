"""Five tasks of a few lines that strain the contracts in five directions, and an encoder that reads tokens."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from modern_toys import MODERN, MaskedImage
from torch import Tensor, nn

from selftaught.augment.draws import randint
from selftaught.augment.warp import identity, random_crop
from selftaught.contracts import Encoder, EpochUpdate, Layer, Task
from selftaught.encoders.gpt import GPT
from selftaught.encoders.vit import ViT
from selftaught.modules.adversarial import adversarial_groups
from selftaught.modules.processes import average
from selftaught.pretext.synthetic import Synthetic
from toys import ToyEncoder


def width(encoder: Encoder) -> int:
    return encoder.last.channels


@dataclass(frozen=True)
class Instances(Task):
    """A memory bank, image indices, and negatives that never are the image itself. https://arxiv.org/abs/1805.01978"""

    size: int = 16
    negatives: int = 8

    def heads(self, encoder, source):
        bank = nn.Module()
        bank.register_buffer("entries", F.normalize(torch.randn(len(source), 8), dim=1))
        return nn.ModuleDict({"project": nn.Linear(width(encoder), 8), "bank": bank})

    def views(self, batch, generator):
        matrix = random_crop(len(batch), generator, scale=(0.5, 1))
        others = randint(batch.population - 1, len(batch), self.negatives, generator=generator)
        others = others.to(batch.index.device)
        return {
            "images": batch.warp(matrix, self.size),
            "index": batch.index,
            "negatives": others + (others >= batch.index[:, None]),
        }

    def loss(self, encoder, heads, views, progress=0.0):
        feature = F.normalize(heads["project"](encoder(views["images"])), dim=1)
        asked = torch.cat([views["index"][:, None], views["negatives"]], 1)
        scores = torch.einsum("bd,bkd->bk", feature, heads["bank"].entries[asked]) / 0.2
        target = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        return F.cross_entropy(scores, target), {"feature": feature}

    def after_step(self, encoder, heads, views, outputs, progress=0.0):
        entries, index = heads["bank"].entries, views["index"]
        entries[index] = F.normalize((entries[index] + outputs["feature"]) / 2, dim=1)


@dataclass(frozen=True)
class Game(Task):
    """An opponent with its own optimizer: encoder and generator against a critic. https://arxiv.org/abs/1605.09782"""

    size: int = 16
    critic_lr_scale: float = 1.0

    def heads(self, encoder, source):
        generator = nn.Sequential(nn.Linear(width(encoder), 3 * self.size**2), nn.Sigmoid())
        critic = nn.Sequential(nn.Flatten(), nn.Linear(3 * self.size**2, 32), nn.ReLU(), nn.Linear(32, 1))
        return nn.ModuleDict({"generator": generator, "critic": critic})

    def parameter_groups(self, encoder, heads):
        return adversarial_groups(encoder, heads, "critic", {"critic": self.critic_lr_scale})

    def views(self, batch, generator):
        return {"images": batch.warp(identity(len(batch)), self.size)}

    def loss(self, encoder, heads, views, progress=0.0):
        judged = heads["critic"](self.made(encoder, heads, views)).float()
        return F.binary_cross_entropy_with_logits(judged, torch.ones_like(judged)), {}

    def critic_loss(self, encoder, heads, views, progress=0.0):
        real, fake = (heads["critic"](x).float() for x in (views["images"], self.made(encoder, heads, views)))
        loss = F.binary_cross_entropy_with_logits
        return loss(real, torch.ones_like(real)) + loss(fake, torch.zeros_like(fake)), {"realness": real.mean()}

    def made(self, encoder, heads, views):
        return heads["generator"](encoder(views["images"])).reshape(-1, 3, self.size, self.size)

    def visualize(self, encoder, heads, views):
        return {"made": self.made(encoder, heads, views)}


@dataclass(frozen=True)
class Clusters(Task):
    """New labels, sampling weights and a new head each epoch. https://arxiv.org/abs/1807.05520"""

    size: int = 16
    clusters: int = 4

    def heads(self, encoder, source):
        labels = nn.Module()
        labels.register_buffer("of", torch.zeros(len(source), dtype=torch.int64))
        return nn.ModuleDict({"labels": labels, "top": nn.Linear(width(encoder), self.clusters)})

    def before_epoch(self, encoder, heads, source, generator):
        device = heads["labels"].of.device
        shown = [batch.warp(identity(len(batch)), self.size) for batch in source.batches(8, device)]
        features = torch.cat([encoder(images) for images in shown])
        centres = features[torch.randperm(len(features), generator=generator)[: self.clusters].to(device)]
        heads["labels"].of.copy_(torch.cdist(features, centres).argmin(1))
        heads["top"].reset_parameters()
        sizes = heads["labels"].of.bincount(minlength=self.clusters)
        return EpochUpdate(weights=1 / sizes[heads["labels"].of].cpu(), reset=[heads["top"]])

    def views(self, batch, generator):
        matrix = random_crop(len(batch), generator, scale=(0.5, 1))
        return {"images": batch.warp(matrix, self.size), "index": batch.index}

    def loss(self, encoder, heads, views, progress=0.0):
        logits = heads["top"](encoder(views["images"])).float()
        return F.cross_entropy(logits, heads["labels"].of[views["index"]]), {}


class Words(nn.Module):
    """A look that turns colours into the nearest word of a palette."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.register_buffer("palette", torch.rand(words, 3))

    def forward(self, images: Tensor) -> Tensor:
        colors = images.flatten(2).transpose(1, 2)
        return torch.cdist(colors, self.palette[None].expand(len(colors), -1, -1)).argmin(2)


class Reader(Encoder):
    """An encoder that learns a palette from the images first and reads tokens."""

    def __init__(self, *, size: int = 8, input_mode: str = "tokens", words: int = 8) -> None:
        super().__init__()
        self.input_mode, self.preprocess = input_mode, Words(words)
        self.embed, self.mix = nn.Embedding(words + 1, 16), nn.GRU(16, 16, batch_first=True)
        self.layers = {"embedding": Layer(16, 1), "mixed": Layer(16, 1)}

    def fit(self, source):
        batch = next(iter(source.batches(8, torch.device("cpu"))))
        colors = batch.warp(identity(len(batch)), 4).permute(0, 2, 3, 1).reshape(-1, 3)
        chosen = torch.randperm(len(colors), generator=torch.Generator().manual_seed(0))[: len(self.preprocess.palette)]
        self.preprocess.palette.copy_(colors[chosen])

    def features(self, inputs):
        embedded = self.embed(inputs)
        return {"embedding": embedded, "mixed": self.mix(embedded)[0]}


@dataclass(frozen=True)
class NextWord(Task):
    """Predict the next token of what the encoder itself reads. https://proceedings.mlr.press/v119/chen20s.html"""

    size: int = 8

    def encoder_options(self):
        return {"input_mode": "tokens"}

    def heads(self, encoder, source):
        return nn.ModuleDict({"next": nn.Linear(width(encoder), len(encoder.preprocess.palette))})

    def views(self, batch, generator):
        return {"images": batch.warp(random_crop(len(batch), generator), self.size)}

    def loss(self, encoder, heads, views, progress=0.0):
        seen = encoder.preprocess(views["images"])
        logits = heads["next"](encoder.features(seen)["mixed"][:, :-1]).float()
        return F.cross_entropy(logits.flatten(0, 1), seen[:, 1:].flatten()), {}

    def visualize(self, encoder, heads, views):
        words = encoder.preprocess.palette[encoder.preprocess(views["images"])]
        return {"read": words.transpose(1, 2).reshape(-1, 3, self.size, self.size)}


@dataclass(frozen=True)
class Rendered(Task):
    """Targets from the source, moved as the image is; real and rendered images side by side.
    https://arxiv.org/abs/1711.09082"""

    size: int = 16

    def required_targets(self):
        return ("depth", "real")

    def heads(self, encoder, source):
        return nn.ModuleDict({"depth": nn.Conv2d(width(encoder), 1, 1), "critic": nn.Linear(width(encoder), 1)})

    def parameter_groups(self, encoder, heads):
        return adversarial_groups(encoder, heads, "critic", {})

    def views(self, batch, generator):
        matrix = random_crop(len(batch), generator, scale=(0.5, 1))
        depth = batch.warp(matrix, 4, of="depth")
        return {"images": batch.warp(matrix, self.size), "depth": depth, "real": batch.targets["real"]}

    def loss(self, encoder, heads, views, progress=0.0):
        feature = encoder.features(encoder.preprocess(views["images"]))["second"]
        rendered = ~views["real"]
        count = average(rendered.sum().float())
        off = (heads["depth"](feature).float() - views["depth"])[rendered].square().mean((1, 2, 3)).sum() / count
        judged = heads["critic"](feature.mean((2, 3))[rendered]).float()
        return off + 0.05 * F.softplus(-judged).sum() / count, {"depth_off": off}

    def critic_loss(self, encoder, heads, views, progress=0.0):
        judged = heads["critic"](encoder(views["images"])).float()[:, 0]
        return F.binary_cross_entropy_with_logits(judged, views["real"].float()), {}

    def visualize(self, encoder, heads, views):
        return {"views": views["images"], "depth": views["depth"].expand(-1, 3, -1, -1)}


@dataclass(frozen=True)
class Adapted(Synthetic):
    """`synthetic` with domain adaptation, which the default has not. https://arxiv.org/abs/1711.09082"""

    real: Path | None = Path("photos")


TOYS = {task.__name__.lower(): task for task in (Instances, Game, Clusters, NextWord, Rendered, Adapted)} | MODERN


def encoder_for(task: Task) -> Encoder:
    if isinstance(task, MaskedImage):
        return ViT(size=task.size, patch=task.patch, depth=2, width=32, heads=2)
    if task.defaults.get("encoder") == "vit":
        return ViT(size=task.size, patch=4 if task.size % 8 else task.size // 4, depth=2, width=32, heads=2)
    if "causal" in task.encoder_options():
        return GPT(size=task.size, context=8, depth=2, width=32, heads=2, colors=16, **task.encoder_options())
    return (Reader if task.encoder_options().get("input_mode") == "tokens" else ToyEncoder)(
        size=task.size, **task.encoder_options()
    )
