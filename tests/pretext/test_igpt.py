import math
from itertools import product

import pytest
import torch

from selftaught.augment.warp import identity
from selftaught.cli import main
from selftaught.encoders.gpt import GPT
from selftaught.errors import UserError
from selftaught.pretext.igpt import IGPT
from toys import ToySource

CPU = torch.device("cpu")
SHARES = torch.tensor([0.5, 0.2, 0.2, 0.1])


def made(task: IGPT, **options) -> tuple:
    torch.manual_seed(0)
    encoder = GPT(
        **{"size": task.size, "depth": 2, "width": 32, "heads": 2, "colors": 4} | options, **task.encoder_options()
    )
    heads = task.heads(encoder, ToySource())
    return encoder, heads


def markov(count: int, generator: torch.Generator) -> torch.Tensor:
    """(count, 16) tokens: the first by `SHARES`, every later one the one before it plus a draw by `SHARES`, mod 4."""
    draws = torch.multinomial(SHARES, 16 * count, replacement=True, generator=generator).view(count, 16)
    return draws.cumsum(1) % 4


def learned(task: IGPT, steps: int) -> tuple[GPT, torch.nn.ModuleDict, float]:
    """Trained on fresh pictures of the chain, and its mean loss on others."""
    encoder, heads = made(task)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=4e-3)
    for _ in range(steps):
        loss = task.loss(encoder, heads, chain_views(encoder, task, 64, generator))[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return encoder, heads, task.loss(encoder, heads, chain_views(encoder, task, 2000, generator))[0].item()


def chain_views(encoder: GPT, task: IGPT, count: int, generator: torch.Generator) -> dict:
    views = {"images": encoder.preprocess.pictures(markov(count, generator))}
    if task.objective == "masked":
        views["noise"] = torch.rand(count, 4, 4, generator=generator)
    return views


ENTROPY = -(SHARES * SHARES.log()).sum().item()
"""Of each token given all before it, in nats; that of the first too."""


@pytest.fixture(scope="module")
def chain() -> tuple[GPT, torch.nn.ModuleDict, float]:
    return learned(IGPT(size=4), 250)


def test_the_likelihood_of_a_known_distribution_is_learned_to_its_entropy(chain):
    *_, loss = chain
    assert ENTROPY - 0.02 < loss < ENTROPY + 0.03  # 2,000 x 16 tokens: one deviation of the mean is 0.004
    assert loss < math.log(4) - 0.1


def test_hidden_pixels_are_told_from_both_sides():
    """Better than from the left alone: the entropy of a token given its two neighbours, of the exact chain."""
    step = [[SHARES[(b - a) % 4].item() for b in range(4)] for a in range(4)]
    inner = 0.0
    for left, right in product(range(4), repeat=2):
        joint = [step[left][token] * step[token][right] / 4 for token in range(4)]
        inner -= sum(p * math.log(p / sum(joint)) for p in joint)
    assert inner < ENTROPY - 0.1
    *_, loss = learned(IGPT(size=4, objective="masked", hidden=0.1), 250)
    # The ends have one neighbour, and a neighbour may be hidden too: a little more, and never less.
    assert inner < loss < ENTROPY


def test_completions_of_a_learned_chain_are_of_the_chain(chain):
    encoder, heads, _ = chain
    begun = markov(500, torch.Generator().manual_seed(5))[:, :8]
    draws = torch.rand(500, 16, generator=torch.Generator().manual_seed(6))
    found = encoder.complete(begun, heads["color"], draws)
    steps = ((found[:, 8:] - found[:, 7:-1]) % 4).flatten().bincount(minlength=4) / 4000
    assert (steps - SHARES).abs().max() < 0.05


def test_the_first_loss_is_that_of_no_knowledge():
    for objective in ("autoregressive", "masked"):
        task = IGPT(size=8, objective=objective)
        encoder, heads = made(task, colors=64)
        views = task.views(ToySource().batch(torch.arange(8), CPU), torch.Generator().manual_seed(0))
        loss, outputs = task.loss(encoder, heads, views)
        assert loss.item() == pytest.approx(math.log(64))
        assert outputs["bits"].item() == pytest.approx(6)


def test_the_loss_is_the_mean_of_minus_log_p_over_what_is_asked():
    """Both objectives written out pixel by pixel from the features."""
    source = ToySource()
    for objective in ("autoregressive", "masked"):
        task = IGPT(size=8, objective=objective, hidden=0.4)
        encoder, heads = made(task)
        torch.nn.init.normal_(heads["color"].weight)
        views = task.views(source.batch(torch.arange(3), CPU), torch.Generator().manual_seed(0))
        tokens = encoder.preprocess(views["images"])
        asked = views["noise"].flatten(1) < 0.4 if objective == "masked" else torch.ones(3, 64, dtype=torch.bool)
        shown = tokens.clone()
        if objective == "masked":
            assert 0.2 < asked.float().mean() < 0.6
            shown[asked] = encoder.hidden
        share = (encoder.features(shown)["block02"] @ heads["color"].weight.T).softmax(2).detach()
        found = [-math.log(share[b, i, tokens[b, i]]) for b in range(3) for i in range(64) if asked[b, i]]
        right = [bool(share[b, i].argmax() == tokens[b, i]) for b in range(3) for i in range(64) if asked[b, i]]
        loss, outputs = task.loss(encoder, heads, views)
        assert loss.item() == pytest.approx(sum(found) / len(found), rel=1e-4)
        assert outputs["accuracy"].item() == pytest.approx(sum(right) / len(right))


def test_what_is_hidden_does_not_reach_its_own_prediction():
    """Else the answer stands beside the question: two pictures that differ where they are hidden are read alike."""
    task = IGPT(size=8, objective="masked")
    encoder, heads = made(task)
    torch.nn.init.normal_(heads["color"].weight)
    views = task.views(ToySource().batch(torch.arange(6), CPU), torch.Generator().manual_seed(0))
    tokens = encoder.preprocess(views["images"])
    hidden = views["noise"].flatten(1) < 0.15
    read = []
    encoder.features, plain = lambda seen: read.append(seen) or plain(seen), encoder.features
    task.loss(encoder, heads, views)
    other = encoder.preprocess.pictures(torch.where(hidden, (tokens + 1) % 4, tokens))
    task.loss(encoder, heads, {**views, "images": other})
    assert torch.equal(*read)
    assert (read[0] == encoder.hidden).equal(hidden)


def test_pixels_are_hidden_as_often_as_asked_and_apart_from_each_other():
    task = IGPT(size=16, objective="masked", hidden=0.15)
    noise = task.views(ToySource(400).batch(torch.arange(400), CPU), torch.Generator().manual_seed(0))["noise"]
    hidden = (noise < 0.15).float()
    assert abs(hidden.mean() - 0.15) < 4 * (0.15 * 0.85 / hidden.numel()) ** 0.5
    assert abs((hidden[..., 1:] * hidden[..., :-1]).mean() - 0.15**2) < 0.002
    smaller = task._hidden(noise, torch.zeros(400, 64, dtype=torch.int64))
    assert abs(smaller.float().mean() - 0.15) < 4 * (0.15 * 0.85 / smaller.numel()) ** 0.5


@pytest.mark.parametrize("objective", ["autoregressive", "masked"])
def test_every_weight_gets_a_gradient(objective):
    task = IGPT(size=8, objective=objective)
    encoder, heads = made(task)
    torch.nn.init.normal_(heads["color"].weight)
    views = task.views(ToySource().batch(torch.arange(8), CPU), torch.Generator().manual_seed(0))
    task.loss(encoder, heads, views)[0].backward()
    assert all(w.grad.isfinite().all() and w.grad.any() for m in (encoder, heads) for w in m.parameters())
    if objective == "masked":
        assert not encoder.tokens.weight.grad[encoder.hidden].any()  # zero, and it stays so


def test_completions_keep_the_half_that_was_given():
    task = IGPT(size=8)
    encoder, heads = made(task)
    source = ToySource()
    encoder.fit(source)
    images = source.batch(torch.arange(4), CPU).warp(identity(4), 8)
    shown = task.visualize(encoder, heads, {"images": images})
    rows = shown["completions"].view(4, 8, 3, 8, 8)
    truth = encoder.preprocess.pictures(encoder.preprocess(images))
    assert torch.equal(rows[:, 7], truth)
    assert (rows[:, 0, :, 4:] == 0.5).all()
    for place in range(7):
        assert torch.equal(rows[:, place, :, :4], truth[:, :, :4])
    assert len({tuple(picture.flatten().tolist()) for picture in rows[0, 1:7]}) == 6
    assert shown["samples"].shape == (16, 3, 8, 8)
    again = task.visualize(encoder, heads, {"images": images})
    assert all(torch.equal(shown[name], again[name]) for name in shown)


def test_filled_pictures_differ_only_where_they_were_hidden():
    task = IGPT(size=8, objective="masked", hidden=0.5)
    encoder, heads = made(task)
    views = task.views(ToySource().batch(torch.arange(8), CPU), torch.Generator().manual_seed(0))
    grey, likely, drawn, truth = task.visualize(encoder, heads, views)["filled"].view(8, 4, 3, 8, 8).unbind(1)
    hidden = (views["noise"] < 0.5)[:, None].expand(-1, 3, -1, -1)
    assert (grey[hidden] == 0.5).all()
    for pictures in (grey, likely, drawn):
        assert torch.equal(pictures[~hidden], truth[~hidden])
    assert not torch.equal(likely, drawn)


@pytest.mark.parametrize("wrong", [{"hidden": 0.0}, {"hidden": 1.0}, {"temperature": 0.0}, {"scale": (0.0, 1.0)}])
def test_settings_of_nothing_are_one_sentence(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"^--{name} must be .*, got .*; "):
        IGPT(**wrong)


def test_from_the_command_line_random_weights_read_the_palette_that_was_learned(tmp_path, monkeypatch, capsys):
    """A random `gpt` with a palette of its own would be fed another way; so would one resumed with another palette."""
    import numpy as np
    from PIL import Image

    from selftaught import Run
    from selftaught.evaluation import layers

    rng = np.random.default_rng(0)
    for kind in ("dark", "light"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 128, (8, 8, 3)) + 127 * (kind == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / kind / f"{number}.png")
    options = "--task igpt --encoder gpt --size 8 --steps 2 --batch-size 4 --depth 1 --width 16 --heads 2 --colors 32"
    assert main(["pretrain", str(tmp_path / "images"), *options.split(), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "shown" / "completions.png").is_file()
    run = Run(tmp_path / "run")
    seen = {}

    def spy(encoder, fresh, *others, **more):
        seen.update(trained=encoder, random=fresh(0))
        return probe_layers(encoder, fresh, *others, **more)

    probe_layers = layers.probe_layers
    monkeypatch.setattr("selftaught.api.labeled.probe_layers", spy)
    table = run.probe(tmp_path / "images")
    assert [row.layer for row in table.layers] == ["embed", "block01"]
    trained, random = seen["trained"], seen["random"]
    assert torch.equal(trained.preprocess.colors, random.preprocess.colors)
    assert not torch.equal(trained.preprocess.colors, GPT(size=8, colors=32).preprocess.colors)
    assert not torch.equal(trained.positions, random.positions)
