"""Every benchmark runs at a tiny size and prints a table; what both sides are said to share, they share."""

import json
import math
import re

import pytest
import torch
from benchmarks import bank, crops, igpt, memory, probes, startup, steps, views
from benchmarks.interleaved import Table, interleaved, markdown, rate, spread
from benchmarks.recipes import CPU, Job, Ours, Usual
from benchmarks.two_views import TEMPERATURE, contrastive
from torch import nn

JOB = Job("rotation", "convnet", size=16, views=8, images=16, workers=0, threads=None, seconds=0.0)
SECTION = re.compile(r"## .+ \(\d{4}-\d\d-\d\d\)\n\n    python -m benchmarks\.\w+ .+\n\n.+threads?, torch .+\.\n\n\|")


def kept(module, folder, capsys, *words: str) -> dict:
    """Run a benchmark in this process; its section must be well formed, and its record is returned."""
    name = module.__name__.split(".")[1]
    module.main(["--quick", "--out", str(folder), *words])
    printed = capsys.readouterr().out
    assert SECTION.match(printed)
    assert printed.rstrip("\n") == (folder / f"{name}.md").read_text().rstrip("\n")
    record = json.loads((folder / f"{name}.json").read_text())
    for table in record["tables"]:
        rows = [
            line for line in printed.splitlines() if line.startswith(tuple(f"| {side} |" for side in table["rounds"]))
        ]
        assert len({row.count("|") for row in rows}) == 1
        assert len(rows) >= len(table["rounds"])
        for side, values in table["rounds"].items():
            assert all(value > 0 for value in values)
            assert side == table["reference"] or len(table["ratios"][side]) == len(values)
    return record


def test_probes_print_a_table_and_keep_it(tmp_path, capsys):
    layers, classifiers = kept(probes, tmp_path, capsys)["tables"]
    assert all(note.startswith("accuracy ") for note in (layers["notes"] | classifiers["notes"]).values())
    same = layers["notes"]
    assert same["ours, every layer at once"] == same["one run per layer"], "the same features were read"


def test_views_compare_with_torchvision_without_workers(tmp_path, capsys):
    (table,) = kept(views, tmp_path, capsys, "--workers", "0")["tables"]
    assert {"ours", "torchvision v2, 0 workers"} <= set(table["rounds"])


def test_the_bank_is_held_against_the_same_step_without_one(tmp_path, capsys):
    (table,) = kept(bank, tmp_path, capsys)["tables"]
    assert set(table["rounds"]) == {"with the bank", "without a bank"}


def test_igpt_prints_rates_and_what_is_kept_for_the_way_back(tmp_path, capsys):
    (table,) = kept(igpt, tmp_path, capsys)["tables"]
    assert all(re.fullmatch(r"keeps [\d.,]+ MiB", note) for note in table["notes"].values())


def test_what_autograd_keeps_is_counted_once_and_without_weights():
    one, other = torch.rand(10, requires_grad=True), torch.rand(10, requires_grad=True)
    assert igpt.kept(lambda: (one * other).sum(), []) == 80
    assert igpt.kept(lambda: (one * other).sum(), [one]) == 40
    assert igpt.kept(lambda: (one * other).sum() + (one * other).sum(), []) == 80


def test_crops_are_written_by_the_other_side_and_not_by_ours(tmp_path, capsys):
    remarks = " ".join(kept(crops, tmp_path, capsys, "--workers", "0")["remarks"])
    assert int(re.search(r"the other ([\d,]+) bytes", remarks)[1].replace(",", "")) > 100
    assert re.search("written by ours (0 bytes|not counted)", remarks)


def test_what_a_step_writes_is_counted(tmp_path):
    def step() -> int:
        return (tmp_path / "written").write_bytes(bytes(100))

    if "not counted" in (found := crops.written_while(step)):
        pytest.skip("this system does not count written bytes")
    assert found == "300 bytes"


@pytest.mark.slow
@pytest.mark.parametrize("module", [steps, startup, memory], ids=["steps", "startup", "memory"])
def test_a_benchmark_of_many_processes_prints_a_table_and_keeps_it(module, tmp_path, capsys):
    assert len(kept(module, tmp_path, capsys)["tables"]) >= 1


