"""The flat weight vector: shares memory with the network, survives training, and is laid out alike in every copy."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from offbeat.networks.flat import ALIGNMENT, flat_size, flat_spec, flatten_parameters


def make_network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4 * 4, 5), nn.Linear(5, 2))


IMAGES = torch.randn(7, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def test_flattening_changes_no_value():
    network = make_network(0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    flat = flatten_parameters(network)
    assert flat.shape == (flat_size(network),)
    assert flat.dtype == torch.float32
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    for entry in flat_spec(network):
        assert entry.offset % ALIGNMENT == 0
        stored = flat[entry.offset : entry.offset + entry.size].view(entry.shape)
        assert torch.equal(stored, before[entry.name])


def test_copying_a_vector_makes_networks_equal():
    source, target = make_network(0).eval(), make_network(1).eval()
    source[1].running_mean.fill_(0.3)  # a float buffer travels too
    weights, own = flatten_parameters(source), flatten_parameters(target)
    assert not torch.allclose(source(IMAGES), target(IMAGES))
    own.copy_(weights)
    assert torch.equal(source(IMAGES), target(IMAGES))


def test_training_through_the_views_equals_plain_training():
    plain, viewed = make_network(0), make_network(0)
    optimisers = [torch.optim.RMSprop(network.parameters(), lr=0.01) for network in (plain, viewed)]
    flat = flatten_parameters(viewed)  # after the optimiser took its references
    start = flat.clone()
    for _ in range(3):
        for network, optimiser in zip((plain, viewed), optimisers, strict=True):
            optimiser.zero_grad()
            network(IMAGES).square().sum().backward()
            optimiser.step()
    assert not torch.equal(flat, start)
    for (name, left), right in zip(plain.state_dict().items(), viewed.state_dict().values(), strict=True):
        torch.testing.assert_close(left, right, msg=name)
    for entry in flat_spec(viewed):
        assert torch.equal(
            flat[entry.offset : entry.offset + entry.size].view(entry.shape), viewed.state_dict()[entry.name]
        )


def test_idempotent_also_after_what_breaks_the_views():
    network = make_network(0)
    flat = flatten_parameters(network)
    again = flatten_parameters(network)
    assert again.data_ptr() == flat.data_ptr()
    again[0] = 42.0
    assert flat[0] == network[0].weight.flatten()[0] == 42.0
    twin = copy.deepcopy(network)
    other = flatten_parameters(twin)
    assert torch.equal(other, flat)
    other.zero_()
    assert flat[0] == 42.0
    network[4].weight.data = torch.ones(2, 5)
    assert flatten_parameters(network).data_ptr() != flat.data_ptr()
    assert (network[4].weight == 1).all()


def test_loading_a_state_dict_writes_into_the_vector():
    network = make_network(0)
    flat = flatten_parameters(network)
    network.load_state_dict(make_network(1).state_dict())
    assert torch.equal(flat, flatten_parameters(make_network(1)))


def test_rejects_other_dtypes():
    with pytest.raises(ValueError, match=r"weight: expected float32 weights, got torch.float16"):
        flatten_parameters(nn.Linear(2, 2).half())
    mixed = nn.Sequential(nn.Linear(2, 2).double(), nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"1.weight: expected torch.float64 weights as the others, got torch.float32"):
        flatten_parameters(mixed)


def test_float64_stays_float64():
    network = make_network(0).double()
    flat = flatten_parameters(network)
    assert flat.dtype == torch.float64
    assert flatten_parameters(network).data_ptr() == flat.data_ptr(), "flat already"
    torch.testing.assert_close(flat.float(), flatten_parameters(make_network(0)))
