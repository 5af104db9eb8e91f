"""What processes send in a step: counted in two processes, and computed for more."""

import json
import sys

import pytest
import torch
from benchmarks import collectives, communication
from benchmarks.collectives import Step, Traffic, count_steps, fitted
from benchmarks.communication import Cluster

import selftaught
from processes import fork
from selftaught.pretext import task_class

TASKS = ("simclr", "npid")
IMAGES, COUNT, SIZE = 2, 2, 16


@pytest.fixture(scope="module")
def steps() -> dict[str, Step]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collectives, "start", lambda words, count: fork(count, collectives.work, *json.loads(words[1])))
        return {step.task: step for step in count_steps(TASKS, "convnet", SIZE, IMAGES, COUNT)}


def part(step: Step, purpose: str, operation: str) -> Traffic:
    (found,) = [t for t in step.traffic if (t.purpose, t.operation) == (purpose, operation)]
    return found


def modules(name: str) -> tuple[selftaught.Encoder, torch.nn.Module]:
    encoder = selftaught.make_encoder("convnet", size=SIZE)
    return encoder, task_class(name)(size=SIZE).projection(encoder)


@pytest.mark.parametrize("name", TASKS)
def test_gradients_are_four_bytes_for_each_trainable_parameter(steps, name):
    parameters = sum(weight.numel() for module in modules(name) for weight in module.parameters())
    gradients = part(steps[name], "gradients", "all-reduce")
    assert (gradients.fixed, gradients.per_image) == (4 * parameters, 0)
    assert steps[name].parameters == parameters


@pytest.mark.parametrize("name", TASKS)
def test_batch_norm_sends_three_statistics_and_two_gradients(steps, name):
    norms = [m for module in modules(name) for m in module.modules() if hasattr(m, "running_mean")]
    channels = sum(norm.num_features for norm in norms)
    statistics, gradients = (part(steps[name], "batch norm", kind) for kind in ("all-gather", "all-reduce"))
    assert (statistics.calls, statistics.fixed) == (
        len(norms),
        4 * (2 * channels + len(norms)),
    )  # mean, variance, count
    assert (gradients.calls, gradients.fixed) == (len(norms), 4 * 2 * channels)
    assert statistics.per_image == gradients.per_image == 0


def test_a_bank_update_sends_an_embedding_and_an_index_per_image(steps):
    update = part(steps["npid"], "bank, queue", "all-gather")
    assert (update.fixed, update.per_image) == (0, 4 * 128 + 8)
    assert update.sent(4096, 64) == 63 * 64 * (4 * 128 + 8)
    assert steps["npid"].bank == 4 * 128
    assert steps["simclr"].bank == 0


def test_simclr_gathers_two_embeddings_per_image_and_reduces_their_gradients(steps):
    gathered, reduced = (part(steps["simclr"], "loss", kind) for kind in ("all-gather", "all-reduce"))
    assert (gathered.fixed, gathered.per_image) == (0, 2 * 4 * 128)
    assert (reduced.fixed, reduced.per_image) == (0, 2 * 4 * 128)
    assert gathered.contributed(4096, 64) == 64 * 1024  # of the own images
    assert reduced.contributed(4096, 64) == 4096 * 1024  # of all images


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports the bytes of a TCP connection")
@pytest.mark.parametrize("name", TASKS)
def test_the_kernel_sends_what_the_formulas_give(steps, name):
    step = steps[name]
    assert 1 <= step.tcp / step.sent(step.batch_size, COUNT) < 1.03  # headers of gloo's messages


@pytest.mark.parametrize("count", [2, 3, 8])
def test_the_formulas_are_those_of_a_ring(count):
    """Pass pieces around a ring until every process has what it must have, and count what the first one sends."""
    pieces = [
        {rank} for rank in range(count)
    ]  # all-gather: of each process, the pieces that it has; it passes on the last
    passed, moving = 0, list(range(count))
    while any(len(own) < count for own in pieces):
        moving = [moving[rank - 1] for rank in range(count)]
        for rank, piece in enumerate(moving):
            pieces[rank].add(piece)
        passed += 1
    size = 840
    assert Traffic("", "all-gather", 1, size, 0).sent(1, count) == passed * size
    # An all-reduce passes a `count`-th of the tensor at a time: once around to add up, once more to distribute.
    assert Traffic("", "all-reduce", 1, size, 0).sent(1, count) == pytest.approx(2 * passed * size / count)


