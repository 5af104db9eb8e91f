import numpy as np
import pytest
import torch
from torchvision.transforms.functional import InterpolationMode, rotate

from selftaught import UserError, make_encoder
from selftaught.encoders.inputs import require_input_sizes
from selftaught.pretext.rotation import Rotation
from toys import ToyBatch, ToySource

CPU = torch.device("cpu")
STILL = {"size": 16, "crop": 1.0, "scale": (1.0, 1.0), "flip": False}
"""Nothing but the turn."""


@pytest.fixture
def batch():
    return ToySource().batch(torch.arange(6), CPU)


def views(task, batch, seed=0):
    return task.views(batch, torch.Generator().manual_seed(seed))


def test_quarter_turns_are_numpys_to_the_bit(batch):
    shown = views(Rotation(**STILL), batch)
    images = views(Rotation(angles=(0, 180), **STILL), batch)["images"][::2]
    for number, image in enumerate(images.numpy()):
        for way in range(4):
            turned = shown["images"][4 * number + way].numpy()
            assert np.array_equal(turned, np.rot90(image, way, axes=(1, 2)))
    assert shown["angle"].tolist() == [0, 1, 2, 3] * len(batch)


def test_one_copy_asks_every_angle_of_somebody(batch):
    asked = [views(Rotation(copies="one", **STILL), batch, seed) for seed in range(20)]
    assert {len(shown["images"]) for shown in asked} == {6}
    assert set(torch.cat([shown["angle"] for shown in asked]).tolist()) == {0, 1, 2, 3}
    upright = views(Rotation(angles=(0, 180), **STILL), batch)["images"][::2]
    for shown in asked:
        for image, angle, turned in zip(upright, shown["angle"].tolist(), shown["images"], strict=True):
            assert torch.equal(torch.rot90(image, angle, (1, 2)), turned)


def test_other_angles_turn_counter_clockwise_within_the_inscribed_square():
    """Against torchvision: turn a smooth picture, then cut the inscribed square out of the middle."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    smooth = torch.stack([x, y, (x + y) / 2])[None]
    batch = ToyBatch({"image": smooth}, torch.tensor([0]), {}, 1)
    shown = views(Rotation(angles=(0, 45, 90), size=45, crop=1.0, scale=(1.0, 1.0), flip=False), batch)
    for angle, image in zip((0, 45, 90), shown["images"], strict=True):
        expected = rotate(smooth, angle, InterpolationMode.BILINEAR)[0, :, 9:54, 9:54]  # its corners touch the filling
        assert (image - expected)[:, 2:-2, 2:-2].abs().max() < 0.02


def test_inscribed_shows_quarter_turns_as_other_angles_show_them(batch):
    among_others = views(Rotation(angles=(0, 45, 90), **STILL), batch)["images"].unflatten(0, (6, 3))
    alone = views(Rotation(angles=(0, 90), inscribed=True, **STILL), batch)["images"].unflatten(0, (6, 2))
    assert torch.equal(alone, among_others[:, ::2])
    exact = views(Rotation(angles=(0, 90), **STILL), batch)["images"].unflatten(0, (6, 2))
    assert not torch.allclose(alone, exact, atol=0.01)


def test_the_crop_says_nothing_of_the_angle(batch):
    """All turns of an image are of one and the same crop."""
    shown = views(Rotation(size=16), batch)["images"].unflatten(0, (6, 4))
    for way in range(4):
        assert torch.equal(torch.rot90(shown[:, way], -way, (2, 3)), shown[:, 0])


def test_the_loss_is_the_mean_over_images_and_angles_of_the_negative_log_probability(batch):
    task, encoder = Rotation(size=16), make_encoder("convnet", size=16, width=8)
    heads = task.heads(encoder, ToySource())
    shown = views(task, batch)
    loss, outputs = task.loss(encoder, heads, shown)
    logits = heads["angle"](encoder(shown["images"])).detach().double()
    right = logits.exp()[torch.arange(24), shown["angle"]] / logits.exp().sum(1)
    assert loss.item() == pytest.approx(-right.log().mean().item(), rel=1e-5)
    assert outputs["accuracy"].item() == pytest.approx((logits.argmax(1) == shown["angle"]).double().mean().item())


@pytest.mark.parametrize("angles", [(), (90,), (0, 360), (90, 90)])
def test_less_than_two_angles_are_no_question(angles):
    with pytest.raises(UserError, match="two different angles"):
        Rotation(angles=angles)


def test_crops_are_shown_at_the_zoom_of_the_whole_image():
    """From pixel to pixel a ramp climbs in a part as it does in the whole, but for the aspect, which is random."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 64), torch.linspace(0, 1, 64), indexing="ij")
    batch = ToyBatch({"image": torch.stack([x, y, x])[None]}, torch.tensor([0]), {}, 1)
    part = views(Rotation(size=64, crop=0.5, scale=(0.25, 0.25), flip=False), batch)["images"][0]
    assert part.shape == (3, 32, 32)
    along_x, along_y = part[0].diff(dim=1)[:-1], part[1].diff(dim=0)[:, :-1]
    assert torch.allclose((along_x * along_y)[2:-2, 2:-2], torch.tensor(1 / 63**2), rtol=1e-3)


def test_an_encoder_that_cannot_read_the_crop_is_one_sentence():
    encoder = make_encoder("timm:vit_tiny_patch16_224", size=32)
    with pytest.raises(UserError, match=r"cannot process crops of 24 pixels.*--crop"):
        require_input_sizes(encoder, Rotation(size=32).view_sizes())
    require_input_sizes(encoder, Rotation(size=32, crop=1.0).view_sizes())
