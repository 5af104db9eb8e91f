import pytest
import torch

from selftaught.errors import UserError
from selftaught.pretext.rotation import Rotation
from selftaught.training import plan, trial
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import Budget, choose_device, choose_precision, make_plan
from toys import ToyEncoder, ToySource


def pretraining() -> Pretraining:
    source, encoder = ToySource(40), ToyEncoder()
    task = Rotation(size=16)
    return Pretraining(task, encoder, task.heads(encoder, source), source, Optimization(), 1, 8, 0)


@pytest.mark.parametrize("given", [{}, {"minutes": 1, "steps": 3}])
def test_a_budget_is_exactly_one(given):
    with pytest.raises(UserError, match="exactly one of --minutes, --epochs and --steps, got"):
        Budget(**given)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_budget_is_not_empty_nor_endless(value):
    with pytest.raises(UserError, match="--epochs must be above 0 and at most 1,000,000, got"):
        Budget(epochs=value)


def test_minutes_become_the_steps_that_were_measured(monkeypatch):
    clock = iter(range(100_000))
    monkeypatch.setattr(plan, "monotonic", lambda: next(clock) * 0.25)  # a quarter of a second between two looks
    monkeypatch.setattr(trial, "monotonic", lambda: 0.0)
    found = make_plan(pretraining(), Budget(minutes=2), precision="32")
    assert found.seconds_per_step == pytest.approx(0.25, rel=1e-3)  # and its share of what comes before an epoch
    assert found.steps == 480


def test_minutes_pay_for_what_comes_before_each_epoch(monkeypatch):
    clock, before = iter(range(100_000)), iter((3.0, 33.0, 33.0, 43.0))  # thirty seconds, then ten
    monkeypatch.setattr(plan, "monotonic", lambda: next(clock) * 0.25)
    monkeypatch.setattr(trial, "monotonic", lambda: next(before))
    found = make_plan(pretraining(), Budget(minutes=2), precision="32")
    assert found.seconds_per_step == 0.25 + 10 / 5  # forty images are five steps of eight
    assert found.steps == round((120 - 20) / 2.25)  # what only the first call took is paid once


def test_epochs_are_whole_batches_and_steps_are_steps():
    assert make_plan(pretraining(), Budget(epochs=3), precision="32").steps == 15
    assert make_plan(pretraining(), Budget(steps=7), precision="32").steps == 7


def test_measuring_leaves_no_trace():
    run = pretraining()
    before = {name: weight.clone() for name, weight in run.encoder.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    make_plan(run, Budget(minutes=0.001), precision="32")
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(weight, before[name]) for name, weight in run.encoder.state_dict().items())
    assert all(weight.grad is None for weight in run.encoder.parameters())


def test_precision_is_the_faster_one(monkeypatch):
    for faster, expected in ((True, "bf16"), (False, "32")):
        monkeypatch.setattr(plan, "_bf16_is_faster", lambda faster=faster: faster)
        assert choose_precision("auto", torch.device("cpu")) == expected
        assert choose_precision("bf16", torch.device("cpu")) == "bf16"
        assert choose_precision("32", torch.device("cpu")) == "32"


def compared(monkeypatch, bf16: float, full: float, load=lambda now: 1.0) -> tuple[bool, int]:
    """Which is called faster, and how often bf16 ran, where the machine is `load(time)` times slower than alone."""
    now, runs = 0.0, 0

    def work(seconds: float, counted: bool):
        def run():
            nonlocal now, runs
            now, runs = now + seconds * load(now), runs + counted

        return run

    monkeypatch.setattr(plan, "monotonic", lambda: now)
    return plan._clearly_faster(work(bf16, True), work(full, False)), runs


@pytest.mark.parametrize("load", [lambda now: 1.0, lambda now: 6.0 if now < 4 else 1.0, lambda now: 1 + 5 * (now > 8)])
def test_a_load_that_comes_or_goes_does_not_decide_the_precision(monkeypatch, load):
    assert compared(monkeypatch, 0.3, 1.0, load)[0]
    assert not compared(monkeypatch, 1.0, 0.3, load)[0]


def test_small_differences_leave_float32(monkeypatch):
    assert not compared(monkeypatch, 0.9, 1.0)[0]
    assert compared(monkeypatch, 0.7, 1.0)[0]


def test_where_bf16_is_far_slower_it_is_not_measured_for_long(monkeypatch):
    faster, runs = compared(monkeypatch, 50.0, 1.0)
    assert not faster
    assert runs <= 4


def test_a_device_that_is_not_there_is_one_sentence():
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("tpu9", "cuda:99", ""):
        with pytest.raises(UserError, match="--device expects a device of this machine"):
            choose_device(name)
