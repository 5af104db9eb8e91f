"""lightly's recipes: the training loop on a toy recipe, and the recipes where lightly is installed."""

import itertools

import pytest
import torch
from benchmarks import lightly_recipes
from benchmarks.lightly_recipes import EPOCHS, RECIPES, Recipe, main, train
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

import selftaught
from selftaught.errors import UserError

needs_lightly = [
    pytest.mark.skipif(lightly_recipes.find_spec("lightly") is None, reason="lightly is not installed (extra bench)"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning"),  # of lightly's head of DINO
]


class Toy(Recipe):
    """Move a number toward 0."""

    batch_size = 5

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.number, self.epochs = nn.Parameter(torch.ones(())), []

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        self.epochs.append(epoch)
        assert [view.shape for view in views] == [(5,), (5,)]
        return self.number.square()


def test_training_takes_the_given_seconds_and_logs_means_since_the_line_before(monkeypatch):
    clock = itertools.count()  # a step takes one second
    monkeypatch.setattr(lightly_recipes, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(lightly_recipes, "LOG_SECONDS", 2.0)
    toy, loader = Toy(), DataLoader([(0.0, 1.0)] * 12, 5, drop_last=True)
    lines = list(train(toy, loader, 25, 0.06))
    losses = [(1 - 2 * 0.06) ** (2 * step) for step in range(25)]  # SGD at 0.06 multiplies the number by 1 - 2 * 0.06
    assert [line["step"] for line in lines] == [*range(2, 25, 2), 25]
    assert [line["seconds"] for line in lines] == [line["step"] for line in lines]
    assert {line["images_per_second"] for line in lines} == {5.0}
    for first, line in zip(range(0, 24, 2), lines[:-1], strict=True):
        assert line["loss"] == pytest.approx(sum(losses[first : first + 2]) / 2)
    assert toy.epochs == [min(step // 2, EPOCHS - 1) for step in range(25)]  # two batches are an epoch


def test_a_loss_that_is_not_finite_ends_the_training():
    loader = DataLoader([(0.0, 1.0)] * 10, 5)
    with pytest.raises(UserError, match=r"the loss became inf at step [0-9]+: try a lower --learning-rate"):
        list(train(Toy(), loader, 60, 1e6))


def test_mistakes_are_one_sentence(tmp_path, capsys, monkeypatch):
    command = ["--data", str(tmp_path), "--recipe", "simclr", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(lightly_recipes, "find_spec", lambda name: None)
    assert main(command) == 2
    assert capsys.readouterr().err == (
        "error: lightly's recipes need the package lightly: pip install 'selftaught[bench]'.\n"
    )
    monkeypatch.setattr(lightly_recipes, "find_spec", lambda name: name)
    assert main([*command[:-1], str(tmp_path)]) == 2
    assert "expects a new folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class TestRecipes:
    pytestmark = needs_lightly

    @pytest.mark.parametrize("name", RECIPES)
    def test_an_encoder_is_trained_and_saved_as_a_run(self, name, tmp_path, capsys, monkeypatch):
        for number in range(8):
            (tmp_path / "images" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            picture = Image.effect_noise((16, 16), 20 + number).convert("RGB")
            picture.save(tmp_path / "images" / "ab"[number % 2] / f"{number}.png")
        monkeypatch.setattr(RECIPES[name], "batch_size", 4)
        monkeypatch.setattr(
            lightly_recipes, "DataLoader", lambda *settings, num_workers, **more: DataLoader(*settings, **more)
        )
        threads, out = str(torch.get_num_threads()), tmp_path / "run"
        command = ["--data", str(tmp_path / "images"), "--recipe", name, "--size", "16", "--threads", threads]
        assert main([*command, "--minutes", "0.001", "--out", str(out)]) == 0
        assert f"{out}\n" in capsys.readouterr().out
        run = selftaught.Run(out)
        assert run.finished
        (*_, line) = run.folder.read_log()
        assert {"step", "seconds", "images_per_second", "loss"} == line.keys()
        assert run.folder.read_status()["step"] == line["step"]
        config = run.folder.read_config(complete=False)
        assert config["task"].startswith(f"{name} of lightly ")
        assert (config["batch_size"], config["threads"]) == (4, int(threads))

    @pytest.mark.parametrize("name", RECIPES)
    def test_two_views_in_the_unit_interval_give_gradients_to_every_weight_of_the_encoder(self, name):
        recipe = recipe_of(name)
        views = views_of(recipe)
        assert [view.shape for view in views] == [(4, 3, 16, 16)] * 2
        assert all(0 <= view.min() < view.max() <= 1 for view in views)
        recipe.loss(views, 0).backward()
        assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in recipe.encoder.parameters())

    @pytest.mark.parametrize("name", RECIPES)
    def test_steps_on_one_batch_lower_the_loss(self, name):
        recipe = recipe_of(name)
        views, optimizer, losses = views_of(recipe), recipe.optimizer(0.001), []
        for _ in range(12):
            losses.append(recipe.loss(views, 1))
            losses[-1].backward()
            optimizer.step()
            optimizer.zero_grad()
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize(("name", "pair"), [("byol", ("online", "target")), ("dino", ("student", "teacher"))])
    def test_the_momentum_network_follows_the_encoder(self, name, pair):
        recipe = recipe_of(name)
        online, target = (getattr(recipe, part) for part in pair)
        with torch.no_grad():
            for weight in online.parameters():
                weight += torch.randn_like(weight)
        before = [weight.clone() for weight in target.parameters()]
        recipe.loss(views_of(recipe), 0)
        for old, new, weight in zip(before, target.parameters(), online.parameters(), strict=True):
            torch.testing.assert_close(new, 0.996 * old + 0.004 * weight, atol=1e-6, rtol=1e-5)
            assert not new.requires_grad

    def test_the_last_layer_of_dino_is_fixed_in_the_first_epoch_only(self):
        for epoch, fixed in ((0, True), (1, False)):
            recipe = recipe_of("dino")
            recipe.loss(views_of(recipe), epoch).backward()
            recipe.after_backward(epoch)
            assert (recipe.head.last_layer.weight_v.grad is None) is fixed


def recipe_of(name: str) -> Recipe:
    torch.manual_seed(0)
    return RECIPES[name](selftaught.make_encoder("convnet", size=16, width=4)).train()


def views_of(recipe: Recipe) -> list[Tensor]:
    transform = recipe.transform(16)
    each = [transform(Image.effect_noise((16, 16), 40 + number).convert("RGB")) for number in range(4)]
    return [torch.stack(views) for views in zip(*each, strict=True)]
