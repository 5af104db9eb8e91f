"""Muon: compared with singular value decompositions, with formulas written out and with torch's own for matrices."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from selftaught.contracts import ParameterGroup
from selftaught.encoders import make_encoder
from selftaught.training.muon import COEFFICIENTS, hidden_matrices, orthogonalize
from selftaught.training.optimizer import Optimization
from synchronization import Found, Methods, Operations

RATE, DECAY, BETAS = 0.01, 0.1, (0.8, 0.9)
MUON = partial(Optimization, "muon", learning_rate=RATE, momentum=BETAS[0], beta2=BETAS[1], weight_decay=DECAY)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def optimizer_of(*modules: nn.Module) -> torch.optim.Optimizer:
    return MUON().build([ParameterGroup([p for module in modules for p in module.parameters()])])


@pytest.mark.parametrize("shape", [(8, 8), (5, 40), (40, 5), (16, 17)])
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_singular_values_become_nearly_one_and_singular_vectors_stay(shape, scale):
    matrix = draw(*shape) * scale
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    inside = left.T @ orthogonalize(matrix).double() @ right.T
    assert inside.diagonal().min() > (0.6 if values.min() > 0.02 * values.norm() else 0.1)
    assert inside.diagonal().max() < 1.25
    assert (inside - inside.diagonal().diag()).abs().max() < 1e-3


def test_every_singular_value_follows_the_polynomial():
    """Jordan et al.: five times a s + b s^3 + c s^5, from the value divided by the Frobenius norm."""
    matrix = draw(6, 9)
    values = torch.linalg.svdvals(matrix.double())
    expected = values / matrix.double().norm()
    a, b, c = COEFFICIENTS
    for _ in range(5):
        expected = a * expected + b * expected**3 + c * expected**5
    found = torch.linalg.svdvals(orthogonalize(matrix).double())
    torch.testing.assert_close(found, expected.sort(descending=True).values, rtol=1e-3, atol=1e-4)


def test_a_gradient_of_zero_moves_nothing():
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_filters_by_the_formula_however_they_lie_in_memory():
    """Momentum and Nesterov as averages, an update of root mean square 0.2 for orthogonal rows, decoupled decay."""
    first, hidden, last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, bias=False), nn.Linear(6, 2)
    hidden.to(memory_format=torch.channels_last)
    optimizer, mean = optimizer_of(first, hidden, last), torch.zeros(6, 36, dtype=torch.float64)
    for step in range(3):
        expected = hidden.weight.detach().double().flatten(1)
        gradient = draw(6, 4, 3, 3, seed=step).to(memory_format=torch.channels_last)
        hidden.weight.grad = gradient
        optimizer.step()
        mean = BETAS[0] * mean + (1 - BETAS[0]) * gradient.double().flatten(1)
        update = orthogonalize(BETAS[0] * mean + (1 - BETAS[0]) * gradient.double().flatten(1))
        expected = (1 - RATE * DECAY) * expected - RATE * 0.2 * 36**0.5 * update
        torch.testing.assert_close(hidden.weight.double().flatten(1), expected, rtol=0, atol=1e-5)
        assert abs(float(update.square().mean().sqrt()) * 36**0.5 - 1) < 0.25


def test_matrices_move_as_in_torch():
    """torch.optim.Muon multiplies in bfloat16, so updates agree to about a percent of their size."""
    modules = [nn.Linear(8, 8), nn.Linear(8, 12, bias=False), nn.Linear(12, 2)]
    own, weight = modules[1].weight, nn.Parameter(modules[1].weight.detach().clone())
    optimizer = optimizer_of(*modules)
    reference = torch.optim.Muon([weight], RATE, weight_decay=DECAY, momentum=BETAS[0], adjust_lr_fn="match_rms_adamw")
    before = own.detach().clone()
    for step in range(4):
        own.grad, weight.grad = draw(12, 8, seed=step), draw(12, 8, seed=step)
        optimizer.step(), reference.step()
    assert (own - weight).norm() < 0.05 * (own - before).norm()


def test_everything_else_moves_as_with_adamw():
    """First and last layers, norms and biases; also those that got no gradient yet."""
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1)) for _ in "ab"]
    nets[1].load_state_dict(nets[0].state_dict())
    groups = [[ParameterGroup(list(net.parameters()))] for net in nets]
    adamw = Optimization("adamw", RATE, momentum=BETAS[0], beta2=BETAS[1], weight_decay=DECAY)
    pair = MUON().build(groups[0]), adamw.build(groups[1])
    for step in range(3):
        for net, optimizer in zip(nets, pair, strict=True):
            for number, weight in enumerate(net.parameters()):
                weight.grad = None if step == 0 and number == 0 else draw(*weight.shape, seed=10 * step + number)
            optimizer.step()
    for (name, own), other in zip(nets[0].named_parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(own, other) == (name != "2.weight"), name


@pytest.mark.parametrize(
    ("encoder", "first"),
    [("convnet", "blocks.layer1.0.weight"), ("nin", "blocks.block1.0.weight"), ("vit", "embed.weight")],
)
def test_the_first_layer_of_an_encoder_is_not_hidden(encoder, first):
    made = make_encoder(encoder, size=32)
    names = {id(weight): name for name, weight in made.named_parameters()}
    hidden = [names[id(weight)] for weight in hidden_matrices(made.parameters())]
    assert hidden
    assert first in names.values()
    assert first not in hidden


def test_layers_keep_the_factors_of_their_groups():
    layers = [nn.Linear(3, 3) for _ in range(4)]
    groups = [
        ParameterGroup(list(layer.parameters()), scale) for layer, scale in zip(layers, (1, 2, 3, 4), strict=True)
    ]
    orthogonal = {
        id(weight): group["lr_scale"]
        for group in MUON().build(groups).param_groups
        for weight in group["params"]
        if group["orthogonal"]
    }
    assert orthogonal == {id(layers[1].weight): 2, id(layers[2].weight): 3}


def test_a_loaded_state_continues_exactly():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1)) for _ in "ab"]
    pair = [optimizer_of(net) for net in nets]

    def step(net: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        for weight in net.parameters():
            weight.grad = draw(*weight.shape, seed=number)
        optimizer.step()

    step(nets[0], pair[0], 0)
    nets[1].load_state_dict(nets[0].state_dict())
    pair[1].load_state_dict(deepcopy(pair[0].state_dict()))
    for net, optimizer in zip(nets, pair, strict=True):
        step(net, optimizer, 1)
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_a_step_does_not_wait_for_the_device():
    layers = [nn.Linear(3, 3) for _ in range(3)]
    optimizer, found = optimizer_of(*layers), Found()
    for number in range(2):
        for layer in layers:
            layer.weight.grad = draw(3, 3, seed=number)
        with Methods(found), Operations(found):
            optimizer.step()
    assert found == []
