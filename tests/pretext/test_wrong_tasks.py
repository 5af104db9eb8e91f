"""Wrong versions of tasks: each must fail the conformance suite, or the same mistake in a real task would pass.

Every mutation states the test that is meant to notice it; another one may do so first.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import test_conformance
import torch
import torch.nn.functional as F
from modern_toys import BYOL, MaskedImage, SimCLR, Supervised, VICReg
from test_conformance import Case
from torch import nn
from toy_tasks import Clusters, Game, Instances

from selftaught.contracts import Task
from selftaught.encoders.palette import Palette
from selftaught.pretext import byol
from selftaught.pretext.autoencoder import Autoencoder
from selftaught.pretext.colorization import Colorization
from selftaught.pretext.context import Context
from selftaught.pretext.deepcluster import DeepCluster
from selftaught.pretext.gan import GAN
from selftaught.pretext.igpt import IGPT
from selftaught.pretext.jigsaw import Jigsaw
from selftaught.pretext.npid import NPID
from selftaught.pretext.rotation import Rotation

pytestmark = pytest.mark.usefixtures("narrow_heads")

CHECKS: dict[str, Callable[[Case], None]] = {
    name.removeprefix("test_"): function
    for name, function in vars(test_conformance).items()
    if name.startswith("test_") and list(inspect.signature(function).parameters) == ["case"]
}
"""The conformance tests that need nothing but a task."""


class WrongPositive(SimCLR):
    """Attracts the first view of the next image in the place of an image's own second view."""

    def contrast(self, similarity):
        count = len(similarity)
        logits = similarity.masked_fill(torch.eye(count, dtype=torch.bool), -torch.inf)
        return F.cross_entropy(logits, (torch.arange(count) + 2) % count), {}


class PositiveIsItself(SimCLR):
    """Compares every view with itself."""

    def contrast(self, similarity):
        return F.cross_entropy(similarity, torch.arange(len(similarity))), {}


class InvarianceAlone(VICReg):
    """Without the variance and covariance terms, everything collapses to a point."""

    def __init__(self, size: int = 16) -> None:
        super().__init__(size, variance=0.0, covariance=0.0)


class NoTarget(BYOL):
    """Compares the online network with itself: nothing keeps it from collapsing."""

    def heads(self, encoder, source):
        return nn.ModuleDict({"projection": super().heads(encoder, source)["projection"]})

    def loss(self, encoder, heads, views, progress=0.0):
        first, second = heads["projection"](encoder(views["images"])).float().unflatten(0, (-1, 2)).unbind(1)
        return F.mse_loss(first, second), {}

    def after_step(self, encoder, heads, views, outputs, progress=0.0):
        pass


class TargetsOfOtherImages(Colorization):
    """Predicts the colors of the image before it in the batch."""

    def loss(self, encoder, heads, views, progress=0.0):
        return super().loss(encoder, heads, {**views, "colors": views["colors"].roll(1, 0)}, progress)


class ReconstructsAnother(Autoencoder):
    """Reconstructs the image before it in the batch."""

    def _target(self, images):
        return super()._target(images.roll(1, 0))


class LabelsOfOtherImages(Supervised):
    """Learns the label of the image before it in the batch."""

    def loss(self, encoder, heads, views, progress=0.0):
        return super().loss(encoder, heads, {**views, "label": views["label"].roll(1, 0)}, progress)


class Detached(Rotation):
    """Does not train the encoder."""

    def loss(self, encoder, heads, views, progress=0.0):
        logits = heads["angle"](encoder(views["images"]).detach())
        return F.cross_entropy(logits, views["angle"]), {
            "accuracy": (logits.argmax(1) == views["angle"]).float().mean()
        }


class AnglesLeak(Rotation):
    """Marks a corner of every view by its angle."""

    def views(self, batch, generator):
        views = super().views(batch, generator)
        views["images"][:, :, 0, 0] = views["angle"][:, None] / 4
        return views


class PlacesLeak(Jigsaw):
    """A guard that gives every place of the grid a brightness of its own."""

    def views(self, batch, generator):
        views = super().views(batch, generator)
        place = torch.arange(len(views["images"])) % self.grid**2
        return {**views, "images": views["images"] + place[:, None, None, None] / 4}


class DirectionsLeak(Context):
    """The same for pairs of tiles."""

    def views(self, batch, generator):
        views = super().views(batch, generator)
        place = torch.arange(len(views["images"])) % self.grid**2
        return {**views, "images": views["images"] + place[:, None, None, None] / 4}


class LabelsOfTheEpochBefore(DeepCluster):
    """Begins the top layer anew, but keeps the clusters of the epoch before."""

    def before_epoch(self, encoder, heads, source, generator):
        stale = heads["clusters"].assignments.clone()
        update = super().before_epoch(encoder, heads, source, generator)
        fresh = heads["clusters"].assignments.clone()
        heads["clusters"].assignments.copy_(getattr(self, "_stale", stale).clamp(min=0))
        object.__setattr__(self, "_stale", fresh)
        return update


