"""Weights that autocast has rounded."""

from __future__ import annotations

import torch
from torch import nn

from offbeat.networks.autocast import keeps_history, without_autocast


def test_a_forward_without_gradients_takes_none_from_the_one_after_it() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=keeps_history("cpu")):
        with torch.no_grad():
            layer(x)
        output = layer(x)
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert (layer.weight.grad != 0).all()


def test_the_probe_leaves_modes_as_they_are() -> None:
    keeps_history.cache_clear()
    with torch.inference_mode():
        first = keeps_history("cpu")
        assert torch.is_inference_mode_enabled() and not torch.is_grad_enabled()
    keeps_history.cache_clear()
    assert keeps_history("cpu") == first
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_without_it_layers_compute_in_float32() -> None:
    layer, x = nn.Linear(3, 2), torch.ones(4, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        with without_autocast("cpu"):
            assert layer(x).dtype == torch.float32
        assert layer(x).dtype == torch.bfloat16
    with without_autocast("cpu"):
        assert layer(x).dtype == torch.float32
