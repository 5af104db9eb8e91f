import pytest
import torch
from torch import nn

from selftaught.errors import UserError
from selftaught.pretext.autoencoder import Autoencoder
from toys import ToyEncoder, ToySource


class Fixed(nn.Module):
    """Decodes to what it was given."""

    def __init__(self, answer: torch.Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, code: torch.Tensor) -> torch.Tensor:
        return self.answer


def setting(task: Autoencoder, count: int = 6, seed: int = 0):
    torch.manual_seed(0)
    source, encoder = ToySource(), ToyEncoder(size=task.size)
    batch = source.batch(torch.arange(count), torch.device("cpu"))
    return encoder, task.heads(encoder, source), task.views(batch, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("compression", [4, 12, 48])
def test_the_code_has_so_many_times_fewer_numbers_than_the_image(compression):
    task = Autoencoder(crop=1.0, size=16, compression=compression)
    encoder, heads, views = setting(task)
    code = heads["code"](encoder.features(encoder.preprocess(views["images"]))["second"])
    assert code.numel() * compression == views["images"].numel()


def test_errors_are_squared_in_srgb():
    task = Autoencoder(crop=1.0, size=16)
    encoder, heads, views = setting(task)
    heads["decoder"] = Fixed(torch.full((6, 3, 16, 16), 0.5))
    expected = sum(float((0.5 - (2 * value - 1)) ** 2) for value in views["images"].flatten()) / (6 * 3 * 16 * 16)
    assert task.loss(encoder, heads, views)[0].item() == pytest.approx(expected, rel=1e-4)


def test_errors_are_squared_in_lab():
    color = pytest.importorskip("skimage.color")
    task = Autoencoder(crop=1.0, size=16, space="lab")
    encoder, heads, views = setting(task)
    heads["decoder"] = Fixed(torch.zeros(6, 3, 16, 16))
    lab = torch.from_numpy(color.rgb2lab(views["images"].permute(0, 2, 3, 1).double().numpy()))
    expected = ((lab - torch.tensor([50.0, 0, 0])) / 50).square().mean()
    assert task.loss(encoder, heads, views)[0].item() == pytest.approx(expected.item(), rel=1e-3)


def test_noise_is_on_what_is_shown_and_not_on_what_is_asked():
    clean = setting(Autoencoder(crop=1.0, size=16))[2]
    noisy = setting(Autoencoder(crop=1.0, size=16, noise=0.05))[2]
    assert torch.equal(noisy["images"], clean["images"])
    inside = (clean["images"] > 0.25) & (clean["images"] < 0.75)  # five deviations away from where it is clamped
    added = (noisy["noisy"] - clean["images"])[inside]
    assert added.mean().item() == pytest.approx(0, abs=0.005)
    assert added.std().item() == pytest.approx(0.05, rel=0.1)
    assert noisy["noisy"].min() >= 0


def test_masking_greys_whole_pixels_and_leaves_the_others():
    views = setting(Autoencoder(crop=1.0, size=16, masked=0.25))[2]
    hidden = (views["noisy"] == 0.5).all(1)
    assert hidden.float().mean().item() == pytest.approx(0.25, abs=0.05)
    kept = ~hidden[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(views["noisy"][kept], views["images"][kept])


def test_the_encoder_is_shown_the_noisy_image():
    task = Autoencoder(crop=1.0, size=16, noise=0.5)
    encoder, heads, views = setting(task)
    clean = {"images": views["images"], "noisy": views["images"]}
    assert task.loss(encoder, heads, views)[0] != task.loss(encoder, heads, clean)[0]


@pytest.mark.parametrize("space", ["rgb", "lab"])
def test_a_perfect_decoder_shows_the_image_itself(space):
    task = Autoencoder(crop=1.0, size=16, space=space, noise=0.1)
    encoder, heads, views = setting(task)
    heads["decoder"] = Fixed(task._target(views["images"]))
    assert task.loss(encoder, heads, views)[0] == 0
    noisy, decoded, true = task.visualize(encoder, heads, views)["decoded"].split(16, 3)
    assert torch.equal(noisy, views["noisy"])
    assert torch.equal(true, views["images"])
    torch.testing.assert_close(decoded, true, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["rgb", "lab"])
def test_it_learns_more_than_the_mean_image(space):
    task = Autoencoder(crop=1.0, size=16, space=space, scale=(1.0, 1.0))
    encoder, heads, views = setting(task, count=24)
    wanted = task._target(views["images"])
    optimizer = torch.optim.Adam([*encoder.parameters(), *heads.parameters()], lr=3e-3)
    for _ in range(150):
        loss = task.loss(encoder, heads, views)[0]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.8 * (wanted - wanted.mean(0)).square().mean()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"compression": 0}, "--compression must be from 1 to 1,000,000, got 0"),
        ({"noise": -0.1}, "--noise must be from 0 to 10"),
        ({"masked": 1.0}, "--masked must be at least 0 and below 1"),
        ({"scale": (0.9, 0.1)}, "--scale must be two fractions"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong, says):
    with pytest.raises(UserError, match=says):
        Autoencoder(**wrong)


def test_a_view_smaller_than_a_step_of_the_last_layer_is_refused():
    with pytest.raises(UserError, match="4 pixels, got 3"):
        Autoencoder(crop=1.0, size=3).heads(ToyEncoder(), ToySource())