class CriticHelps(GAN):
    """The generator descends the discriminator's own loss."""

    def critic_loss(self, encoder, heads, views, progress=0.0):
        judged = self._generated_logits(encoder, heads, heads["generator"](views["noise"]))
        return F.softplus(judged).mean(), {}


class CriticHelpsToo(Game):
    """The critic has the sign of the generator."""

    def critic_loss(self, encoder, heads, views, progress=0.0):
        return self.loss(encoder, heads, views, progress)


class WrongEntry(NPID):
    """Attracts the memory of the next image."""

    def loss(self, encoder, heads, views, progress=0.0):
        index = (views["index"] + 1) % len(heads["bank"].entries)
        return super().loss(encoder, heads, {**views, "index": index}, progress)


class UpdatesOthers(Instances):
    """Writes features to the entries of other images."""

    def after_step(self, encoder, heads, views, outputs, progress=0.0):
        index = torch.randint(len(heads["bank"].entries), views["index"].shape)
        heads["bank"].entries[index] = outputs["feature"]


class FewerClusters(Clusters):
    """Draws its labels from nowhere."""

    def loss(self, encoder, heads, views, progress=0.0):
        logits = heads["top"](encoder(views["images"])).float()
        return F.cross_entropy(logits, torch.randint(self.clusters, (len(logits),))), {}


class TargetInInput(MaskedImage):
    """Predicts patches from their places alone: the encoder has no part in it."""

    def loss(self, encoder, heads, views, progress=0.0):
        loss, outputs = super().loss(encoder, heads, views, progress)
        return loss.detach() + 0 * sum(p.sum() for p in (*encoder.parameters(), *heads.parameters())), outputs


class ChanceIsWrong(Rotation):
    """Claims another chance level than an untrained encoder reaches."""

    def chance(self, source, batch_size):
        return {"accuracy": 0.5}


class DrawsFromTheGlobalGenerator(Rotation):
    """Views that no seed reproduces."""

    def views(self, batch, generator):
        views = super().views(batch, generator)
        return {**views, "images": views["images"] + 0.1 * torch.rand(views["images"].shape)}


class DeclaresAnotherSize(Rotation):
    """Claims views of the whole size, though it crops."""

    def view_sizes(self):
        return {"view": self.size}


@dataclass(frozen=True)
class ShiftedPalette(IGPT):
    """The palette's colors are off by one."""

    def heads(self, encoder, source):
        encoder.preprocess.__class__ = _Shifted
        return super().heads(encoder, source)


class OtherHead(byol.BYOL):
    """The head that is declared as the projection is the one behind it."""

    projection_name = "prediction"


class _Shifted(Palette):
    def pictures(self, tokens):
        return super().pictures((tokens + 1) % len(self.colors))


MUTATIONS: dict[type[Task], str] = {
    WrongPositive: "the_loss_does_not_depend_on_the_order_of_the_images",
    PositiveIsItself: "after_training_a_mismatch_raises_the_loss",
    InvarianceAlone: "after_training_a_mismatch_raises_the_loss",
    NoTarget: "after_training_a_mismatch_raises_the_loss",
    TargetsOfOtherImages: "the_loss_does_not_depend_on_the_order_of_the_images",
    ReconstructsAnother: "the_loss_does_not_depend_on_the_order_of_the_images",
    LabelsOfOtherImages: "the_loss_does_not_depend_on_the_order_of_the_images",
    Detached: "every_trainable_weight_gets_a_finite_gradient_from_its_own_loss",
    AnglesLeak: "a_transformation_cannot_be_predicted_on_noise",
    PlacesLeak: "a_transformation_cannot_be_predicted_on_noise",
    DirectionsLeak: "a_transformation_cannot_be_predicted_on_noise",
    LabelsOfTheEpochBefore: "what_an_epoch_changes_depends_on_the_encoder_as_it_is",
    CriticHelps: "the_players_are_opponents",
    CriticHelpsToo: "the_players_are_opponents",
    WrongEntry: "after_training_a_mismatch_raises_the_loss",
    FewerClusters: "the_loss_does_not_depend_on_the_order_of_the_images",
    TargetInInput: "twenty_steps_on_one_batch_lower_the_loss",
    ChanceIsWrong: "chance_is_what_features_without_information_score",
    DrawsFromTheGlobalGenerator: "the_seed_decides_the_views_and_nothing_else_does",
    DeclaresAnotherSize: "the_encoder_gets_images_of_the_declared_sizes_only",
    OtherHead: "the_projection_is_the_head_whose_outputs_the_loss_compares",
    ShiftedPalette: "tokens_stand_for_the_colors_of_their_pixels",
}
"""Wrong task -> the conformance test that it fails."""


def failing(kind: type[Task], check: str) -> bool:
    """Whether a task fails a conformance test that applies to it."""
    case, test = Case(kind), CHECKS[check]
    assert getattr(test, "applies_to", lambda _: True)(case)
    try:
        test(case)
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("kind", MUTATIONS, ids=lambda kind: kind.__name__)
def test_a_wrong_task_fails_the_conformance_suite(kind):
    assert failing(kind, MUTATIONS[kind])
