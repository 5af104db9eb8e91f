"""Checkpoints, randomness, optimizer, log, folder: the small parts the loop stands on."""

import io
import json

import pytest
import torch
from rich.console import Console
from torch import nn

from selftaught.contracts import ParameterGroup
from selftaught.errors import UserError
from selftaught.pretext.bigan import BiGAN
from selftaught.pretext.inpainting import Inpainting
from selftaught.runs.atomic import write_text
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.folder import RunFolder
from selftaught.training.log import Log
from selftaught.training.optimizer import Optimization, reset_state, set_rate
from selftaught.training.randomness import derive_seed, epoch_indices


def test_a_checkpoint_cut_short_falls_back_on_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    checkpoints.save({"step": 1, "weight": torch.arange(1000)})
    checkpoints.save({"step": 2, "weight": torch.arange(1000)})
    assert checkpoints.load()["step"] == 2
    whole = checkpoints.last.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        checkpoints.last.write_bytes(whole[:length])
        assert checkpoints.load()["step"] == 1
    checkpoints.previous.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="2 damaged"):
        checkpoints.load()


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("boom",))

    checkpoints = Checkpoints(tmp_path)
    torch.save({"step": Bomb()}, checkpoints.last)
    with pytest.raises(UserError, match="damaged"):
        checkpoints.load()


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"step": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoints.save({"step": 2})
    monkeypatch.undo()
    assert checkpoints.load() == {"step": 1}
    assert not list(tmp_path.glob("*.part"))


def test_an_epoch_shows_every_image_once_and_another_order_next_time():
    first, again, second = epoch_indices(0, 0, 100), epoch_indices(0, 0, 100), epoch_indices(0, 1, 100)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert first.sort().values.tolist() == list(range(100))


def test_an_epoch_of_another_length_is_a_part_of_a_pass_or_passes_one_after_another():
    assert torch.equal(epoch_indices(0, 0, 100, draws=30), epoch_indices(0, 0, 100)[:30])
    passes = epoch_indices(0, 0, 100, draws=250)
    assert torch.equal(passes[:100], epoch_indices(0, 0, 100))
    assert passes[100:200].sort().values.tolist() == list(range(100))
    assert len(passes[200:].unique()) == 50
    assert len(epoch_indices(0, 0, 3, torch.tensor([1.0, 2.0, 3.0]), draws=7)) == 7


