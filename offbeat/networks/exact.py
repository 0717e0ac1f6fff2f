"""The dtype that exact arithmetic is done in: float32, or float64 where the parameters are."""

from __future__ import annotations

import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """``x`` of any dtype in float32; as it is where it is float64."""
    return x if x.dtype == torch.float64 else x.float()
