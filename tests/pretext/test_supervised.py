"""The supervised task: its loss, its augmentation, and which weights learn how fast."""

import copy
import math

import pytest
import torch
from PIL import Image
from torch import nn

from selftaught.config.build import build
from selftaught.config.settings import Settings
from selftaught.encoders import make_encoder
from selftaught.errors import UserError
from selftaught.modules.depth import weight_depths
from selftaught.pretext.supervised import Supervised
from selftaught.training.loop import Pretraining, Trainer
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from toys import ToyEncoder, ToySource

CPU = torch.device("cpu")


def views_of(task: Supervised, seed: int = 0) -> dict[str, torch.Tensor]:
    return task.views(ToySource().batch(torch.arange(8), CPU), torch.Generator().manual_seed(seed))


def test_the_loss_is_the_cross_entropy_with_the_smoothed_label():
    task, encoder = Supervised(size=16, label_smoothing=0.2), ToyEncoder()
    heads = task.heads(encoder, ToySource())
    views = views_of(task)
    with torch.no_grad():
        loss, outputs = task.loss(encoder, heads, views)
        probabilities = heads["label"](encoder(views["images"])).softmax(1).tolist()
    labels = views["label"].tolist()
    expected = [
        -sum((0.8 * (k == label) + 0.2 / 2) * math.log(p) for k, p in enumerate(row))
        for row, label in zip(probabilities, labels, strict=True)
    ]
    assert float(loss) == pytest.approx(sum(expected) / 8, rel=1e-4)
    right = sum((row[1] > row[0]) == bool(label) for row, label in zip(probabilities, labels, strict=True))
    assert float(outputs["accuracy"]) == right / 8


def test_a_padded_view_is_the_whole_image_shifted_with_a_mirrored_border():
    task = Supervised(size=16, padding=0.25, flip=False)
    images, found = ToySource().images[:8], views_of(task)["images"]
    mirrored = nn.functional.pad(images, (4, 4, 4, 4), mode="replicate")
    mirrored[..., :4], mirrored[..., -4:] = mirrored[..., 4:8].flip(3), mirrored[..., -8:-4].flip(3)
    mirrored[..., :4, :], mirrored[..., -4:, :] = mirrored[..., 4:8, :].flip(2), mirrored[..., -8:-4, :].flip(2)
    shifts = []
    for image, view in zip(mirrored, found, strict=True):
        errors = {
            (dy, dx): float((image[:, dy : dy + 16, dx : dx + 16] - view).abs().mean())
            for dy in range(9)
            for dx in range(9)
        }
        best = min(errors, key=lambda shift: errors[shift])
        assert errors[best] < 0.06  # shifts are no whole pixels
        shifts.append(best)
    assert len(set(shifts)) > 4


@pytest.mark.parametrize(
    ("name", "options", "of_layers"),
    [
        ("convnet", {"width": 4}, {"layer1": "blocks.layer1", "layer2": "blocks.layer2", "layer3": "blocks.layer3"}),
        ("vit", {"depth": 2, "width": 24}, {"block01": ("embed", "blocks.0"), "block02": ("blocks.1", "norm")}),
        ("hybrid", {"filters": 3, "width": 4}, {"codes": (), "layer1": "layer1", "layer2": "layer2"}),
        (
            "timm:resnet10t",
            {"small": False},
            {
                "stem": ("model.conv1", "model.bn1"),
                **{f"stage{number}": f"model.layer{number}" for number in (1, 2, 3, 4)},
            },
        ),
    ],
)
def test_every_weight_belongs_to_the_layer_that_computes_it(name, options, of_layers):
    encoder = make_encoder(name, size=32, **options)
    depths = weight_depths(encoder.train(), 32)
    assert encoder.training
    for path, weight in encoder.named_parameters():
        layer = list(encoder.layers)[depths[weight]]
        assert path.startswith(of_layers[layer]), (path, layer)
        assert weight.requires_grad


