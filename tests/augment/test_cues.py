"""Cues: each is found where it was planted and nowhere else, and a control has its damage without its pattern."""

from pathlib import Path

import pytest
import torch

from selftaught.augment.cues import (
    CORNER,
    CUES,
    FADE,
    FRINGE,
    RADIUS,
    blurred,
    chromatic_aberration,
    grayscale,
    illuminated,
    jpeg,
    shift_channels_apart,
    without_border,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(count: int = 4, side: int = 64) -> torch.Tensor:
    """Colours without grain, whose gradients are known well."""
    coarse = torch.rand(count, 3, 6, 6, generator=generator())
    return torch.nn.functional.interpolate(coarse, size=side, mode="bicubic", align_corners=True).clamp(0, 1)


def disc(side: int = 101, radius: float = 0.5) -> torch.Tensor:
    """A white disc about the centre, (1, 3, S, S), with a soft edge."""
    place = (2 * torch.arange(side) + 1) / side - 1
    distance = (place[:, None].square() + place.square()).sqrt()
    return torch.sigmoid((radius - distance) * 40).expand(1, 3, side, side)


@pytest.mark.parametrize("name", CUES)
def test_every_cue_function_changes_images_but_not_its_input(name):
    images = smooth()
    images = (images + 0.1 * torch.rand(images.shape, generator=generator(1))).clamp(0, 1)
    before = images.clone()
    changed = CUES[name].change(images, generator())
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert changed.min() >= -1e-5
    assert changed.max() <= 1 + 1e-5
    assert torch.equal(images, before)
    assert ((changed - images).abs().flatten(1).mean(1) > 1e-3).all()
    assert torch.equal(changed, CUES[name].change(images, generator()))


def test_controls_change_images_as_much_as_their_cues():
    images = smooth()
    for cue in CUES.values():
        if cue.control:
            assert cue.kind == "planted"
            assert CUES[cue.control].kind == "control"
            plant, control = (c.change(images, generator()) for c in (cue, CUES[cue.control]))
            damage = [(changed - images).square().mean().sqrt() for changed in (plant, control)]
            assert 0.7 < damage[0] / damage[1] < 1.4, cue.condition


def test_grayscale_preserves_luma_and_removes_color():
    images = smooth()
    luma = 0.2989 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2]
    for channel in grayscale(images, generator()).unbind(1):
        assert torch.allclose(channel, luma)


def test_blur_removes_the_highest_frequency_and_keeps_the_mean():
    stripes = (torch.arange(64) % 2).float().expand(1, 3, 64, 64)
    assert (blurred(stripes, generator()) - 0.5)[..., 8:-8].abs().max() < 0.01
    assert torch.allclose(blurred(torch.full((1, 3, 9, 9), 0.3), generator()), torch.full((1, 3, 9, 9), 0.3))


@pytest.mark.parametrize("by", [FRINGE, -FRINGE])
def test_chromatic_aberration_magnifies_red_shrinks_blue_and_keeps_green(by):
    image = disc()
    red, green, blue = chromatic_aberration(image, generator(), by=by)[0].sum((1, 2))
    area = image[0, 0].sum()
    assert green == pytest.approx(float(area), rel=1e-5)
    assert float(red / area) == pytest.approx((1 + by) ** 2, abs=5e-3)
    assert float(blue / area) == pytest.approx((1 - by) ** 2, abs=5e-3)


def test_chromatic_aberration_and_its_control_have_the_same_mean_shift():
    place = (2 * torch.arange(400) + 1) / 400 - 1
    assert float((place[:, None].square() + place.square()).sqrt().mean()) == pytest.approx(RADIUS, abs=1e-4)


def test_channel_shift_moves_red_and_blue_in_opposite_directions():
    image = disc().expand(8, 3, 101, 101)
    moved = shift_channels_apart(image, generator(), by=0.1)
    place = (2 * torch.arange(101) + 1) / 101 - 1
    weights = moved / moved.sum((2, 3), keepdim=True)
    centre = torch.stack([(weights * place).sum((2, 3)), (weights * place[:, None]).sum((2, 3))], 2)  # (8, 3, 2)
    assert torch.allclose(centre[:, 1], torch.zeros(8, 2), atol=1e-4)
    assert torch.allclose(centre[:, 0], -centre[:, 2], atol=1e-3)
    assert torch.allclose(centre[:, 0].norm(dim=1), torch.full((8,), 0.1), atol=1e-3)
    assert centre[:, 0].std(0).min() > 0.02


def steps_by_phase(images: torch.Tensor) -> torch.Tensor:
    """Mean step of brightness from one column to the next, by the column's place in a block of 8: (8,)."""
    luma = images.mean(1)
    steps = (luma[..., 1:] - luma[..., :-1]).abs().mean((0, 1))
    phase = (torch.arange(len(steps)) + 1) % 8
    return torch.stack([steps[phase == p].mean() for p in range(8)])


@pytest.mark.parametrize(("shift", "side"), [(0, 64), (4, 64), (4, 61)])
def test_jpeg_blocks_start_at_the_expected_offset(shift, side):
    steps = steps_by_phase(jpeg(smooth(8, side), generator(), shift=shift))
    assert steps.argmax() == shift
    assert steps[shift] > 1.3 * steps.sort().values[-2]
    assert steps_by_phase(smooth(8, side)).std() < 0.1 * steps_by_phase(smooth(8, side)).mean()


def test_illumination_from_above_fades_downwards_and_from_below_upwards():
    white = torch.ones(1, 3, 50, 50)
    above, below = illuminated(white, generator()), illuminated(white, generator(), above=False)
    assert torch.allclose(above, below.flip(2))
    assert (above[0, 0, 1:] < above[0, 0, :-1]).all()
    assert above[0, 0, :, 0].mean() == pytest.approx(1 - FADE / 2, abs=1e-5)
    assert torch.equal(above[..., :1].expand_as(above), above)


def test_vignette_halves_corners_and_removes_a_sixth_on_average():
    dark = CUES["vignette"].change(torch.ones(1, 3, 200, 200), generator())[0, 0]
    assert dark[0, 0] == pytest.approx(1 - CORNER, abs=0.01)
    assert dark[100, 100] == pytest.approx(1, abs=0.01)
    assert dark.mean() == pytest.approx(1 - CORNER / 3, abs=1e-3)
    darkened = CUES["darkened"].change(torch.ones(1, 3, 4, 4), generator())
    assert torch.equal(darkened, torch.full((1, 3, 4, 4), 1 - CORNER / 3))


def test_without_border_removes_a_frame():
    framed = torch.ones(1, 3, 40, 40)
    framed[..., :2, :] = framed[..., -2:, :] = framed[..., :2] = framed[..., -2:] = 0
    assert torch.allclose(without_border(framed, generator()), torch.ones(1, 3, 40, 40))


def test_the_documentation_names_every_cue():
    table = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    assert [name for name in CUES if name not in table] == []
