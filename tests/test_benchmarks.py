"""Every benchmark runs at a tiny size and prints a table; both sides do the same work."""

import json
import math
import re
import time

import pytest
import torch
from benchmarks import bank, crops, gpu, igpt, memory, probes, processes, solvers, startup, steps, storage, views
from benchmarks.interleaved import Table, interleaved, markdown, rate, spread
from benchmarks.recipes import CPU, Job, Ours, Usual
from benchmarks.two_views import TEMPERATURE, contrastive
from torch import nn

JOB = Job("rotation", "convnet", size=16, views=8, images=16, workers=0, threads=None, seconds=0.0)
SECTION = re.compile(r"## .+ \(\d{4}-\d\d-\d\d\)\n\n    python -m benchmarks\.\w+ .+\n\n.+threads?, torch .+\.\n\n\|")


def run_benchmark(module, folder, capsys, *arguments: str) -> dict:
    """Run a benchmark in this process, check its Markdown section, and return its JSON record."""
    name = module.__name__.split(".")[1]
    module.main(["--quick", "--out", str(folder), *arguments])
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


def test_probes_print_and_save_a_table(tmp_path, capsys):
    layers, classifiers = run_benchmark(probes, tmp_path, capsys)["tables"]
    assert all(note.startswith("accuracy ") for note in (layers["notes"] | classifiers["notes"]).values())
    notes = layers["notes"]
    assert notes["ours, every layer at once"] == notes["one run per layer"], "features differ"


def test_solvers_reach_the_same_accuracy_as_scikit_learn(tmp_path, capsys):
    for table in run_benchmark(solvers, tmp_path, capsys)["tables"]:
        accuracies = [float(note.removeprefix("accuracy ")) for note in table["notes"].values()]
        assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02)


def test_views_run_without_loader_workers(tmp_path, capsys):
    (table,) = run_benchmark(views, tmp_path, capsys, "--workers", "0")["tables"]
    assert {"ours", "torchvision v2, 0 workers"} <= set(table["rounds"])


@pytest.fixture
def tiny(monkeypatch):
    """Small views, and the peak of the CPU is that of small matrices."""
    monkeypatch.setattr("selftaught.training.profile.SIDE", {"cpu": 64})
    monkeypatch.setattr(gpu, "SIZES", (16, 32))


def test_the_script_for_gpus_runs_on_a_cpu(tmp_path, capsys, tiny):
    out = tmp_path / "gpu.json"
    tasks = ["bigan", "synthetic"]  # two players, and dense targets
    assert gpu.main(["--device", "cpu", "--smoke", "--out", str(out), "--tasks", *tasks]) == 0
    record = json.loads(out.read_text())
    assert record["failures"] == []
    assert 0 <= record["rotnet"]["accuracy"] <= 1
    for name in tasks:
        assert record["tasks"][name]["32"]["difference"] == 0  # the same device, the same loss
        assert all(record["tasks"][name][precision]["share_of_peak"] > 0 for precision in ("32", "bf16"))
    assert "failed: none" in capsys.readouterr().out


def test_the_script_for_gpus_reports_failures(tmp_path, capsys, monkeypatch, tiny):
    monkeypatch.setattr(gpu, "speed", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "train", lambda *_: {})
    out = tmp_path / "gpu.json"
    assert gpu.main(["--device", "cpu", "--smoke", "--out", str(out), "--tasks", "rotation"]) == 1
    assert json.loads(out.read_text())["failures"] == ["rotation 32", "rotation bf16"]
    assert "rotation 32: ZeroDivisionError" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # WebDataset closes no file
def test_storage_compares_decoded_and_encoded_images(tmp_path, capsys):
    (table,) = run_benchmark(storage, tmp_path, capsys, "--no-memory", "--workers", "0")["tables"]
    assert {"ours, encoded, files", "ours, encoded, shards", "ours, decoded", "ImageFolder, 0 workers"} <= set(
        table["rounds"]
    )
    with storage.Peak() as peak:
        held = torch.ones(25_000_000)
        time.sleep(0.3)
    assert peak.most > held.nbytes / 1e6


def test_bank_compares_steps_with_and_without_a_bank(tmp_path, capsys):
    (table,) = run_benchmark(bank, tmp_path, capsys)["tables"]
    assert set(table["rounds"]) == {"with the bank", "without a bank"}


def test_igpt_prints_the_memory_saved_for_the_backward_pass(tmp_path, capsys):
    (table,) = run_benchmark(igpt, tmp_path, capsys)["tables"]
    assert all(re.fullmatch(r"saves [\d.,]+ MiB", note) for note in table["notes"].values())


