"""Rendered scenes: Predict depth, surface normals and instance contours of rendered images.

A renderer gives these labels for free. Solving the task requires recognizing objects, their shape and their distance.
An adversarial loss makes the features of rendered images indistinguishable from those of real ones (`--real`), so that
they hold on photos.

Ren and Lee, "Cross-Domain Self-supervised Multi-task Feature Learning using Synthetic Imagery", CVPR 2018.
https://arxiv.org/abs/1711.09082

Images come from `selftaught render` or any folder of renderings (docs/scenes.md). The encoder's layers must be maps.

Unlike the released code, rendered and real images are one batch for batch norm, only rendered features are pooled, and
the critic has the optimizer of the run.

Letters: B images, S pixels along a view.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.draws import randint
from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Encoder, Outputs, ParameterGroup, Source, Views
from selftaught.errors import UserError, require_ranges, unknown
from selftaught.limits import LR_SCALE, POSITIVE_COEFFICIENT
from selftaught.modules.adversarial import adversarial_groups
from selftaught.modules.cropped import CroppedTask
from selftaught.modules.decoders import Decoder
from selftaught.modules.domain import FeaturePool, discriminator, draw_slots
from selftaught.modules.heads import require_map
from selftaught.modules.processes import average
from selftaught.modules.scene_losses import (
    contours_errors,
    contours_loss,
    depth_errors,
    depth_loss,
    normals_errors,
    normals_loss,
)

Target = Literal["depth", "normals", "contours"]
LOSSES = {"depth": depth_loss, "normals": normals_loss, "contours": contours_loss}
ERRORS = {"depth": depth_errors, "normals": normals_errors, "contours": contours_errors}
CHANNELS = {"depth": 1, "normals": 3, "contours": 1}
"""Output channels of each decoder: log depth, a vector, a logit."""


@dataclass(frozen=True)
class Synthetic(CroppedTask):
    """Predict depth, surface normals and instance contours of rendered images."""

    flip: bool = True
    """Mirror half of the images, and their normals with them."""
    predict: tuple[Target, ...] = ("depth", "normals", "contours")
    """Targets to predict: any of depth, normals and contours."""
    depth_weight: float = 5.0
    """Weight of the depth loss (released code: 5)."""
    normals_weight: float = 10.0
    """Weight of the loss of surface normals (released code: 10)."""
    contours_weight: float = 1.0
    """Weight of the contour loss (released code: 1)."""
    channel: Literal["all", "random"] = "all"
    """Input colors: all, or one random color channel of each image in the place of all three (released code: one of
    each batch)."""
    real: Path | None = None
    """Source of real images for domain adaptation, half of each batch: a folder, photos, parquet or a data set that is
    on this machine. Without it there is no adversarial loss."""
    adversarial: float = 0.05
    """Weight of the adversarial loss if there are real images (released code: 0.05)."""
    adapt_layer: str = ""
    """Layer whose features are adapted; default: the last (the paper's conv5 was best among conv1 to conv6)."""
    critic_lr_scale: float = 1.0
    """Factor on the learning rate for the discriminator of rendered and real features (the critic)."""

    def __post_init__(self) -> None:
        """Reject invalid settings."""
        super().__post_init__()
        require_ranges(self, depth_weight=POSITIVE_COEFFICIENT, normals_weight=POSITIVE_COEFFICIENT)
        require_ranges(self, contours_weight=POSITIVE_COEFFICIENT, adversarial=POSITIVE_COEFFICIENT)
        require_ranges(self, critic_lr_scale=LR_SCALE)
        if not self.predict or len(set(self.predict)) < len(self.predict):
            given = " ".join(self.predict) or "nothing"
            raise UserError(f"--predict expects some of depth, normals and contours, each once, got {given}.")

    @property
    def _weights(self) -> dict[str, float]:
        return {"depth": self.depth_weight, "normals": self.normals_weight, "contours": self.contours_weight}

    def required_targets(self) -> tuple[str, ...]:
        """The targets to predict."""
        return self.predict

    def real_images(self) -> Path | None:
        """Images for domain adaptation."""
        return self.real

    def heads(self, encoder: Encoder, source: Source) -> nn.ModuleDict:
        """A decoder of the last layer for each target; with real images the critic and the pool of features."""
        heads: dict[str, nn.Module] = {name: Decoder(encoder.last, CHANNELS[name], self.side) for name in self.predict}
        if self.real is not None:
            adapted = self._adapted(encoder)
            require_map(encoder.layers[adapted], "domain adaptation")
            training = encoder.training
            with torch.no_grad():
                inputs = encoder.eval().preprocess(torch.zeros(1, 3, self.side, self.side))
                shape = encoder.features(inputs)[adapted].shape[1:]
            encoder.train(training)
            heads |= {"critic": discriminator(shape[0]), "pool": FeaturePool(shape)}
        return nn.ModuleDict(heads)

    def _adapted(self, encoder: Encoder) -> str:
        """Name of the layer that is adapted."""
        if self.adapt_layer and self.adapt_layer not in encoder.layers:
            raise unknown("layer of this encoder", self.adapt_layer, encoder.layers)
        return self.adapt_layer or list(encoder.layers)[-1]

    def parameter_groups(self, encoder: Encoder, heads: nn.ModuleDict) -> list[ParameterGroup]:
        """One group for encoder and decoders, and one for the critic if there is one."""
        return adversarial_groups(encoder, heads, "critic", {"critic": self.critic_lr_scale})

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S), `real` (B,) bool, the targets (B, C, S, S) by name and, for the critic, `slots` (B,).

        Targets are warped exactly as their image; those of real images are zero.
        """
        matrix = self.augmentation().crops(len(batch), generator)
        images = batch.warp(matrix, self.side)
        if self.channel == "random":
            channels = to_device(randint(3, len(batch), generator=generator), images.device)
            images = images[torch.arange(len(batch), device=images.device), channels, None].expand(-1, 3, -1, -1)
        none = torch.zeros(len(batch), dtype=torch.bool, device=images.device)
        views = {"images": images, "real": batch.targets["real"].bool() if "real" in batch.targets else none}
        views |= {name: batch.warp(matrix, self.side, of=name) for name in self.predict}
        if self.real is not None:
            views["slots"] = draw_slots(len(batch), generator, images.device)
        return views

    def loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Weighted sum of the losses of the targets and, with real images, the adversarial loss.

        Rendered and real images are one batch, so batch norm has the statistics of both. Logged: the errors of each
        target beside those of a constant prediction, see `scene_losses`.
        """
        features = encoder.features(encoder.preprocess(views["images"]))
        rendered = ~views["real"]
        last = list(features.values())[-1]
        total = torch.zeros((), device=last.device)
        outputs: Outputs = {}
        for name in self.predict:
            prediction = heads[name](last).float()
            total = total + self._weights[name] * LOSSES[name](prediction, views[name], rendered)
            outputs |= ERRORS[name](prediction.detach(), views[name], rendered)
        if self.real is not None:
            adapted = features[self._adapted(encoder)]
            # The encoder is trained so that the critic classifies rendered images as real.
            adversarial = _mean_over(F.softplus(-heads["critic"](adapted).float()), rendered)
            total = total + self.adversarial * adversarial
            outputs |= {"adversarial": adversarial.detach(), "pooled": adapted.detach()}
        return total, outputs

    def critic_loss(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, progress: float = 0.0
    ) -> tuple[Tensor, Outputs]:
        """Binary cross-entropy of patches of real and rendered features: log 2 at chance.

        Half of the rendered features are exchanged with earlier ones. Logged: `accuracy_on_real` and
        `accuracy_on_rendered`, the critic's accuracy on patches of each kind.
        """
        with torch.no_grad():
            features = encoder.features(encoder.preprocess(views["images"]))[self._adapted(encoder)]
        real, slots = views["real"], torch.where(views["real"], -1, views["slots"])
        logits = heads["critic"](cast(FeaturePool, heads["pool"]).exchanged(features, slots)).float()
        loss = (_mean_over(F.softplus(-logits), real) + _mean_over(F.softplus(logits), ~real)) / 2
        return loss, {
            "accuracy_on_real": _mean_over((logits > 0).float(), real),
            "accuracy_on_rendered": _mean_over((logits < 0).float(), ~real),
        }

    def after_step(
        self, encoder: Encoder, heads: nn.ModuleDict, views: Views, outputs: Outputs, progress: float = 0.0
    ) -> None:
        """Write the features of rendered images to the pool."""
        if self.real is not None:
            cast(FeaturePool, heads["pool"]).store(outputs["pooled"], torch.where(views["real"], -1, views["slots"]))

    def visualize(self, encoder: Encoder, heads: nn.ModuleDict, views: Views) -> dict[str, Tensor]:
        """`predicted`: image, then prediction and truth of each target, side by side; truths of real images are black.

        Depth is brighter where it is nearer, on a scale of 1 to 30 meters in logarithms; normals are colors.
        """
        last = encoder.last_features(views["images"])
        columns = [views["images"]]
        for name in self.predict:
            predicted = heads[name](last).float()
            columns += [_picture(name, predicted, truth=False), _picture(name, views[name], truth=True)]
        return {"predicted": torch.cat(columns, 3)}

    def chance(self, source: Source, batch_size: int) -> dict[str, float]:
        """A critic that guesses is right on half of the patches."""
        return {} if self.real is None else {"accuracy_on_real": 0.5, "accuracy_on_rendered": 0.5}


def _mean_over(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of (B, ...) over the chosen images; 0 if there are none."""
    each = values.flatten(1).mean(1)
    return torch.where(chosen, each, 0).sum() / average(chosen.sum().float()).clamp(min=1e-6)


def _picture(name: str, values: Tensor, truth: bool) -> Tensor:
    """A target or a prediction as a picture: (B, C, S, S) -> (B, 3, S, S) in [0, 1]; undefined pixels are black."""
    if name == "normals":
        return (F.normalize(values, dim=1) + 1) / 2 * (values.square().sum(1, keepdim=True) > 0)
    if name == "contours":
        shown = values if truth else values.sigmoid()
    else:
        log = values.clamp(min=1e-3).log() if truth else values
        shown = (1 - log / torch.tensor(30.0).log()).clamp(0, 1) * ((values > 0) if truth else 1)
    return shown.expand(-1, 3, -1, -1)