def test_weights_decide_how_often_an_image_is_drawn():
    drawn = epoch_indices(0, 0, 40_000, torch.tensor([1.0, 0.0, 3.0]).repeat(40_000 // 3 + 1)[:40_000]) % 3
    counts = drawn.bincount(minlength=3).float() / 40_000
    assert counts[1] == 0
    assert abs(counts[2] - 0.75) < 4 * (0.75 * 0.25 / 40_000) ** 0.5


def test_derived_seeds_differ_by_purpose_and_number():
    seeds = {derive_seed(s, what, n) for s in range(5) for what in ("views", "step", "order") for n in range(50)}
    assert len(seeds) == 5 * 3 * 50
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_schedules_by_their_formulas():
    cosine = Optimization(learning_rate=2.0, warmup=0.1)
    assert cosine.rate(0.0) == 0.0
    assert cosine.rate(0.05) == pytest.approx(1.0)
    assert cosine.rate(0.1) == pytest.approx(2.0)
    assert cosine.rate(0.55) == pytest.approx(1.0)
    assert cosine.rate(1.0) == pytest.approx(0.0)
    step = Optimization(learning_rate=1.0, warmup=0, schedule="step", milestones=(0.3, 0.6), gamma=0.2)
    assert [step.rate(t) for t in (0, 0.29, 0.3, 0.59, 0.6)] == pytest.approx([1, 1, 0.2, 0.2, 0.04])
    assert Optimization(schedule="linear", warmup=0.0, learning_rate=1.0).rate(0.25) == pytest.approx(0.75)


@pytest.mark.parametrize("kind", [BiGAN, Inpainting])
def test_a_learning_rate_factor_of_zero_is_refused(kind):
    with pytest.raises(UserError, match="--critic-lr-scale must be above 0 and at most 1,000, got 0"):
        kind(critic_lr_scale=0.0)


def test_every_parameter_group_has_its_own_factor_on_the_learning_rate():
    modules = {name: nn.Linear(2, 2) for name in ("encoder", "critic", "generator")}
    scales = {"encoder": 1.0, "critic": 2.0, "generator": 0.5}
    groups = [ParameterGroup(list(modules[name].parameters()), scale) for name, scale in scales.items()]
    optimizer = Optimization().build(groups)
    set_rate(optimizer, 0.1)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    found = {name: {rates[id(p)] for p in module.parameters()} for name, module in modules.items()}
    assert found == {"encoder": {0.1}, "critic": {0.2}, "generator": {0.05}}


def test_norms_and_biases_do_not_decay():
    layer = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = Optimization("sgd", learning_rate=0.1, weight_decay=0.5, momentum=0.0).build(
        [ParameterGroup(list(layer.parameters()))]
    )
    for weight in layer.parameters():
        weight.grad = torch.zeros_like(weight)
        nn.init.ones_(weight)
    optimizer.step()
    assert torch.allclose(layer[0].weight, torch.full((3, 3), 0.95))
    assert all(torch.equal(w, torch.ones(3)) for w in (layer[0].bias, layer[1].weight, layer[1].bias))


def test_adamw_by_its_formula_however_weights_lie_in_memory():
    """Loshchilov & Hutter 2019, algorithm 2: a fused step must not pair weights with the gradients of others."""
    g, rate, decay, (beta1, beta2) = torch.Generator().manual_seed(0), 0.1, 0.05, (0.9, 0.95)
    convolution = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    optimizer = Optimization(learning_rate=rate, weight_decay=decay).build(
        [ParameterGroup(list(convolution.parameters()))]
    )
    assert [group["fused"] for group in optimizer.param_groups] == [True, True]
    expected = convolution.weight.detach().double()
    first, second = torch.zeros_like(expected), torch.zeros_like(expected)
    for step in range(1, 4):
        images, wanted = torch.rand(2, 3, 5, 5, generator=g), torch.rand(2, 4, 3, 3, generator=g)
        optimizer.zero_grad()
        (convolution(images) - wanted).square().sum().backward()
        slope = convolution.weight.grad.double()
        optimizer.step()
        first, second = beta1 * first + (1 - beta1) * slope, beta2 * second + (1 - beta2) * slope**2
        moved = first / (1 - beta1**step) / ((second / (1 - beta2**step)).sqrt() + 1e-8)
        expected = expected - rate * (moved + decay * expected)
        assert torch.allclose(convolution.weight.double(), expected, atol=1e-5)
        expected = convolution.weight.detach().double()


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_a_module_whose_state_is_forgotten_trains_like_a_new_one_and_the_others_go_on(name):
    def trained(steps: list[bool]) -> list[torch.Tensor]:
        """Weights of two layers after some steps; True forgets the first layer's state before the step."""
        torch.manual_seed(0)
        one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        optimizer = Optimization(name, 0.1, weight_decay=0.0).build(
            [ParameterGroup([*one.parameters(), *other.parameters()])]
        )
        set_rate(optimizer, 0.1)
        before = one.weight
        for forgets in steps:
            if forgets:
                reset_state(optimizer, one)
            before = one.weight.detach().clone()
            optimizer.zero_grad()
            (one(torch.ones(1, 2)) + other(torch.ones(1, 2))).sum().backward()
            optimizer.step()
        return [one.weight.detach() - before, other.weight.detach()]

    first_step, _ = trained([False])
    anew, others = trained([False, False, True])
    torch.testing.assert_close(anew, first_step)  # the gradient of a sum is the same in every step
    torch.testing.assert_close(others, trained([False, False, False])[1])


def test_a_log_forgets_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps({"step": s, "seconds": 10.0 * s}) + "\n" for s in (1, 2, 3)) + '{"step": 4, "se')
    log = Log(path, 5, 8, {}, 1, Console(file=io.StringIO()))
    log.begin(2)
    log.write(3, {"loss": torch.tensor(0.5)}, 0.1)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[2]["loss"] == 0.5
    assert 20 <= lines[2]["seconds"] < 21


def test_a_run_folder_is_never_taken_from_another_run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.claim()
    folder.claim()  # still empty
    folder.write_config({"task": "rotation"})
    with pytest.raises(UserError, match="contains another run"):
        folder.claim()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="contains other files"):
        RunFolder(tmp_path / "mine").claim()
    write_text(tmp_path / "file", "x")
    with pytest.raises(UserError, match="is not writable"):
        RunFolder(tmp_path / "file" / "run").claim()


def test_one_process_at_a_time(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(UserError, match="another process is training"), RunFolder(tmp_path).locked():
        pass
