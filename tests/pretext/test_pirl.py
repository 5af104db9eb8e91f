"""PIRL and NPID: the loss written out from the papers, what the transformations do, and what is remembered."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.contracts import Task
from selftaught.encoders.inputs import require_input_sizes
from selftaught.errors import UserError
from selftaught.modules.bank import unit
from selftaught.modules.heads import embedding
from selftaught.modules.permutations import distant_permutations
from selftaught.pretext.npid import NPID
from selftaught.pretext.pirl import PIRL
from selftaught.training.loop import Pretraining, Trainer
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from selftaught.training.trial import require_batch_norm_inputs
from toys import ToyBatch, ToyEncoder, ToySource

CPU = torch.device("cpu")
PLAIN = {"crop": 1.0, "scale": (1.0, 1.0), "flip": False, "jitter": (0.0, 0.0, 0.0, 0.0), "grayscale": 0.0}
TASKS = {
    "npid": NPID(size=16, negatives=7, nce_normalizer="constant"),
    "neither": PIRL(size=16, negatives=7, weight=0),
    "rotation": PIRL(size=16, negatives=7, transform="rotation"),
    "jigsaw": PIRL(size=16, negatives=7, transform="jigsaw"),
    "both": PIRL(size=16, negatives=7, transform="both"),
    "only rotation": PIRL(size=16, negatives=7, transform="rotation", weight=1),
}


class Case:
    """A task on the toys, with one batch shown."""

    def __init__(self, task: Task, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.task, self.source, self.encoder = task, ToySource(), ToyEncoder()
        # In eval mode, with statistics that are not the initial ones, so that one image can be asked alone.
        self.heads = task.heads(self.encoder, self.source).eval()
        for norm in [module for module in self.heads.modules() if isinstance(module, nn.BatchNorm1d)]:
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
        self.batch = self.source.batch(torch.arange(4, 12), CPU)
        self.views = task.views(self.batch, torch.Generator().manual_seed(seed))

    def loss(self) -> Tensor:
        return self.task.loss(self.encoder, self.heads, self.views)[0]

    def remember(self) -> None:
        _, outputs = self.task.loss(self.encoder, self.heads, self.views)
        with torch.no_grad():
            detached = {name: value.detach() for name, value in outputs.items()}
            self.task.after_step(self.encoder, self.heads, self.views, detached)

    def anchors(self) -> tuple[Tensor, list[Tensor]]:
        """f of the images and every g of the transformed ones, image by image and tile by tile."""
        f, g = [], {"rotation": [], "jigsaw": []}
        for i, image in enumerate(self.views["images"]):
            f.append(unit(self.heads["project"](self.encoder(image[None])))[0])
            if "rotated" in self.views:
                g["rotation"].append(unit(self.heads["rotated"](self.encoder(self.views["rotated"][i : i + 1])))[0])
            if "tiles" in self.views:
                nine = [self.heads["tile"](self.encoder(t[None]))[0] for t in self.views["tiles"][9 * i : 9 * i + 9]]
                g["jigsaw"].append(unit(self.heads["tiles"](torch.cat(nine)[None]))[0])
        return torch.stack(f), [torch.stack(found) for found in g.values() if found]


def cosine(a: Tensor, b: Tensor) -> float:
    a, b = a.detach().double(), b.double()
    return float((a @ b) / (a.norm() * b.norm()))


def negatives_of(case: Case, image: int) -> list[int]:
    """m of the drawn images: all but the image itself, or but the last."""
    drawn = case.views["sampled"].tolist()
    return [other for other in drawn if other != image] if image in drawn else drawn[:-1]


def nce_by_hand(case: Case, anchors: Tensor, z: float | None = None) -> float:
    """Mean over images of -log h(own) - sum log(1 - h(negative)), from the definitions."""
    entries, total, tau = case.heads["bank"].entries, 0.0, case.task.temperature
    for anchor, image in zip(anchors, case.views["index"].tolist(), strict=True):
        others = negatives_of(case, image)
        noise = sum(math.exp(cosine(anchor, entries[j]) / tau) for j in others)
        if z is not None:  # P = e / Z against the noise m / n
            noise = z * len(others) / len(case.source)

        def h(j, anchor=anchor, noise=noise):
            e = math.exp(cosine(anchor, entries[j]) / tau)
            return e / (e + noise)

        total += -math.log(h(image)) - sum(math.log(1 - h(j)) for j in others)
    return total / len(anchors)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("transform", ["rotation", "jigsaw", "both"])
def test_the_loss_is_that_of_the_paper(transform, weight):
    case = Case(PIRL(size=16, negatives=7, transform=transform, weight=weight))
    f, transformed = case.anchors()
    expected = (1 - weight) * nce_by_hand(case, f)
    for g in transformed:
        expected += weight / len(transformed) * nce_by_hand(case, g)
    assert len(transformed) == (weight > 0) * (2 if transform == "both" else 1)
    assert float(case.loss().detach()) == pytest.approx(expected, rel=1e-4)


def test_npid_holds_against_a_constant_of_the_first_batch():
    case = Case(NPID(size=16, negatives=7, nce_normalizer="constant"))
    entries, (f, _) = case.heads["bank"].entries.clone(), case.anchors()
    exponentials = [
        math.exp(cosine(anchor, entries[j]) / 0.07)
        for anchor, image in zip(f, case.views["index"].tolist(), strict=True)
        for j in negatives_of(case, image)
    ]
    z = len(case.source) * sum(exponentials) / len(exponentials)
    assert float(case.loss().detach()) == pytest.approx(nce_by_hand(case, f, z), rel=1e-4)
    case.remember()
    case.views = case.task.views(case.batch, torch.Generator().manual_seed(5))
    assert float(case.loss().detach()) == pytest.approx(nce_by_hand(case, case.anchors()[0], z), rel=1e-4)


def test_pirl_without_its_transformation_is_npid():
    npid = Case(NPID(size=16, negatives=7))
    pirl = Case(PIRL(size=16, negatives=7, weight=0))
    assert npid.views.keys() == pirl.views.keys()
    assert all(torch.equal(npid.views[name], pirl.views[name]) for name in npid.views)
    assert npid.heads.state_dict().keys() == pirl.heads.state_dict().keys()
    assert torch.equal(npid.loss(), pirl.loss())


def test_the_proximal_term_is_the_squared_distance_to_the_own_entry():
    case = Case(NPID(size=16, negatives=7))
    distances = [
        float((anchor - case.heads["bank"].entries[image]).detach().square().sum())
        for anchor, image in zip(case.anchors()[0], case.views["index"].tolist(), strict=True)
    ]
    plain = float(case.loss().detach())
    case.task = replace(case.task, proximal=3.0)
    assert float(case.loss().detach()) == pytest.approx(plain + 3 * sum(distances) / len(distances), rel=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_what_is_remembered_is_f_of_the_untransformed_image(name):
    case = Case(TASKS[name])
    before, (f, _) = case.heads["bank"].entries.clone(), case.anchors()
    case.remember()
    for image, feature in zip(case.views["index"].tolist(), f, strict=True):
        mixed = before[image] + feature.detach()
        assert torch.allclose(case.heads["bank"].entries[image], mixed / mixed.norm(), atol=1e-5)
    others = [i for i in range(len(case.source)) if i not in case.views["index"].tolist()]
    assert torch.equal(case.heads["bank"].entries[others], before[others])


@pytest.mark.parametrize("kind", [NPID, PIRL])
def test_the_bank_begins_with_what_the_untrained_encoder_says_and_only_then(kind):
    case = Case(kind(size=16, negatives=7, dimensions=8))
    whole = case.source.batch(torch.arange(len(case.source)), CPU)
    images = whole.warp(torch.eye(3).repeat(len(whole), 1, 1), case.task.view_sizes()["crop"])
    assert images.shape[-1] == 12
    with torch.no_grad():
        pooled = case.encoder(images) @ case.heads["project"][0].weight.T
        case.task.before_epoch(case.encoder, case.heads, case.source, torch.Generator())
    expected = F.normalize((pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt())
    assert torch.allclose(case.heads["bank"].entries, expected, atol=1e-4)
    case.remember()
    kept = case.heads["bank"].entries.clone()
    case.task.before_epoch(case.encoder, case.heads, case.source, torch.Generator())
    assert torch.equal(case.heads["bank"].entries, kept)


def test_a_bank_of_noise_stays_one_until_images_are_shown():
    case = Case(NPID(size=16, negatives=7, bank_init="random"))
    kept = case.heads["bank"].entries.clone()
    case.task.before_epoch(case.encoder, case.heads, case.source, torch.Generator())
    assert torch.equal(case.heads["bank"].entries, kept)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_features_that_all_point_one_way_are_apart_once_embedded(head):
    torch.manual_seed(0)
    features = 5 + 0.1 * torch.randn(64, 32)
    assert F.cosine_similarity(features[0], features[1:]).min() > 0.99
    embedded = embedding(32, 16, head)(features)
    assert F.cosine_similarity(embedded[0], embedded[1:]).mean().abs() < 0.1


@pytest.mark.parametrize("name", TASKS)
def test_the_loss_reaches_every_weight(name):
    case = Case(TASKS[name])
    case.loss().backward()
    weights = {**dict(case.encoder.named_parameters()), **dict(case.heads.named_parameters())}
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in weights.values())
    idle = {key for key, weight in weights.items() if not weight.grad.any()}
    assert idle == ({"project.0.weight"} if getattr(case.task, "weight", 0) == 1 else set())


def test_training_finds_images_again_however_shuffled_or_turned():
    """On images of nine colours each: from chance, 1 in 8."""
    task = PIRL(size=16, negatives=7, transform="both", **{**PLAIN, "puzzle_scale": (0.9, 1.0)})
    case, found = Case(task), []
    case.source.images = F.interpolate(torch.rand(24, 3, 3, 3), 16)
    optimizer = torch.optim.Adam([*case.encoder.parameters(), *case.heads.parameters()], lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        case.views = task.views(case.source.batch(torch.arange(24), CPU), generator)
        loss, outputs = task.loss(case.encoder, case.heads, case.views)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        case.remember()
        found.append([float(outputs[name]) for name in ("accuracy", "transformed_accuracy")])
    assert task.chance(case.source, 6) == {"accuracy": 1 / 8, "transformed_accuracy": 1 / 8}
    accuracy, transformed_accuracy = torch.tensor(found[-10:]).mean(0)
    assert accuracy > 3 / 8
    assert transformed_accuracy > 2 / 8


# --- the transformations ---------------------------------------------------------------------------------------------


def test_only_tiles_call_for_statistics_of_whole_images():
    assert PIRL(transform="jigsaw").uses_tiles()
    assert PIRL(transform="both").uses_tiles()
    assert not PIRL(transform="rotation").uses_tiles()
    assert not PIRL(weight=0.0).uses_tiles()


@pytest.mark.parametrize(("size", "shuffled"), [(32, False), (63, False), (64, True), (128, True)])
def test_by_default_tiles_are_shuffled_only_where_they_are_large_enough(size, shuffled):
    """Tiles of 8 pixels, as of images of 32, taught nothing."""
    task = PIRL(size=size)
    assert task.uses_tiles() == shuffled
    assert set(task.heads(ToyEncoder(), ToySource())) >= ({"tiles"} if shuffled else {"rotated"})


def test_turned_images_are_quarter_turns_all_four_alike():
    task, source = PIRL(size=16, transform="rotation", **PLAIN), ToySource()
    turns = []
    for seed in range(20):
        views = task.views(source.batch(torch.arange(24), CPU), torch.Generator().manual_seed(seed))
        assert torch.allclose(views["images"], source.images, atol=1e-5)
        for image, turned in zip(views["images"], views["rotated"], strict=True):
            same = [k for k in range(4) if torch.allclose(torch.rot90(image, k, (1, 2)), turned, atol=1e-5)]
            turns += same
            assert len(same) == 1
    counts = torch.tensor(turns).bincount(minlength=4)
    assert (counts - 120).abs().max() < 4 * (480 * 0.25 * 0.75) ** 0.5


def nine_greys(count: int) -> ToyBatch:
    """Images of three by three flat cells, from 0 at the top left to 0.8."""
    cells = (torch.arange(9) / 10).reshape(3, 3).repeat_interleave(32, 0).repeat_interleave(32, 1)
    return ToyBatch({"image": cells.expand(count, 3, 96, 96).clone()}, torch.arange(count), {}, count)


def test_tiles_are_the_nine_parts_of_the_image_each_in_its_third_in_any_order():
    task = PIRL(size=96, puzzle_scale=(1.0, 1.0), **PLAIN)
    tiles = task.views(nine_greys(400), torch.Generator().manual_seed(0))["tiles"]
    assert tiles.shape == (3600, 3, 24, 24)
    inner = tiles[..., 2:-2, 2:-2]  # at its border a tile may take in half a pixel of its neighbour by interpolation
    assert (inner - inner.mean((1, 2, 3), keepdim=True)).abs().max() < 1e-4
    order = (inner.mean((1, 2, 3)) * 10).round().long().reshape(400, 9)
    assert torch.equal(order.sort(1).values, torch.arange(9).expand(400, 9))
    assert len(order.unique(dim=0)) > 395  # of 362,880 orders
    places = torch.stack([(order[:, place] == part).sum() for place in range(9) for part in range(9)])
    assert (places - 400 / 9).abs().max() < 4.5 * (400 / 9 * 8 / 9) ** 0.5


def test_orders_of_tiles_can_be_limited_to_those_of_jigsaw():
    task = PIRL(size=96, puzzle_scale=(1.0, 1.0), permutations=5, **PLAIN)
    tiles = task.views(nine_greys(200), torch.Generator().manual_seed(0))["tiles"][..., 2:-2, 2:-2]
    order = (tiles.mean((1, 2, 3)) * 10).round().long().reshape(200, 9)
    assert {tuple(row) for row in order.tolist()} == {tuple(row) for row in distant_permutations(9, 5).tolist()}


def test_every_tile_has_colours_of_its_own():
    task = PIRL(size=96, puzzle_scale=(1.0, 1.0), **{**PLAIN, "jitter": (0.4, 0.0, 0.0, 0.0)})
    batch = nine_greys(2)
    batch.pictures["image"].fill_(0.5)
    tiles = task.views(batch, torch.Generator().manual_seed(0))["tiles"]
    assert len(tiles.mean((1, 2, 3)).mul(1000).round().unique()) > 15


def test_the_order_of_tiles_reaches_g():
    """Nine features are laid side by side, not averaged."""
    case = Case(PIRL(size=16, negatives=7, weight=1, transform="jigsaw"))
    before = case.loss()
    case.views["tiles"] = case.views["tiles"].reshape(8, 9, 3, 4, 4).flip(1).flatten(0, 1)
    assert not torch.allclose(case.loss(), before)


def test_what_is_shown_has_a_picture_of_every_transformation():
    case = Case(PIRL(size=16, negatives=7, transform="both"))
    shown = case.task.visualize(case.encoder, case.heads, case.views)
    assert shown.keys() == {"images", "rotated", "shuffled"}
    assert torch.equal(shown["shuffled"][1, :, :4, :4], case.views["tiles"][9])


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (PIRL, {"weight": 1.5}, "--weight must be from 0 to 1"),
        (PIRL, {"permutations": 1}, "--permutations must be between 2 and 362,880"),
        (PIRL, {"tile": 0.4}, "--tile must be above 0 and at most 1/3 of the view's side, got 0.4"),
        (NPID, {"dimensions": 0}, "--dimensions must be from 1 to 16,384, got 0"),
        (PIRL, {"puzzle_scale": (0.9, 0.6)}, "--puzzle-scale must be"),
        (NPID, {"proximal": -1.0}, "--proximal must be from 0 to"),
        (NPID, {"jitter": (0.4, 0.4, 0.4, 0.9)}, "--jitter must be"),
        (NPID, {"grayscale": 2.0}, "--grayscale"),
        (NPID, {"temperature": 0.0}, "--temperature must be from 0.001"),
    ],
)
def test_settings_that_mean_nothing_are_refused(kind, settings, words):
    with pytest.raises(UserError, match=words):
        kind(**settings)


def test_images_too_small_for_tiles_are_refused():
    with pytest.raises(UserError, match="increase --size"):
        PIRL(size=8, transform="jigsaw").view_sizes()


class OneImage(ToySource):
    def __init__(self) -> None:
        super().__init__(count=1)


@pytest.mark.parametrize("kind", [NPID, PIRL])
def test_one_image_is_refused(kind):
    with pytest.raises(UserError, match="at least 2"):
        kind(size=16).heads(ToyEncoder(), OneImage())


@pytest.mark.parametrize("kind", [NPID, PIRL])
def test_a_batch_of_one_is_refused_where_projections_are_centred_and_trains_where_not(kind):
    for centered in (True, False):
        case = Case(kind(size=16, negatives=7, projection_norm=centered))
        run = Pretraining(case.task, case.encoder, case.heads, case.source, Optimization(), 1, 1, 0)
        trainer = Trainer(make_fabric(CPU, "32"), run)
        case.encoder.train(), case.heads.train()
        views = case.task.views(case.source.batch(torch.tensor([3]), CPU), torch.Generator().manual_seed(0))
        if centered:
            with pytest.raises(UserError, match=r"more than one view per step; increase --batch-size"):
                require_batch_norm_inputs(run, make_fabric(CPU, "32"))
        else:
            assert trainer.step(views, 0.5)["loss"].isfinite()


def test_the_documented_options_give_the_loss_of_npids_paper():
    """h = P / (P + m / n) with P = exp(v f / tau) / Z, Z constant (Wu et al. 2018, section 3.2), written out."""
    task = NPID(
        size=16, negatives=7, nce_normalizer="constant", projection_norm=False, bank_init="random", bank_momentum=0.0
    )
    case, n, m = Case(task), len(ToySource()), 7
    entries = case.heads["bank"].entries.clone()
    task.before_epoch(case.encoder, case.heads, case.source, torch.Generator())
    assert torch.equal(case.heads["bank"].entries, entries)  # noise until an image was shown
    z = None
    for _ in range(2):
        (features, _), entries = case.anchors(), case.heads["bank"].entries.clone()
        images = case.views["index"].tolist()
        others = [negatives_of(case, image) for image in images]
        if z is None:  # n times the mean exponential over the first batch
            drawn = [math.exp(cosine(v, entries[o]) / 0.07) for v, of in zip(features, others, strict=True) for o in of]
            z = n * sum(drawn) / len(drawn)
        losses = []
        for v, image, of in zip(features, images, others, strict=True):
            share = {o: math.exp(cosine(v, entries[o]) / 0.07) / z for o in (image, *of)}
            h = {o: p / (p + m / n) for o, p in share.items()}
            losses.append(-math.log(h[image]) - sum(math.log(1 - h[o]) for o in of))
        assert float(case.loss().detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
        case.remember()
        torch.testing.assert_close(case.heads["bank"].entries[images], features.detach())


def test_the_papers_projection_is_one_linear_layer():
    heads = Case(NPID(size=16, negatives=7, projection_norm=False)).heads
    assert isinstance(heads["project"], torch.nn.Linear)


def test_an_audit_of_pirl_asks_about_transformed_images():
    assert next(iter(PIRL(size=16).chance(ToySource(), 6))) == "transformed_accuracy"
    assert list(PIRL(size=16, weight=0.0).chance(ToySource(), 6)) == ["accuracy"]


def test_tiles_in_which_there_is_little_to_see_are_said_to_be(caplog):
    require_input_sizes(ToyEncoder(), PIRL(size=48, transform="jigsaw").view_sizes())
    assert "tiles of 12 pixels contain too little" in caplog.text
    caplog.clear()
    require_input_sizes(ToyEncoder(), PIRL(size=64).view_sizes())
    assert "contain too little" not in caplog.text
