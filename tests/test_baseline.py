"""Baselines are run folders that probe, invariance, compare and report treat like any run."""

import pytest
import torch
from PIL import Image

import selftaught
from selftaught.cli import main
from selftaught.errors import UserError
from selftaught.evaluation.table import render
from selftaught.report.record import read_records


@pytest.fixture
def folder(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for label in ("dark", "light"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(24):
            pixels = torch.randint(0, 128, (16, 16, 3), generator=generator) + (127 if label == "light" else 0)
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(tmp_path / "images" / label / f"{number}.png")
    return tmp_path / "images"


@pytest.mark.parametrize("name", ["random", "kmeans", "dictionary", "scattering", "pixels"])
def test_a_baseline_is_probed_compared_and_reported_like_any_run(folder, name, capsys):
    if name == "scattering":
        pytest.importorskip("kymatio")
    out = folder.parent / name
    options = {"scattering": {"orientations": 2}, "dictionary": {"filters": 4}, "pixels": {}}.get(name, {"width": 4})
    run = selftaught.baseline(name, folder, out=out, size=16, **options)
    assert run.finished
    assert all(tensor.isfinite().all() for tensor in run.encoder.state_dict().values())
    table = run.probe(folder)
    assert [row.layer for row in table.layers] == list(run.encoder.layers)
    assert table.best.value == 1 or name != "pixels"  # brightness separates the classes
    fixed = name in ("dictionary", "scattering", "pixels")
    assert table.has_parameters is not fixed
    assert table.gain.value == 0 or not fixed  # nothing to compare with is probed, which would take as long again
    assert ("so a gain over random weights is not defined" in str(render(table).caption)) is fixed
    run.invariance(folder, images=8)
    assert main(["compare", str(out)]) == 0
    assert name in capsys.readouterr().out
    html = run.report().read_text()
    assert f"<pre>selftaught baseline {name} {folder} " in html
    assert "Pretraining" not in html
    assert f"baseline {name}" in html
    (record,) = read_records([out])
    assert (record.step, record.log, record.status) == (0, [], "finished")


def test_a_random_baseline_is_independent_of_the_random_weights_of_probes(folder):
    from selftaught.config.build import fresh_encoder

    run = selftaught.baseline("random", folder, out=folder.parent / "run", size=16, width=4)
    first = run.encoder.blocks["layer1"][0].weight
    for seed in range(3):
        other = fresh_encoder(run.folder.read_description(), seed)
        assert not other.blocks["layer1"][0].weight.equal(first)


def test_a_baseline_cannot_be_audited_or_resumed(folder, capsys):
    out = folder.parent / "run"
    assert main(["baseline", "random", str(folder), "--out", str(out), "--size", "16"]) == 0
    assert str(out.name) in capsys.readouterr().out
    for command in (["audit", str(out)], ["pretrain", "--resume", "--out", str(out)]):
        assert main(command) == 2
        assert "is a baseline, which has no pretext task" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("kmean", {}, "kmeans"),
        ("scattering", {"encoder": "convnet"}, "remove --encoder"),
        ("timm:resnet18", {}, "give --pretrained"),
        ("kmeans", {"encoder": "vit"}, "choose another --encoder"),
    ],
)
def test_mistakes_leave_no_folder(folder, name, options, said):
    out = folder.parent / "run"
    with pytest.raises(UserError, match=said):
        selftaught.baseline(name, folder, out=out, size=16, **options)
    assert not out.exists()


def test_flags_of_the_encoder_are_those_of_the_baseline_or_of_the_chosen_encoder(folder, capsys):
    out = folder.parent / "run"
    assert main(["baseline", "dictionary", str(folder), "--out", str(out), "--size", "16", "--filters", "3"]) == 0
    assert selftaught.Run(out).encoder.layers["codes"].channels == 6
    assert main(["baseline", "random", str(folder), "--encoder", "vit", "--filters", "3"]) == 2
    assert "--filters" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_folder_with_the_name_of_a_baseline_has_no_influence_on_the_flags(folder, place, capsys, monkeypatch):
    monkeypatch.chdir(folder.parent)
    out = "pixels"
    given = ["random", str(folder), "--width", "4", "--size", "16"]
    assert main(["baseline", *(("--out", out) if place == "before" else ()), *given,
                 *(("--out", out) if place == "after" else ())]) == 0, capsys.readouterr().err  # fmt: skip
    assert selftaught.Run(out).encoder.layers["layer1"].channels == 4
