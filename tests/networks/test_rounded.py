"""Weights in bfloat16, for acting and for training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from offbeat.networks.flat import flatten_parameters
from offbeat.networks.heads import Float32Linear
from offbeat.networks.image_conv import ImageConv
from offbeat.networks.rounded import RoundedWeights, missing

CPU = torch.device("cpu")


def nothing_copied(*_: Any) -> None:
    """As a copy that has become something else."""


@pytest.fixture(params=["as it is", "gone", "wrong"])
def torch_copy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Torch with its copy of many tensors at once, without it, and with one that does not copy."""
    if request.param == "gone":
        monkeypatch.delattr(torch, "_foreach_copy_")
    elif request.param == "wrong":
        monkeypatch.setattr(torch, "_foreach_copy_", nothing_copied)
    missing.cache_clear()
    yield request.param
    missing.cache_clear()


@pytest.mark.usefixtures("torch_copy")
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


def test_training_leaves_the_first_convolution_exact_and_gives_gradients_to_the_others() -> None:
    network = nn.Sequential(ImageConv(2, 3, 3, 1, 0, 1 / 255), nn.Conv2d(3, 4, 2), nn.Flatten(), Float32Linear(4, 2))
    flatten_parameters(network)
    rounded = RoundedWeights(network, train=True)
    assert network[0].weight.dtype == network[3].weight.dtype == torch.float32
    assert network[1].weight.dtype == torch.bfloat16
    assert network[1].weight.requires_grad
    assert network[1].weight.is_contiguous()
    assert set(rounded.exact) == {network[1].weight, network[1].bias}


@pytest.mark.usefixtures("torch_copy")
def test_weights_of_another_vector_are_rounded_on_their_way() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4), Float32Linear(4, 2))
    flat = flatten_parameters(network)
    rounded = RoundedWeights(network)
    before, newest = flat.clone(), torch.linspace(-1, 1, len(flat))
    rounded.copy_(newest)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    for layer in (0, 3):
        assert not torch.equal(weights[f"{layer}.weight"].float(), rounded.exact[network[layer].weight])
    assert torch.equal(flat[: network[0].weight.numel()], before[: network[0].weight.numel()])
    flat.copy_(newest)
    rounded.refresh()
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("train", [False, True])
def test_shared_weights_stay_shared_and_frozen_ones_frozen(train: bool) -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), Float32Linear(4, 4))
    network[1].weight = network[0].weight
    network[3].weight = network[2].weight
    network[2].bias.requires_grad_(False)
    flatten_parameters(network)
    rounded = RoundedWeights(network, train=train)
    assert network[0].weight is network[1].weight
    assert network[2].weight is network[3].weight
    assert (network[0].weight.dtype, network[2].weight.dtype) == (torch.bfloat16, torch.float32)
    assert set(rounded.exact) == {network[0].weight, network[0].bias, network[1].bias, network[2].bias}
    assert network[0].weight.requires_grad == train
    assert not network[2].bias.requires_grad


def test_what_torch_lacks_is_noticed_and_told(torch_copy: str) -> None:
    expected = {"gone": "AttributeError", "wrong": "it gives other results"}
    if torch_copy in expected:
        assert expected[torch_copy] in missing(CPU)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    flat = flatten_parameters(network)
    flat.copy_(torch.linspace(-1, 1, len(flat)))
    RoundedWeights(network, train=True)
    size = network[0].weight.numel()
    assert torch.equal(network[0].weight.detach().flatten(), flat[:size].to(torch.bfloat16))
