"""Weights in bfloat16 for acting."""

from __future__ import annotations

import torch
from torch import nn

from offbeat.networks.flat import flatten_parameters
from offbeat.networks.heads import Float32Linear
from offbeat.networks.rounded import RoundedWeights


def test_layers_of_autocast_are_rounded_and_follow_the_exact_weights() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4), Float32Linear(4, 2))
    flat = flatten_parameters(network)
    rounded = RoundedWeights(network)
    for layer in (network[0], network[2]):
        assert layer.weight.dtype == layer.bias.dtype == torch.bfloat16
    assert network[3].weight.dtype == torch.float32
    flat.copy_(torch.linspace(-1, 1, len(flat)))
    before = network[2].weight.clone()
    assert network[3].weight.data_ptr() >= flat.data_ptr(), "float32 layers still read the flat vector"
    rounded.refresh()
    assert not torch.equal(network[2].weight, before)
    size = network[0].weight.numel()
    assert torch.equal(network[0].weight.contiguous().flatten(), flat[:size].to(torch.bfloat16))
