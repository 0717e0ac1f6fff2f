"""The dtype of exact arithmetic."""

from __future__ import annotations

import pytest
import torch

from offbeat.networks.exact import exact


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.uint8, torch.bool])
def test_everything_becomes_float32(dtype: torch.dtype) -> None:
    assert exact(torch.ones(2, dtype=dtype)).dtype == torch.float32


def test_float64_stays() -> None:
    x = torch.ones(2, dtype=torch.float64)
    assert exact(x) is x