def trained(task: Supervised, steps: int = 3, name: str = "convnet") -> tuple[nn.Module, nn.Module, Trainer]:
    """An encoder before and after some steps."""
    torch.manual_seed(0)
    encoder = make_encoder(name, size=16, width=4)
    source = ToySource()
    before, heads = copy.deepcopy(encoder), task.heads(encoder, source)
    run = Pretraining(task, encoder, heads, source, Optimization(learning_rate=0.01), steps, 8, 0)
    trainer = Trainer(make_fabric(CPU, "32"), run)
    for step in range(steps):
        trainer.encoder.train(), trainer.heads.train()
        trainer.step(views_of(task, step), 0.5)
    return before, encoder, trainer


def test_the_learning_rate_decays_from_layer_to_layer():
    _, encoder, trainer = trained(Supervised(size=16, layer_decay=0.5))
    full = Optimization(learning_rate=0.01).rate(0.5)
    rates = {id(weight): group["lr"] for group in trainer.optimizers[0].param_groups for weight in group["params"]}
    for number, name in enumerate(encoder.layers, 1):
        for weight in encoder.blocks[name].parameters():
            assert rates[id(weight)] == pytest.approx(full * 0.5 ** (4 - number))
    assert all(rates[id(weight)] == pytest.approx(full) for weight in trainer.heads.parameters())


def test_frozen_layers_and_their_statistics_stay_and_the_others_learn():
    before, encoder, _ = trained(Supervised(size=16, freeze_until="layer2"))
    old, new = before.state_dict(), encoder.state_dict()
    for path in old:
        assert torch.equal(old[path], new[path]) == (".layer3." not in path), path


@pytest.mark.parametrize(("frozen", "changed"), [("codes", ("layer1", "layer2")), ("layer1", ("layer2",))])
def test_a_layer_without_weights_is_frozen_with_its_statistics(frozen, changed):
    before, encoder, _ = trained(Supervised(size=16, freeze_until=frozen), name="hybrid")
    old, new = before.state_dict(), encoder.state_dict()
    for path in old:
        assert torch.equal(old[path], new[path]) == (not path.startswith(changed)), path


def test_a_whole_encoder_can_be_frozen():
    before, encoder, trainer = trained(Supervised(size=16, freeze_until="layer3", layer_decay=0.5))
    assert all(
        torch.equal(a, b) for a, b in zip(before.state_dict().values(), encoder.state_dict().values(), strict=True)
    )
    assert any(weight.grad is not None for weight in trainer.heads.parameters())


class OneClass(ToySource):
    classes = ("left",)


@pytest.mark.parametrize(
    ("options", "source", "message"),
    [
        ({"freeze_until": "secnd"}, ToySource, "no layer of this encoder called 'secnd': did you mean second"),
        ({}, OneClass, "needs images of at least 2 classes, but toy has 1"),
        ({"layer_decay": 0.0}, ToySource, "--layer-decay must be above 0"),
        ({"label_smoothing": 1.0}, ToySource, "--label-smoothing"),
        ({"padding": 0.6}, ToySource, "--padding"),
        ({"jitter": (2.0, 0.0, 0.0, 0.0)}, ToySource, "--jitter"),
    ],
)
def test_what_cannot_be_learned_is_refused(options, source, message):
    with pytest.raises(UserError, match=message):
        Supervised(size=16, **options).heads(ToyEncoder(), source())


def test_images_without_a_label_are_not_trained_on(tmp_path):
    names = []
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(3):
            Image.new("RGB", (16, 16), (80 * number, 0, 0)).save(tmp_path / label / f"{number}.png")
            names.append((f"{label}/{number}.png", label))
    listed = tmp_path / "labels.csv"
    listed.write_text(
        "path,label\n" + "".join(f"{path},{label}\n" for path, label in names if not path.endswith("0.png"))
    )
    sizes = {}
    for task in ("supervised", "rotation"):
        settings = Settings.of(task=task, steps=1, size=16, width=4)
        source = build([str(tmp_path)], settings, listed).pretraining.source
        sizes[task] = len(source)
        labels = source.batch(torch.arange(len(source)), CPU).targets["label"]
        assert bool((labels < 0).any()) == (task == "rotation")
    assert sizes["supervised"] < sizes["rotation"]


def test_images_without_any_label_are_refused(tmp_path):
    for number in range(3):
        Image.new("RGB", (16, 16), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="the task supervised requires images with label"):
        build([str(tmp_path)], Settings.of(task="supervised", steps=1, size=16, width=4))
