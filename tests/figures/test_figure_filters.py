import numpy as np
import pytest
import torch

from selftaught.errors import UserError
from selftaught.figures import filters
from selftaught.figures.filters import pictures


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_filters_map_zero_to_mid_gray_and_the_maximum_to_an_end() -> None:
    given = weight(4, 3, 5, 5)
    shown = pictures(given)
    for filter_, picture in zip(given, shown, strict=True):
        np.testing.assert_allclose(picture, 0.5 + filter_ / (2 * filter_.abs().max()), rtol=1e-6)
    assert (pictures(torch.zeros(1, 3, 3, 3)) == 0.5).all()


def test_filters_are_normalized_in_magnitude_but_not_in_sign() -> None:
    given = weight(4, 3, 5, 5)
    torch.testing.assert_close(pictures(given * 100), pictures(given))
    torch.testing.assert_close(pictures(-given), 1 - pictures(given))


def test_one_channel_is_gray_and_two_are_side_by_side() -> None:
    one = pictures(weight(2, 1, 3, 3))
    assert one.shape == (2, 3, 3, 3)
    assert (one[:, 0] == one[:, 1]).all()
    given = weight(2, 2, 3, 3)
    two = pictures(given)
    assert two.shape == (2, 3, 3, 7)
    expected = 0.5 + given / (2 * given.abs().amax((1, 2, 3), keepdim=True))
    torch.testing.assert_close(two[:, 1, :, :3], expected[:, 0])
    torch.testing.assert_close(two[:, 2, :, 4:], expected[:, 1])


def test_every_filter_is_in_the_figure() -> None:
    given = weight(20, 3, 11, 11)
    shown = np.asarray(filters(given, columns=5).axes[0].images[0].get_array())
    assert shown.shape[:2] == (4 * 44 + 3 * 2, 5 * 44 + 4 * 2)
    last = (pictures(given)[19] * 255).round().permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(shown[-44::4, -44::4, :3], last)


@pytest.mark.parametrize("shape", [(4, 12, 3, 3), (4, 3), (0, 3, 3, 3)])
def test_invalid_filters_are_rejected(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="but got"):
        filters(torch.zeros(shape))
