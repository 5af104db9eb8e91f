"""Baselines and groups of runs in the report."""

from pathlib import Path

import numpy as np
import pytest
from fake_runs import fake_run, probed_run

from selftaught.report.commands import repeat_command
from selftaught.report.compare import COLUMNS, all_rows, rows
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


def test_one_table_has_the_runs_and_the_mean_over_seeds_after_the_last_of_them(tmp_path: Path) -> None:
    runs = [probed_run(tmp_path / "good0", (0.5, 0.8), 0), probed_run(tmp_path / "worse", (0.5, 0.5), batch_size=8)]
    runs.append(probed_run(tmp_path / "good1", (0.5, 0.82), 1))
    records = read_records(runs)
    groups = group_results(records)
    table = all_rows(records, groups)
    assert [row.cells()[0] for row in table] == ["good0", "worse", "good1", "good0 (mean of 2 seeds)"]
    seeds, cells = groups[0], dict(zip(COLUMNS, table[-1].cells(), strict=True))
    gain, low, high = seeds.own.minus(seeds.random)
    assert cells["accuracy"] == f"{np.mean(seeds.accuracies):.3f} ± {np.std(seeds.accuracies, ddof=1):.3f}"
    assert cells["gain"] == f"{gain:+.3f} ({low:+.3f} to {high:+.3f})"
    assert (cells["probed on"], cells["best layer"]) == ("cifar10", "layer2")
    assert cells["chance"] == "0.100"
    html = render(records)
    (sentence,) = sentences(groups)
    assert f"<li>{sentence}</li>" in html
    assert html.count('<table class="compared">') == 1
    assert all(f">{cell}</td>" in html for row in table for cell in row.cells())
    assert "mean of seeds" in html
    assert "mean of seeds" not in render(records[:2])


def test_a_copy_of_a_run_is_not_another_seed(tmp_path: Path) -> None:
    """Its result is the same, so it would make the spread over seeds, and the interval, smaller."""
    runs = [probed_run(tmp_path / f"run{number}", (0.5, 0.8), seed) for number, seed in enumerate((0, 0, 1))]
    assert [group.name for group in group_results(read_records(runs))] == ["run0 (mean of 2 seeds)", "run1"]


def test_encoders_without_parameters_have_no_gain_over_random_weights(tmp_path: Path) -> None:
    runs = [
        probed_run(tmp_path / f"pixels{seed}", (0.5, 0.5), seed, task="baseline", baseline="pixels") for seed in (0, 1)
    ]
    records = read_records(runs)
    cells = dict(zip(COLUMNS, all_rows(records, group_results(records))[-1].cells(), strict=True))
    assert cells["run"] == "pixels0 (mean of 2 seeds)"
    assert (cells["random"], cells["gain"]) == ("n.a.", "n.a.")