def test_sides_take_turns_forwards_and_backwards_after_a_round_for_nothing():
    calls: list[str] = []

    def side(name: str):
        return lambda: calls.append(name) or float(len(calls))

    found = interleaved({"b": side("b"), "a": side("a")}, 2)
    assert "".join(calls) == "ab" + "ba" + "ab"
    assert {name: len(values) for name, values in found.items()} == {"b": 2, "a": 2}


def test_ratios_are_taken_round_by_round_and_say_how_much_faster_the_reference_is():
    rates = Table("", "images/s", {"ours": [10.0, 30.0], "theirs": [5.0, 10.0]})
    assert rates.ratios("theirs") == [2.0, 3.0]
    times = Table("", "seconds", {"ours": [1.0, 2.0], "theirs": [5.0, 4.0]}, better="less")
    assert times.ratios("theirs") == [5.0, 2.0]
    assert "| theirs | 4.5 (4 to 5) | 3.5 (2 to 5) |" in markdown(times)
    assert spread([1234.0, 0.1234, 5.0]) == "5 (0.123 to 1,234)"


def test_a_rate_is_things_over_seconds(monkeypatch):
    now = iter([0.0, 1.0, 2.0, 4.0])
    monkeypatch.setattr("benchmarks.interleaved.perf_counter", lambda: next(now))
    assert rate(lambda: 7, 0.0)() == 7 * 3 / 4.0


def test_contrastive_is_equation_1_of_simclr():
    rows = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()

    def similarity(one: list[float], other: list[float]) -> float:
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return math.exp(dot / math.hypot(*one) / math.hypot(*other) / TEMPERATURE)

    total = 0.0
    for place, row in enumerate(rows):
        pair = rows[place + 1 if place % 2 == 0 else place - 1]
        others = sum(similarity(row, other) for k, other in enumerate(rows) if k != place)
        total -= math.log(similarity(row, pair) / others)
    assert contrastive(torch.tensor(rows, dtype=torch.float64)).item() == pytest.approx(total / 6)


@pytest.mark.parametrize("task", ["rotation", "two views"])
def test_both_sides_take_the_same_step(task, monkeypatch):
    """Same weights, same views: same loss, and after the step the same weights."""
    monkeypatch.setattr("benchmarks.recipes.keep_freed_memory", lambda: None)  # it would stay for all tests
    monkeypatch.setattr("benchmarks.recipes.choose_precision", lambda precision, device: "32")
    job = Job(task, "convnet", JOB.size, JOB.views, JOB.images, JOB.workers, JOB.threads, JOB.seconds)
    ours, usual = Ours(job), Usual(job)
    (head,) = ours.trainer.heads.values()
    usual.head.load_state_dict(head.state_dict())
    views = ours.run.task.views(ours.run.source.batch(torch.arange(job.batch_size), CPU), torch.Generator())
    logged = ours.trainer.step(views, ours.run.optimization.warmup)  # at the peak of the schedule, as the usual
    usual.encoder.train()
    assert usual.step(views["images"]) == pytest.approx(logged["loss"].item(), abs=1e-5)
    for mine, theirs in zip(ours.trainer.encoder.parameters(), usual.encoder.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=0.1)


def test_one_layer_is_the_layer_of_the_whole():
    whole = probes.ConvNet(size=16).eval()
    images = torch.rand(2, 3, 16, 16)
    for name, feature in whole.features(whole.preprocess(images)).items():
        alone = probes.OneLayer(whole, name).eval()
        assert torch.equal(alone.features(alone.preprocess(images))[name], feature)


def test_rotated_views_of_the_usual_recipe_are_turned_as_they_are_asked():
    from benchmarks.recipes import RotationViews
    from PIL import Image

    turned = RotationViews(8)(Image.effect_noise((10, 10), 50).convert("RGB"))
    for turns, view in enumerate(turned):
        assert torch.equal(view, torch.rot90(turned[0], turns, (1, 2)))
    assert isinstance(Usual(JOB).head, nn.Linear)
