import pytest
import torch

from selftaught import UserError
from selftaught.pretext.scaling import Scaling
from toys import ToyBatch


def views(task, images, seed=0):
    batch = ToyBatch({"image": images}, torch.arange(len(images)), {}, len(images))
    return task.views(batch, torch.Generator().manual_seed(seed))


def ramps(side=64):
    """Red grows to the right and green downward, from 0 to 1, so that a view shows where its window lies."""
    y, x = torch.meshgrid((torch.arange(side) + 0.5) / side, (torch.arange(side) + 0.5) / side, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)]).expand(200, 3, side, side)


def test_windows_have_the_area_and_ratio_of_their_class_and_lie_inside_the_image():
    task = Scaling(size=32, areas=(0.2, 0.4), ratios=(0.5, 1.0, 2.0))
    shown = views(task, ramps())
    assert shown["window"].tolist() == list(range(6)) * 200
    images = shown["images"][:, :2]
    spans = (images.amax((2, 3)) - images.amin((2, 3))) * 32 / 31  # between the centers of the outer pixels
    for number, (area, ratio) in enumerate([(0.2, 0.5), (0.2, 1), (0.2, 2), (0.4, 0.5), (0.4, 1), (0.4, 2)]):
        width, height = spans[number::6].unbind(1)
        torch.testing.assert_close(width, torch.full((200,), (area * ratio) ** 0.5), atol=0.01, rtol=0)
        torch.testing.assert_close(height, torch.full((200,), (area / ratio) ** 0.5), atol=0.01, rtol=0)
    middle = images.mean((2, 3))
    reach = middle.amin(0), middle.amax(0)
    assert reach[0].max() < 0.3
    assert reach[1].min() > 0.7
    mirrored = images[:, 0, :, 0].mean(1) > images[:, 0, :, -1].mean(1)
    assert 70 < mirrored[::6].sum() < 130
    assert mirrored.reshape(200, 6).all(1).eq(mirrored[::6]).all()
    assert not (views(Scaling(size=32, flip=False), ramps())["images"].diff(dim=3)[:, 0] < 0).any()


def test_resizing_reveals_the_class_on_noise():
    """The reason why the task is a counterexample: contrast between neighbors grows with the window."""
    noise = torch.rand(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images = views(Scaling(size=32), noise)["images"].unflatten(0, (100, 4))
    contrast = images.diff(dim=-1).abs().mean((2, 3, 4))
    assert (contrast.diff(dim=1) > 0).all()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"areas": (0.5,)}, "at least two different windows.*--areas 0.5 --ratios 1"),
        ({"areas": (0.5, 0.5)}, "at least two different windows"),
        ({"areas": (0.2, 1.2)}, "an area of 1.2 and a ratio of 1 does not fit"),
        ({"areas": (0.2, 0.9), "ratios": (0.5, 2.0)}, "an area of 0.9 and a ratio of 0.5 does not fit"),
        ({"areas": (0.0, 0.9)}, "does not fit"),
        ({"ratios": (1.0, -1.0)}, "does not fit"),
        ({"areas": (float("nan"), 0.9)}, "does not fit"),
    ],
)
def test_windows_that_cannot_be_are_refused(settings, expected):
    with pytest.raises(UserError, match=expected):
        Scaling(size=16, **settings)
