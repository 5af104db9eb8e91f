"""Baselines and groups of runs in the report."""

from pathlib import Path

import pytest
from fake_runs import fake_run, probed_run

from selftaught.report.commands import repeat_command
from selftaught.report.compare import group_cells, rows
from selftaught.report.groups import group_results, sentences
from selftaught.report.page import render
from selftaught.report.record import read_records


@pytest.mark.parametrize("name", ["scattering", "pixels"])
def test_baselines_without_parameters_have_no_gain(tmp_path: Path, name: str) -> None:
    run = fake_run(tmp_path / "run", lines=0, task="baseline", baseline=name, encoder=name)
    html = render(read_records([run]))
    assert "no parameters, so a gain over random weights is not defined. Accuracy: 0.723 at the best layer" in html
    assert "Pretraining helped" not in html
    assert "+0.160" not in html
    assert "0.563" not in html  # random weights
    (row,) = rows(read_records([run]))
    assert row.cells()[4:9] == ["0.723 ± 0.003", "n.a.", "n.a.", "0.402", "0.100"]


def test_commands_repeat_the_run(tmp_path: Path) -> None:
    pretrained = fake_run(tmp_path / "run")
    baseline = fake_run(
        tmp_path / "my baseline",
        task="baseline",
        baseline="kmeans",
        data=["/a b/one", "/two"],
        limit=50,
        labels=None,
        **{"encoder.input_mode": "sobel"},
    )
    first, second = read_records([pretrained, baseline])
    assert repeat_command(first) == f"selftaught pretrain --config {pretrained}/config.yaml --out {pretrained}-again"
    assert repeat_command(second) == (
        "selftaught baseline kmeans '/a b/one' /two --encoder convnet --input-mode sobel --size 32 --seed 0 "
        f"--limit 50 --out '{baseline}-again'"
    )


def test_groups_and_differences_of_several_runs_are_on_the_page(tmp_path: Path) -> None:
    runs = [probed_run(tmp_path / f"good{seed}", (0.5, 0.8), seed) for seed in range(2)]
    runs.append(probed_run(tmp_path / "worse", (0.5, 0.5), batch_size=8))
    html, groups = render(read_records(runs)), group_results(read_records(runs))
    assert "<h2>Groups of runs</h2>" in html
    (sentence,) = sentences(groups)
    assert f"<li>{sentence}</li>" in html
    for cells in group_cells(groups):
        for cell in cells:
            assert f">{cell}</td>" in html
    assert "Groups of runs" not in render(read_records(runs[:1]))


def test_encoders_without_parameters_have_no_gain_in_the_groups(tmp_path: Path) -> None:
    runs = [probed_run(tmp_path / "rotation", (0.5, 0.8))]
    runs.append(probed_run(tmp_path / "pixels", (0.5, 0.5), task="baseline", baseline="pixels"))
    first, second = group_cells(group_results(read_records(runs)))
    assert first[-2].startswith("+")
    assert second[-2:] == ["n.a.", "n.a."]