def test_the_part_that_grows_with_the_batch_is_found():
    def counted(images: int) -> list[list[object]]:
        return [["loss", "all-gather", 2, 100 + 8 * images], ["loss", "all-reduce", 1, 50 + 3 * images * 4]]

    gathered, reduced = fitted(counted(5), counted(10), images=5, count=4)
    assert (gathered.fixed, gathered.per_image, reduced.fixed, reduced.per_image) == (100, 8, 50, 3)
    with pytest.raises(RuntimeError, match="give more --images"):
        list(fitted(counted(5), [["loss", "all-gather", 3, 180], ["loss", "all-reduce", 1, 170]], 5, 4))


def test_times_follow_from_bytes_bandwidth_and_latency():
    gradients, norm = Traffic("gradients", "all-reduce", 2, 8e6, 0), Traffic("batch norm", "all-gather", 10, 1e3, 0)
    step = Step("simclr", "net", 2, 8, [gradients, norm], 0, 3e9, 0, 0, None)
    cluster = Cluster(count=4, bandwidth=1e9, latency=1e-4, rate=1e12)
    assert cluster.network(step, 400) == pytest.approx((2e-4 + 1.5 * 8e6 / 1e9, 1e-3 + 3 * 1e3 / 1e9))
    assert cluster.compute(step, 400) == pytest.approx(100 * 3e9 / 1e12)
    waited = 1.003e-3  # gradients take 12.2 ms, less than the backward pass of 200 ms
    assert cluster.waiting(step, 400) == pytest.approx(waited / (0.3 + waited))
    assert cluster.waiting(step, 4) == pytest.approx((waited + 0.0122 - 0.002) / (0.003 + waited + 0.0122 - 0.002))
    images = cluster.binding(step)
    assert sum(cluster.network(step, 4 * images)) == pytest.approx(cluster.compute(step, 4 * images))
    assert Cluster(4, 1e9, 1e-4, 1e12, image_seconds=0.5).compute(step, 400) == 50


def test_tables_have_a_row_for_every_step_and_cluster(capsys, monkeypatch, tmp_path):
    counted = Step(
        "npid", "net", 2, 8, [Traffic("gradients", "all-reduce", 2, 8e6, 0)], 2_000_000, 3e9, 512, 1e6, 8.1e6
    )
    monkeypatch.setattr(communication, "count_steps", lambda *arguments: [counted])
    communication.main(["--encoders", "net@32", "--gpus", "8", "64", "--out", str(tmp_path / "out.md")])
    printed = capsys.readouterr().out
    assert "| npid | net | 8,000,000 | 8,000,000 | 8,100,000 | 1.0125 |" in printed
    assert "| npid | net | 8 | 512 | 14.0 | 0.00 | 2 | 15.4 |" in printed
    assert "| npid | net | 64 | 64 | 15.8 | 0.00 | 2 | 1.9 |" in printed
    assert "| npid | net | 656 | 657 |" in printed
    assert (tmp_path / "out.md").read_text() == printed


def test_an_encoder_without_a_size_is_refused(capsys):
    with pytest.raises(SystemExit):
        communication.main(["--encoders", "convnet"])
    assert "expects an encoder and a size, such as convnet@32, got 'convnet'" in capsys.readouterr().err


def test_an_unknown_collective_operation_is_not_overlooked():
    class Unknown:
        namespace, overloadpacket = "c10d", type("alltoall_", (), {})

    with pytest.raises(KeyError, match="alltoall_"):
        collectives.Counter().__torch_dispatch__(Unknown, ())
