"""Float32 where half precision would lose what matters, or is not implemented."""

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """Convert bfloat16 and float16 to float32; float32 and float64 stay as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
