"""The k-NN accuracy during training is that of the probe's definition, on training images only, and changes nothing."""

import math
import shutil

import pytest
import torch

import selftaught
from selftaught.errors import UserError
from selftaught.evaluation.knn_monitor import KNNMonitor
from selftaught.pretext.rotation import Rotation
from selftaught.runs.log import read_log
from selftaught.training.interruption import Stop
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from test_run import TINY, make_images
from toys import ToyEncoder, ToySource

CPU = torch.device("cpu")


def watched(steps: int = 1000, batch_size: int = 12) -> Pretraining:
    source, task = ToySource(30), Rotation(size=16)
    encoder = ToyEncoder()
    return Pretraining(task, encoder, task.heads(encoder, source), source, Optimization(), steps, batch_size, 0)


def test_accuracies_are_those_of_brute_force():
    run, source = watched(), ToySource(90, seed=1)
    monitor = KNNMonitor(source, run, 1, CPU)
    queries, bank = monitor.order[:30], monitor.order[30:]
    assert sorted(monitor.order.tolist()) == list(range(90))
    found = monitor.measure(run.encoder)
    with torch.no_grad():
        maps = run.encoder.features(run.encoder.preprocess(source.images))
    for name, feature in maps.items():
        x = feature.mean((2, 3)).double()
        x = x / x.norm(dim=1, keepdim=True)
        right = 0
        for query in queries.tolist():
            nearest = sorted(bank.tolist(), key=lambda i: -float(x[i] @ x[query]))[:20]
            votes = [0.0, 0.0]
            for i in nearest:
                votes[int(source.labels[i])] += math.exp(float(x[i] @ x[query]) / 0.07)
            right += votes.index(max(votes)) == source.labels[query]
        assert found[name] == pytest.approx(right / 30)
    labels = source.labels[queries].tolist()
    assert monitor.chance == {"knn_accuracy": pytest.approx(max(labels.count(0), labels.count(1)) / 30)}


def test_it_is_measured_first_last_and_at_bounded_cost():
    run = watched()
    monitor = KNNMonitor(ToySource(90), run, 2, CPU)
    steps = [step for step in range(2, 1001, 2) if monitor(step, run.encoder, run.heads, {}, {})]
    # 90 images of 12 x 3 forward passes a step, at most 5 % of them: every 50 steps
    assert steps == [2, *range(50, 1001, 50)]
    assert set(monitor(2, run.encoder, run.heads, {}, {})) == {"knn_accuracy", "knn_last_layer"}


def test_running_statistics_and_modes_stay():
    run = watched()
    norm = torch.nn.BatchNorm2d(8)
    run.encoder.first = torch.nn.Sequential(run.encoder.first, norm)
    run.encoder.train()
    before = {name: value.clone() for name, value in run.encoder.state_dict().items()}
    KNNMonitor(ToySource(90), run, 1, CPU).measure(run.encoder)
    assert all(torch.equal(value, before[name]) for name, value in run.encoder.state_dict().items())
    assert all(module.training for module in run.encoder.modules())


class StopAt(Stop):
    """Requests a stop after some number of questions."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    @property
    def requested(self) -> bool:
        self.count -= 1
        return self.count < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_images(tmp_path_factory.mktemp("a") / "images")


def values(run) -> list[dict[str, float]]:
    clock = ("seconds", "images_per_second")
    return [{name: value for name, value in line.items() if name not in clock} for line in read_log(run / "log.jsonl")]


def test_a_monitored_run_gives_the_same_weights_and_resumes_exactly(images, tmp_path):
    settings = {**TINY, "steps": 6, "width": 8}
    other = make_images(tmp_path / "other", count=8, seed=1)
    shutil.rmtree(other / "test")
    whole = selftaught.pretrain(images, out=tmp_path / "whole", monitor=str(other), **settings)
    alone = selftaught.pretrain(images, out=tmp_path / "alone", **settings)
    for one, two in zip(whole.encoder.state_dict().values(), alone.encoder.state_dict().values(), strict=True):
        assert torch.equal(one, two)
    parts = selftaught.pretrain(images, out=tmp_path / "parts", monitor=str(other), stop=StopAt(3), **settings)
    assert not parts.finished
    assert selftaught.pretrain(out=tmp_path / "parts", resume=True).finished
    assert values(tmp_path / "parts") == values(tmp_path / "whole")
    assert sum("knn_accuracy" in line for line in values(tmp_path / "whole")) >= 2
    with pytest.raises(UserError, match="cannot change --monitor when resuming"):
        selftaught.pretrain(out=tmp_path / "parts", resume=True, monitor=str(images))


def test_test_images_are_not_used(images, tmp_path):
    other = make_images(tmp_path / "other", count=4, seed=2)
    for damaged in (other / "test").rglob("*.png"):
        damaged.write_bytes(b"not an image")
    run = selftaught.pretrain(images, out=tmp_path / "run", monitor=str(other), width=8, **TINY)
    assert "knn_accuracy" in values(run.path)[-1]


def test_a_source_without_labels_or_that_does_not_exist_leaves_no_run(images, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(images / "train" / "dark", plain)
    with pytest.raises(UserError, match=r"--monitor needs images of at least 2 classes, but .*plain has no labels"):
        selftaught.pretrain(images, out=tmp_path / "run", monitor=str(plain), **TINY)
    with pytest.raises(UserError, match="cannot use --monitor: no such file or folder"):
        selftaught.pretrain(images, out=tmp_path / "run", monitor=str(tmp_path / "nothing"), **TINY)
    assert not (tmp_path / "run").exists()
