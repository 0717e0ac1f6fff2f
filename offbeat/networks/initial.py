"""Initial weights other than torch's own."""

from __future__ import annotations

from torch import nn


def make_orthogonal(part: nn.Module, gain: float) -> None:
    """Give every convolution and linear layer of ``part`` orthogonal weights times ``gain``, and zero biases."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
