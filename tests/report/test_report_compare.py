import io
from pathlib import Path

import pytest
from fake_runs import GOOD, fake_run, probe
from rich.console import Console

from selftaught.errors import UserError
from selftaught.report import compare, write_report
from selftaught.report.compare import COLUMNS, baseline_sentences, rows, run_table
from selftaught.report.record import read_records


def test_every_probe_of_every_run_has_a_row(tmp_path: Path) -> None:
    runs = [
        fake_run(tmp_path / "rot", probes=[GOOD, probe([0.3] * 4, [0.2] * 4, data="flowers")]),
        fake_run(tmp_path / "jig", task="jigsaw", probes=[]),
    ]
    first, second, third = [dict(zip(COLUMNS, row.cells(), strict=True)) for row in rows(read_records(runs))]
    assert first == {
        "run": "rot",
        "pretext task": "rotation on convnet",
        "probed on": "cifar10",
        "best layer": "layer3",
        "accuracy": "0.723 ± 0.003",
        "random": "0.563",
        "gain": "+0.160 (+0.150 to +0.170)",
        "pixels": "0.402",
        "chance": "0.100",
        "minutes": "5.0",
        "images processed": "614,400",
    }
    assert (second["probed on"], second["gain"]) == ("flowers", "+0.100 (+0.090 to +0.110)")
    assert third["pretext task"] == "jigsaw on convnet"
    assert {third[name] for name in ("probed on", "best layer", "accuracy", "random", "gain")} == {"n.a."}


def test_probes_of_other_kinds_or_limits_are_distinguished(tmp_path: Path) -> None:
    few = {**GOOD, "probe": "knn", "train": 5000}
    run = fake_run(tmp_path / "rot", probes=[{**GOOD, "train": 50_000}, few])
    cells = [dict(zip(COLUMNS, row.cells(), strict=True)) for row in rows(read_records([run]))]
    assert [cell["probed on"] for cell in cells] == [
        "cifar10 (ridge, 50,000 labels)",
        "cifar10 (knn, 5,000 labels)",
    ]


