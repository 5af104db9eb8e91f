import math

import pytest
import torch
from torch import nn

from selftaught.contracts import Layer
from selftaught.encoders.alexnet import AlexNet
from selftaught.encoders.convnet import ConvNet
from selftaught.errors import UserError
from selftaught.modules.generators import uniform_noise
from selftaught.pretext.bigan import BiGAN, Code, PairCritic
from toys import ToyEncoder, ToySource


def setting(task: BiGAN, encoder=None, count: int = 8, seed: int = 0):
    torch.manual_seed(0)
    source, encoder = ToySource(), encoder or ToyEncoder(size=task.size)
    batch = source.batch(torch.arange(count), torch.device("cpu"))
    return encoder, task.heads(encoder, source), task.views(batch, torch.Generator().manual_seed(seed))


class Told(nn.Module):
    """A critic that answers as it was told, encoded pairs before generated ones, and remembers what it was asked."""

    def __init__(self, *answers: list[float]) -> None:
        super().__init__()
        self.answers, self.asked = [torch.tensor(answer)[:, None] for answer in answers], []

    def forward(self, images: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        self.asked.append((images, codes))
        return self.answers.pop(0)


def log_d(logit: float) -> float:
    return math.log(1 / (1 + math.exp(-logit)))


def test_the_critic_minimises_the_value_of_the_paper_and_the_others_have_its_answers_exchanged():
    task = BiGAN(size=16)
    encoder, heads, views = setting(task, count=4)
    encoded, generated = [2.0, -1.0, 0.5, 3.0], [-2.0, -0.5, 1.0, 4.0]
    heads["critic"] = Told(encoded + generated, encoded + generated)
    loss, outputs = task.critic_loss(encoder, heads, views)
    value = sum(map(log_d, encoded)) / 4 + sum(log_d(-x) for x in generated) / 4
    assert loss.item() == pytest.approx(-value / 2, rel=1e-5)
    assert outputs["accuracy_on_encoded"] == 0.75
    assert outputs["accuracy_on_generated"] == 0.5
    exchanged = sum(log_d(-x) for x in encoded) / 4 + sum(map(log_d, generated)) / 4
    assert task.loss(encoder, heads, views)[0].item() == pytest.approx(-exchanged / 2, rel=1e-5)


def test_the_pairs_are_an_image_with_its_code_and_noise_with_its_picture():
    task = BiGAN(size=16, latent=5)
    encoder, heads, views = setting(task, count=2)
    heads["critic"] = critic = Told([0.0] * 4, [0.0] * 4)
    codes = heads["code"](encoder.features(encoder.preprocess(views["images"]))["second"])
    made = heads["generator"](views["noise"])
    task.loss(encoder, heads, views), task.critic_loss(encoder, heads, views)
    for images, with_codes in critic.asked:
        assert torch.equal(images, torch.cat([views["images"], made]))
        assert torch.equal(with_codes, torch.cat([codes, views["noise"]]))


def test_the_critics_loss_reaches_the_critic_alone():
    task = BiGAN(size=16)
    encoder, heads, views = setting(task)
    task.critic_loss(encoder, heads, views)[0].backward()
    others = [*encoder.parameters(), *heads["code"].parameters(), *heads["generator"].parameters()]
    assert all(weight.grad is None for weight in others)


def test_the_error_of_reconstruction_is_measured_and_nobody_minimises_it():
    task = BiGAN(size=16, crop=1.0)
    encoder, heads, views = setting(task)
    before = {name: value.clone() for name, value in heads["generator"].state_dict().items()}
    loss, outputs = task.loss(encoder, heads, views)
    codes = heads["code"](encoder.features(encoder.preprocess(views["images"]))["second"])
    expected = (heads["generator"](codes) - views["images"]).square().mean()
    assert outputs["reconstruction_error"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert not outputs["reconstruction_error"].requires_grad
    # One batch of noise has passed the generator's batch norm, and nothing else has left a trace in it.
    heads["generator"].load_state_dict(before)
    heads["generator"](views["noise"])
    once = {name: value.clone() for name, value in heads["generator"].state_dict().items()}
    heads["generator"].load_state_dict(before)
    task.loss(encoder, heads, views)
    assert all(torch.equal(value, heads["generator"].state_dict()[name]) for name, value in once.items())
    assert loss.requires_grad


def test_running_statistics_of_the_encoder_are_those_of_images():
    task = BiGAN(size=16)
    encoder, heads, views = setting(task, ConvNet(size=16, width=8))
    other = ConvNet(size=16, width=8)
    other.load_state_dict(encoder.state_dict())
    task.loss(encoder, heads, views)
    other(views["images"])
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in encoder.state_dict().items())


def test_a_code_knows_where_things_are():
    torch.manual_seed(0)
    code, seen = Code(3, 5, normed=False), torch.randn(2, 3, 8, 8)
    assert code(seen).shape == (2, 5)
    assert not torch.allclose(code(seen.flip(3)), code(seen), atol=1e-2)


def test_codes_have_the_mean_and_the_spread_of_the_noise():
    torch.manual_seed(0)
    noise = uniform_noise(20_000, 5, torch.Generator().manual_seed(0))
    codes = Code(3, 5, normed=True)(5 * torch.randn(200, 3, 8, 8) + 2)
    torch.testing.assert_close(codes.mean(0), noise.mean(0), atol=0.02, rtol=0)
    torch.testing.assert_close(codes.std(0), noise.std(0), atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [8, 12, 24, 32, 96])
def test_the_critic_judges_the_pair_and_not_its_halves(size):
    """Picture and code alone tell nothing of right pairs and exchanged ones: it must depend on both at once."""
    torch.manual_seed(0)
    critic = PairCritic(5, size, 8).eval()
    images, codes = torch.rand(2, 3, size, size), torch.randn(2, 5)
    with torch.no_grad():
        judged = {(i, j): critic(images[[i]], codes[[j]]).item() for i in (0, 1) for j in (0, 1)}
    # A sum of a function of each would have no interaction.
    assert abs(judged[0, 0] - judged[0, 1] - judged[1, 0] + judged[1, 1]) > 1e-5


def test_a_critic_learns_which_code_belongs_to_which_picture():
    """Pictures of one brightness, of which the code tells: that codes are exchanged is all there is to find."""
    torch.manual_seed(0)
    critic = PairCritic(1, 8, 16)
    optimizer = torch.optim.Adam(critic.parameters(), lr=3e-3)
    for _ in range(150):
        codes = 2 * torch.rand(64, 1) - 1
        images = ((codes + 1) / 2)[:, :, None, None].expand(-1, 3, 8, 8)
        right, wrong = critic(images, codes), critic(images, codes.roll(1, 0))
        loss = nn.functional.softplus(-right).mean() + nn.functional.softplus(wrong).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert ((right > 0).float().mean() + (wrong < 0).float().mean()) / 2 > 0.75


@pytest.mark.parametrize(("encoder", "size"), [(ConvNet(size=32, width=8), 32), (AlexNet(size=32), 32)])
def test_it_works_with_the_encoders_of_the_papers(encoder, size):
    task = BiGAN(size=size, latent=6, generator_width=8, critic_width=8)
    encoder, heads, views = setting(task, encoder, count=4)
    for loss in (task.critic_loss(encoder, heads, views)[0], task.loss(encoder, heads, views)[0]):
        assert loss.item() == pytest.approx(math.log(2), abs=0.6)
    shown = task.visualize(encoder.eval(), heads.eval(), views)
    assert shown["reconstructed"].shape == (4, 3, 16, 32)
    assert torch.equal(shown["reconstructed"][..., :16], views["images"])
    assert shown["generated"].shape == (4, 3, 16, 16)


def test_an_encoder_without_a_map_is_refused():
    vectors = ToyEncoder(size=32)
    vectors.layers = {"only": Layer(16, 0)}
    with pytest.raises(UserError, match="whose last layer is a map, got one without positions"):
        BiGAN(size=32).heads(vectors, ToySource())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"latent": 0}, "--latent must be from 1 to 16,384, got 0"),
        ({"critic_width": -1}, "--critic-width must be from 1 to 1,024, got -1"),
        ({"scale": (0.9, 0.1)}, "--scale must be two fractions"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        BiGAN(**wrong)
