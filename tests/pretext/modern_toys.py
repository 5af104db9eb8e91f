"""Modern tasks on the contract as it is, each in a few lines: two-view, momentum, masked-image and supervised.

They show that the contract can express them and give the conformance suite something to test beyond the table; the
library's own versions belong in `selftaught.pretext`.
"""

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from selftaught.augment.draws import rand
from selftaught.augment.views import ViewAugmentation, byol_augmentations, two_views
from selftaught.augment.warp import random_crop, to_device
from selftaught.contracts import ParameterGroup, Task, TokenEncoder
from selftaught.errors import UserError
from selftaught.modules.heads import classifier
from selftaught.modules.processes import gather


@dataclass(frozen=True)
class SimCLR(Task):
    """Identify the other view of each image among all views of the batch. https://arxiv.org/abs/2002.05709"""

    size: int = 16
    temperature: float = 0.5

    def heads(self, encoder, source):
        return nn.ModuleDict({"projection": classifier(encoder.last.channels, 32, "mlp", hidden=64)})

    def views(self, batch, generator):
        return {"images": two_views(batch, self.size, generator, ViewAugmentation(crop_area=(0.5, 1.0)))}

    def loss(self, encoder, heads, views, progress=0.0):
        z = gather(F.normalize(heads["projection"](encoder(views["images"])).float(), dim=1))
        return self.contrast(z @ z.T / self.temperature)

    def contrast(self, similarity):
        count = len(similarity)
        positive = torch.arange(count, device=similarity.device) ^ 1  # the two views of an image are neighbors
        itself = torch.eye(count, dtype=torch.bool, device=similarity.device)
        logits = similarity.masked_fill(itself, -torch.inf)
        accuracy = (logits.argmax(1) == positive).float().mean()
        return F.cross_entropy(logits, positive), {"accuracy": accuracy}


@dataclass(frozen=True)
class VICReg(Task):
    """Equal embeddings of two views, each dimension of unit variance and uncorrelated. https://arxiv.org/abs/2105.04906"""

    size: int = 16
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def heads(self, encoder, source):
        return nn.ModuleDict({"projection": classifier(encoder.last.channels, 16, "mlp", hidden=64)})

    def views(self, batch, generator):
        return {"images": two_views(batch, self.size, generator, ViewAugmentation(crop_area=(0.5, 1.0)))}

    def loss(self, encoder, heads, views, progress=0.0):
        embeddings = gather(heads["projection"](encoder(views["images"])).float())
        first, second = embeddings.unflatten(0, (-1, 2)).unbind(1)
        loss = self.invariance * F.mse_loss(first, second)
        for z in (first, second):
            centered = z - z.mean(0)
            deviation = (centered.var(0) + 1e-4).sqrt()
            covariance = centered.T @ centered / (len(z) - 1)
            off_diagonal = covariance - torch.diag(covariance.diagonal())
            loss = loss + self.variance * (1 - deviation).relu().mean() / 2
            loss = loss + self.covariance * off_diagonal.square().sum() / z.shape[1]
        return loss, {"std": first.std(0).mean()}


@dataclass(frozen=True)
class BYOL(Task):
    """Predict a momentum encoder's embedding of the other view. https://arxiv.org/abs/2006.07733"""

    size: int = 16
    momentum: float = 0.9
    """Of the target at the start; it rises to 1 by a cosine."""

    def heads(self, encoder, source):
        projection = classifier(encoder.last.channels, 16, "mlp", hidden=64)
        target = nn.Sequential(copy.deepcopy(encoder), copy.deepcopy(projection)).requires_grad_(False)
        prediction = classifier(16, 16, "mlp", hidden=64)
        return nn.ModuleDict({"projection": projection, "prediction": prediction, "target": target})

    def views(self, batch, generator):
        augmentations = byol_augmentations(ViewAugmentation(crop_area=(0.5, 1.0)))
        return {"images": two_views(batch, self.size, generator, *augmentations)}

    def loss(self, encoder, heads, views, progress=0.0):
        predicted = heads["prediction"](heads["projection"](encoder(views["images"]))).float()
        with torch.no_grad():
            target = heads["target"](views["images"]).float().unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
        return 2 - 2 * F.cosine_similarity(predicted, target).mean(), {}

    def after_step(self, encoder, heads, views, outputs, progress=0.0):
        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        online = (*encoder.parameters(), *heads["projection"].parameters())
        for average, weight in zip(heads["target"].parameters(), online, strict=True):
            average.lerp_(weight, 1 - momentum)


@dataclass(frozen=True)
class MaskedImage(Task):
    """Predict the pixels of hidden patches from the visible ones. https://arxiv.org/abs/2111.06377"""

    size: int = 16
    patch: int = 4
    """The encoder has a setting of the same name: nested settings keep the two apart."""
    hidden: float = 0.5

    def heads(self, encoder, source):
        if not isinstance(encoder, TokenEncoder):
            raise UserError("masked-image prediction needs an encoder with tokens: choose --encoder vit.")
        width, length = encoder.last.channels, (self.size // encoder.patch) ** 2
        decoder = classifier(width, 3 * encoder.patch**2, "mlp", hidden=64)
        places = nn.Embedding(length, width)
        return nn.ModuleDict({"decoder": decoder, "places": places})

    def views(self, batch, generator):
        images = batch.warp(random_crop(len(batch), generator, scale=(0.8, 1.0)), self.size)
        order = rand(len(batch), (self.size // self.patch) ** 2, generator=generator).argsort(1)
        return {"images": images, "order": to_device(order, images.device)}

    def loss(self, encoder, heads, views, progress=0.0):
        shown = round((1 - self.hidden) * views["order"].shape[1])
        keep, hidden = views["order"][:, :shown], views["order"][:, shown:]
        *_, last = encoder.encode(encoder.tokens(views["images"]), keep).values()
        context = last.mean(1, keepdim=True) + heads["places"](hidden)
        predicted = heads["decoder"](context.flatten(0, 1)).float().view(*hidden.shape, -1)
        patches = F.unfold(views["images"], encoder.patch, stride=encoder.patch).transpose(1, 2)
        return F.mse_loss(predicted, patches.gather(1, hidden[..., None].expand(predicted.shape))), {}

    def visualize(self, encoder, heads, views):
        return {"images": views["images"]}


@dataclass(frozen=True)
class Supervised(Task):
    """Classify labels, with a learning rate that decays towards the first layers. https://arxiv.org/abs/2003.10555"""

    size: int = 16
    layer_decay: float = 0.5

    def required_targets(self):
        return ("label",)

    def heads(self, encoder, source):
        return nn.ModuleDict({"label": nn.Linear(encoder.last.channels, len(source.classes))})

    def parameter_groups(self, encoder, heads):
        parts = [list(part.parameters()) for part in encoder.children()]
        parts = [part for part in parts if part] + [list(heads.parameters())]
        return [ParameterGroup(part, self.layer_decay**depth) for depth, part in enumerate(reversed(parts))]

    def views(self, batch, generator):
        images = batch.warp(random_crop(len(batch), generator, scale=(0.8, 1.0), flip=0.0), self.size)
        return {"images": images, "label": batch.targets["label"]}

    def loss(self, encoder, heads, views, progress=0.0):
        logits = heads["label"](encoder(views["images"])).float()
        accuracy = (logits.argmax(1) == views["label"]).float().mean()
        return F.cross_entropy(logits, views["label"]), {"accuracy": accuracy}


MODERN = {task.__name__.lower(): task for task in (SimCLR, VICReg, BYOL, MaskedImage, Supervised)}