def test_overlap_with_pretraining_is_reported(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot", probes=[{**GOOD, "overlap": 9_000, "test": 10_000}])
    (row,) = rows(read_records([run]))
    expected = "cifar10; 9,000 of 10,000 test images were part of pretraining"
    assert dict(zip(COLUMNS, row.cells(), strict=True))["probed on"] == expected


def test_probes_at_different_sizes_are_distinguished(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot", probes=[{**GOOD, "size": 32}, {**GOOD, "size": 64}])
    cells = [dict(zip(COLUMNS, row.cells(), strict=True)) for row in rows(read_records([run]))]
    assert [cell["probed on"] for cell in cells] == [
        "cifar10 (ridge, 50,000 labels, size 32)",
        "cifar10 (ridge, 50,000 labels, size 64)",
    ]


def test_probes_of_one_name_are_told_apart_wherever_it_is(tmp_path: Path) -> None:
    run = fake_run(
        tmp_path / "rot", probes=[{**GOOD, "data": "/data/cifar10"}, {**GOOD, "data": "cifar10", "train": 9}]
    )
    cells = [dict(zip(COLUMNS, row.cells(), strict=True)) for row in rows(read_records([run]))]
    assert [cell["probed on"] for cell in cells] == ["cifar10 (ridge, 50,000 labels)", "cifar10 (ridge, 9 labels)"]


def test_probes_with_other_labels_are_told_apart(tmp_path: Path) -> None:
    probes = [{**GOOD, "labels": name} for name in ("breeds.csv", "colors.csv", None)]
    run = fake_run(tmp_path / "rot", probes=probes)
    cells = [dict(zip(COLUMNS, row.cells(), strict=True)) for row in rows(read_records([run]))]
    assert [cell["probed on"] for cell in cells] == [
        "cifar10 (ridge, 50,000 labels, labels from breeds.csv)",
        "cifar10 (ridge, 50,000 labels, labels from colors.csv)",
        "cifar10 (ridge, 50,000 labels)",
    ]


def test_probes_with_other_settings_are_told_apart(tmp_path: Path) -> None:
    """Only by the settings that differ among probes of the same kind."""
    knn = {**GOOD, "probe": "knn", "settings": {"k": 20, "temperature": 0.07}}
    sgd = {**GOOD, "probe": "sgd", "settings": {"epochs": 28, "milestones": [0.3, 0.6], "ten_crop": False}}
    more = {**sgd, "settings": {"epochs": 28, "milestones": [0.5], "ten_crop": True}}
    run = fake_run(tmp_path / "rot", probes=[{**GOOD, "settings": {}}, knn, {**knn, "recalibrated": True}, sgd, more])
    cells = [dict(zip(COLUMNS, row.cells(), strict=True)) for row in rows(read_records([run]))]
    assert [cell["probed on"] for cell in cells] == [
        "cifar10 (ridge, 50,000 labels)",
        "cifar10 (knn, 50,000 labels)",
        "cifar10 (knn, 50,000 labels, recalibrated)",
        "cifar10 (sgd, 50,000 labels, milestones 0.3 0.6, not ten crop)",
        "cifar10 (sgd, 50,000 labels, milestones 0.5, ten crop)",
    ]


def test_digits_follow_the_number_of_test_images(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "rot", probes=[{**GOOD, "test": 300}])
    cells = dict(zip(COLUMNS, rows(read_records([run]))[0].cells(), strict=True))
    assert (cells["accuracy"], cells["gain"], cells["chance"]) == ("0.72 ± 0.00", "+0.16 (+0.15 to +0.17)", "0.10")


def test_terminal_table_equals_the_page_and_ignores_markup(tmp_path: Path) -> None:
    run = fake_run(tmp_path / "[red]rot[")
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(compare([str(run)]))
    text = console.export_text()
    for cell in rows(read_records([run]))[0].cells():
        assert cell in text
    console.file.close()


def test_gains_are_colored_by_their_interval(tmp_path: Path) -> None:
    same = [0.5] * 4
    probes = {"up": GOOD, "same": probe(same, same), "down": probe([0.4] * 4, same)}
    table = run_table(read_records([fake_run(tmp_path / name, probes=[found]) for name, found in probes.items()]))
    gains = list(table.columns[COLUMNS.index("gain")].cells)
    assert [str(gain.spans[0].style) for gain in gains] == ["green", "dim", "red"]  # type: ignore[union-attr]


def test_folders_without_a_run_are_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.yaml"):
        compare([tmp_path])


def test_further_baselines_are_told_once_for_all_runs_that_share_them(tmp_path: Path) -> None:
    def baselines(value: float) -> dict:
        row = {
            "name": "kmeans",
            "title": "k-means initialization",
            "layer": "layer2",
            "accuracy": value,
            "held_out": 0.5,
        }
        return {"baselines": [row, {**row, "name": "scattering", "title": "scattering", "layer": "order2"}]}

    runs = [
        fake_run(tmp_path / name, probes=[GOOD | baselines(value)], seed=number)
        for number, (name, value) in enumerate({"rot": 0.61, "jig": 0.61, "wide": 0.62}.items())
    ]
    runs.append(fake_run(tmp_path / "none", seed=3))
    expected = [
        "Baselines of rot, jig on cifar10: k-means initialization (layer2) 0.610; scattering (order2) 0.610.",
        "Baselines of wide on cifar10: k-means initialization (layer2) 0.620; scattering (order2) 0.620.",
    ]
    assert baseline_sentences(read_records(runs)) == expected
    out = Console(width=400, record=True, file=io.StringIO())
    out.print(compare(runs))
    text, page = out.export_text(), write_report(runs, tmp_path / "page.html").read_text()
    assert all(sentence in text and sentence in page for sentence in expected)
