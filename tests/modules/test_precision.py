import pytest
import torch

from selftaught.modules.precision import at_least_float32


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_only_half_precision_is_converted(given, expected):
    values = torch.tensor([1.5, -2.0], dtype=given, requires_grad=True)
    converted = at_least_float32(values)
    assert converted.dtype == expected
    assert converted.tolist() == [1.5, -2.0]
    converted.sum().backward()
    assert values.grad.dtype == given
