"""Attention maps, neighbors, filters and style transfer of a run: by Python, by command, in folder and report."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import selftaught
from selftaught import cli
from selftaught.api.run import Run
from selftaught.errors import UserError
from selftaught.training.interruption import Stop

TINY = {"task": "rotation", "size": 16, "steps": 1, "batch_size": 8, "threads": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Two classes of noise, and a photo."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, level in (("bright", 150), ("dark", 60)):
        (root / "images" / "test" / name).mkdir(parents=True)
        (root / "images" / "train" / name).mkdir(parents=True)
        for number in range(8):
            pixels = (level + rng.integers(-50, 50, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / ("test", "train")[number % 2] / name / f"{number}.png")
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(root / "photo.png")
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Path:
    return selftaught.pretrain(data / "images", out=tmp_path_factory.mktemp("runs") / "run", width=8, **TINY).path


@pytest.fixture(scope="module")
def transformer(data, tmp_path_factory) -> Path:
    options = {"encoder": "vit", "encoder.width": 24, "encoder.heads": 2, "encoder.depth": 2, "patch": 4}
    return selftaught.pretrain(
        data / "images", out=tmp_path_factory.mktemp("runs") / "vit", **options, **{**TINY, "crop": 1.0}
    ).path


@pytest.fixture
def run(trained, tmp_path) -> Run:
    return Run(shutil.copytree(trained, tmp_path / "run"))


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.size


def test_attention_is_drawn_for_every_layer_image_and_power(run, data):
    picture = run.attention(data / "images", images=3, powers=(1, 4))
    assert picture.path.parent == run.path / "pictures"
    width, height = size(picture.path)
    assert width > 7 * 96  # the image, and three layers twice
    assert 6 * 96 < height < 7 * 96  # three images, two powers
    facts = json.loads(picture.path.with_suffix(".json").read_text())
    assert facts["layers"] == ["layer1", "layer2", "layer3"]
    assert facts["powers"] == [1, 4]
    assert facts["step"] == 1
    assert run.attention(data / "images", images=3, powers=(1, 4)).path == picture.path
    assert run.attention(data / "images", images=2, layers=("layer2",)).path != picture.path


def test_attention_of_a_photo(run, data):
    assert run.attention(data / "photo.png").facts["images"] == 1


def test_attention_weights_of_a_transformer_have_no_powers(transformer, data):
    facts = Run(transformer).attention(data / "images", images=2).facts
    assert facts["layers"] == ["mean", "head 1", "head 2"]
    assert facts["powers"] == [1.0]
    assert "Attention that each patch receives" in facts["note"]


def test_neighbors_are_drawn_and_measured(run, data):
    picture = run.neighbors(data / "images", queries=2, k=3, images=8)
    width, height = size(picture.path)
    assert width > 7 * 64
    assert height > 6 * 64
    assert 0.4 < picture.facts["chance"] < 0.45  # 3 of 7
    assert [row["layer"] for row in picture.facts["layers"]] == ["layer1", "layer2", "layer3"]


def test_filters_of_runs_and_random_weights_are_side_by_side(run, trained, data):
    alone = run.filters()
    assert alone.facts["runs"] == ["run"]
    both = run.filters(Run(trained))
    assert both.facts["runs"] == ["run", "run (2)"]
    assert size(both.path)[0] > 1.4 * size(alone.path)[0]
    assert both.path != alone.path


def test_a_style_transfer_writes_the_result_and_the_comparison(run, data, tmp_path):
    out = tmp_path / "new" / "styled.png"
    photo = data / "photo.png"
    picture = run.stylize(photo, photo, size=24, steps=2, random=True, out=out)
    assert size(out) == (24, 16)
    assert size(picture.path)[0] >= 4 * 24
    assert picture.facts["steps"].keys() == {"trained", "random weights"}
    assert picture.facts["settings"]["style_layers"] == ("layer1", "layer2", "layer3")
    with pytest.raises(UserError, match="exists: give another --out"):
        run.stylize(photo, photo, size=24, steps=2, out=out)


def test_a_stopped_style_transfer_keeps_the_image_so_far(run, data):
    stop = Stop()
    stop.request()
    facts = run.stylize(data / "photo.png", data / "photo.png", size=24, steps=50, random=True, stop=stop).facts
    assert facts["steps"] == {"trained": 1}


def test_the_report_shows_the_pictures_of_the_present_weights_only(run, data):
    run.attention(data / "images", images=2)
    run.neighbors(data / "images", queries=1, k=2, images=8)
    run.filters()
    run.stylize(data / "photo.png", data / "photo.png", size=24, steps=1)
    page = run.report().read_text()
    titles = ("Attention maps on 2 images", "Nearest neighbors at every layer among 8", "First-layer filters of run")
    for title in (*titles, "Style transfer: photo.png in the style of photo.png"):
        assert title in page
    assert page.count("data:image/png") >= 5  # and the filters of the run itself
    for path in (run.path / "pictures").glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "weights": "0" * 32}))
    assert titles[0] not in run.report().read_text()


def test_files_that_are_not_png_are_left_out_of_the_report(run, data):
    picture = run.filters()
    picture.path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    assert picture.facts["title"] not in run.report().read_text()
    picture.path.unlink()
    assert picture.facts["title"] not in run.report().read_text()
    picture.path.symlink_to(data / "photo.png")
    with pytest.raises(UserError, match="symbolic link"):
        run.report()


def test_damaged_facts_are_refused(run):
    picture = run.filters()
    picture.path.with_suffix(".json").write_text('{"kind": "filters", "title": 5}')
    with pytest.raises(UserError, match="title"):
        run.report()


def test_every_command_prints_the_path_of_its_picture(run, data, capsys):
    images, photo, folder = str(data / "images"), str(data / "photo.png"), str(run.path)
    commands = {
        "attention": ["--data", images, "--images", "2", "--layers", "layer1", "layer3", "--powers", "1", "2.5"],
        "neighbors": ["--data", images, "--queries", "1", "--k", "2"],
        "filters": [folder],
        "stylize": ["--content", photo, "--style", photo, "--size", "16", "--steps", "1"],
    }
    for name, words in commands.items():
        assert cli.main([name, folder, *words]) == 0
        lines = capsys.readouterr().out.split("\n")
        assert Path(lines[-2]).is_file()
        assert cli.main([name, folder, *words, "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert facts["picture"] == lines[-2]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["attention", "RUN", "--data", "DATA", "--layers", "layr1"], "did you mean layer1"),
        (["attention", "RUN", "--data", "DATA", "--powers", "0"], "--powers expects numbers above 0"),
        (["attention", "RUN", "--data", "DATA", "--images", "0"], "--images must be from 1"),
        (["attention", "RUN", "--data", "DATA", "--size", "100000"], "--size must be from 1 to 4,096"),
        (["neighbors", "RUN", "--data", "DATA", "--k", "500"], "500 neighbors need at least 501 images"),
        (["stylize", "RUN", "--content", "PHOTO", "--style", "DATA"], "--style expects an image file"),
        (["stylize", "RUN", "--content", "PHOTO", "--style", "nothing.png"], "nothing.png"),
        (
            ["stylize", "RUN", "--content", "PHOTO", "--style", "PHOTO", "--size", "9"],
            "--size must be from 16 to 2,048",
        ),
        (["stylize", "RUN", "--content", "PHOTO", "--style", "PHOTO", "--out", "x.jpg"], "--out expects a PNG file"),
        (["stylize", "VIT", "--content", "PHOTO", "--style", "PHOTO"], "convolutional encoder"),
        (["filters", "DATA"], "is not a run folder"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(command, text, run, transformer, data, capsys):
    places = {"RUN": run.path, "DATA": data / "images", "PHOTO": data / "photo.png", "VIT": transformer}
    before = sorted(run.path.rglob("*"))
    assert cli.main([str(places.get(word, word)) for word in command]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("selftaught: ")]) == 1
    assert text in " ".join(said)
    assert sorted(run.path.rglob("*")) == before
