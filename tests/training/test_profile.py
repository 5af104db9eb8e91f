import pytest
import torch
from torch.nn.functional import cross_entropy

from selftaught import profile
from selftaught.cli import main
from selftaught.training.loop import Trainer
from selftaught.training.plan import make_fabric
from selftaught.training.profile import profile_step

PHOTO = {"size": 16, "num_crops": 64, "batch_size": 8, "width": 8, "crop": 1.0}


@pytest.fixture(autouse=True)
def _a_second_of_steps(monkeypatch):
    """Instead of six: nothing here depends on how many are timed."""
    monkeypatch.setattr(profile_step, "__defaults__", (1.0,))


@pytest.fixture
def photo(tmp_path):
    from PIL import Image

    noise = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_operations_are_those_of_the_formula(photo):
    """Three 3 x 3 convolutions at 16, 8 and 4 pixels on 32 views, twice more backward but for the images' gradient."""
    found = profile(photo, **PHOTO)
    layers = [2 * 9 * inputs * outputs * side**2 for inputs, outputs, side in ((3, 8, 16), (8, 16, 8), (16, 32, 4))]
    head = 2 * 32 * 4
    expected = 32 * (3 * (sum(layers) + head) - layers[0])
    assert expected <= found.operations < 1.005 * expected  # and the 3 x 3 products of the geometry
    assert 0 < found.share < 1
    assert list(found.parts) == ["images", "views", "forward", "backward", "optimizer", "after step"]
    assert found.seconds == pytest.approx(8 / found.images_per_second)


def test_marks_change_nothing(photo):
    from selftaught.config.build import build
    from selftaught.config.settings import Settings

    losses = []
    for mark in (None, lambda part: None):
        run = build([str(photo)], Settings.of(**PHOTO, seed=3)).pretraining
        trainer = Trainer(make_fabric(torch.device("cpu"), "32"), run)
        views = run.task.views(run.source.batch(torch.arange(8), torch.device("cpu")), torch.Generator().manual_seed(0))
        losses.append([trainer.step(views, 0.5, mark)["loss"].item() for _ in range(3)])
    assert losses[0] == losses[1]
    assert losses[0][0] == pytest.approx(cross_entropy(torch.zeros(1, 4), torch.zeros(1).long()).item(), abs=1)


def test_the_command_says_it_and_writes_nothing(photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    flags = [word for name, value in PHOTO.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["pretrain", str(photo), *flags, "--profile"]) == 0
    said = capsys.readouterr().out
    assert "backward" in said
    assert "of a large matrix product" in said
    assert set(tmp_path.iterdir()) == before
    assert main(["pretrain", str(photo), "--profile", "--out", "x"]) == 2
    assert "--out" in capsys.readouterr().err
