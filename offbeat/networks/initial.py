"""Initial weights other than torch's own."""

from __future__ import annotations

import torch
from torch import nn


def make_orthogonal(part: nn.Module, gain: float) -> None:
    """Give every convolution and linear layer of ``part`` orthogonal weights times ``gain``, and zero biases."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.orthogonal_(layer.weight, gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def make_glorot(part: nn.Module) -> None:
    """Give every convolution and linear layer of ``part`` Glorot's uniform weights, and zero biases.

    Uniform within +-sqrt(6 / (inputs + outputs)), where a convolution's numbers are those of its channels times its
    kernel (Glorot & Bengio 2010, equation 16).
    """
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def make_unit_rows(part: nn.Module, gain: float) -> None:
    """Give every linear layer of ``part`` rows of length ``gain`` in directions drawn at random, and zero biases."""
    for layer in part.modules():
        if isinstance(layer, nn.Linear):
            with torch.no_grad():
                layer.weight.normal_()
                layer.weight.mul_(gain / layer.weight.norm(dim=1, keepdim=True))
                if layer.bias is not None:
                    layer.bias.zero_()