def test_saved_bytes_counts_each_tensor_once_and_no_weights():
    one, other = torch.rand(10, requires_grad=True), torch.rand(10, requires_grad=True)
    assert igpt.saved_bytes(lambda: (one * other).sum(), []) == 80
    assert igpt.saved_bytes(lambda: (one * other).sum(), [one]) == 40
    assert igpt.saved_bytes(lambda: (one * other).sum() + (one * other).sum(), []) == 80


def test_only_the_other_side_writes_crops_to_disk(tmp_path, capsys):
    remarks = " ".join(run_benchmark(crops, tmp_path, capsys, "--workers", "0")["remarks"])
    assert int(re.search(r"the other side ([\d,]+) bytes", remarks)[1].replace(",", "")) > 100
    assert re.search("ours writes (0 bytes|not counted)", remarks)


def test_bytes_written_by_counts_written_bytes(tmp_path):
    def step() -> int:
        return (tmp_path / "written").write_bytes(bytes(100))

    if "not counted" in (written := crops.bytes_written_by(step)):
        pytest.skip("this system does not count written bytes")
    assert written == "300 bytes"


@pytest.mark.slow
@pytest.mark.parametrize("module", [steps, startup, memory, processes], ids=["steps", "startup", "memory", "processes"])
def test_benchmarks_with_child_processes_print_and_save_a_table(module, tmp_path, capsys):
    assert len(run_benchmark(module, tmp_path, capsys)["tables"]) >= 1


def test_interleaved_alternates_the_order_of_sides_after_a_warm_up_round():
    calls: list[str] = []

    def side(name: str):
        return lambda: calls.append(name) or float(len(calls))

    values = interleaved({"b": side("b"), "a": side("a")}, 2)
    assert "".join(calls) == "ab" + "ba" + "ab"
    assert {name: len(side) for name, side in values.items()} == {"b": 2, "a": 2}


def test_ratios_are_computed_per_round_for_rates_and_for_times():
    rates = Table("", "images/s", {"ours": [10.0, 30.0], "theirs": [5.0, 10.0]})
    assert rates.ratios("theirs") == [2.0, 3.0]
    times = Table("", "seconds", {"ours": [1.0, 2.0], "theirs": [5.0, 4.0]}, better="less")
    assert times.ratios("theirs") == [5.0, 2.0]
    assert "| theirs | 4.5 (4 to 5) | 3.5 (2 to 5) |" in markdown(times)
    assert spread([1234.0, 0.1234, 5.0]) == "5 (0.123 to 1,234)"


def test_rate_divides_items_by_seconds(monkeypatch):
    now = iter([0.0, 1.0, 2.0, 4.0])
    monkeypatch.setattr("benchmarks.interleaved.perf_counter", lambda: next(now))
    assert rate(lambda: 7, 0.0)() == 7 * 3 / 4.0


def test_contrastive_equals_equation_1_of_simclr():
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
def test_both_sides_make_the_same_update(task, monkeypatch):
    """Same weights, same views: same loss, and after the step the same weights."""
    monkeypatch.setattr("benchmarks.recipes.keep_freed_memory", lambda: None)  # it would affect all later tests
    monkeypatch.setattr("benchmarks.recipes.choose_precision", lambda precision, device: "32")
    job = Job(task, "convnet", JOB.size, JOB.views, JOB.images, JOB.workers, JOB.threads, JOB.seconds)
    ours, usual = Ours(job), Usual(job)
    (head,) = ours.trainer.heads.values()
    usual.head.load_state_dict(head.state_dict())
    views = ours.run.task.views(ours.run.source.batch(torch.arange(job.batch_size), CPU), torch.Generator())
    logged = ours.trainer.step(views, ours.run.optimization.warmup)  # at the peak learning rate, as the usual recipe
    usual.encoder.train()
    assert usual.step(views["images"]) == pytest.approx(logged["loss"].item(), abs=1e-5)
    for ours_after, usual_after in zip(ours.trainer.encoder.parameters(), usual.encoder.parameters(), strict=True):
        torch.testing.assert_close(ours_after, usual_after, atol=2e-3, rtol=0.1)


def test_one_layer_gives_the_features_of_the_complete_encoder():
    encoder = probes.ConvNet(size=16).eval()
    images = torch.rand(2, 3, 16, 16)
    for name, feature in encoder.features(encoder.preprocess(images)).items():
        one_layer = probes.OneLayer(encoder, name).eval()
        assert torch.equal(one_layer.features(one_layer.preprocess(images))[name], feature)


def test_rotation_views_are_the_four_quarter_turns():
    from benchmarks.recipes import RotationViews
    from PIL import Image

    views = RotationViews(8)(Image.effect_noise((10, 10), 50).convert("RGB"))
    for quarter_turns, view in enumerate(views):
        assert torch.equal(view, torch.rot90(views[0], quarter_turns, (1, 2)))
    assert isinstance(Usual(JOB).head, nn.Linear)
