"""Silent units, counted beside what a plain forward says of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from offbeat.agents import impala
from offbeat.agents.make import make_agent
from offbeat.networks.image_conv import Residual
from offbeat.scoring.diagnose.units import SATURATED, watched
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Inputs


def counts(watch) -> list[tuple[str, str, int, int]]:
    """What was seen, as tuples."""
    return [(layer.name, layer.kind, layer.units, layer.silent) for layer in watch.layers]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_it_agrees_with_a_forward_layer_by_layer(seed, activation):
    torch.manual_seed(seed)
    first, second = nn.Linear(3, 20), nn.Linear(20, 30)
    with torch.no_grad():
        first.bias.sub_(1.0).mul_(4.0)  # some are never on, or always saturated
        second.weight.mul_(5.0)
    network = nn.Sequential(first, activation(), second, activation())
    rows = [torch.randn(2, 4, 3) for _ in range(6)]
    with watched(network) as watch, torch.inference_mode():
        for x in rows:
            network(x)
    x = torch.cat(rows).flatten(0, 1).detach()
    expected = []
    for name, layer in (("0", first), ("2", second)):
        x = activation()(layer(x))
        kind = "relu" if activation is nn.ReLU else "tanh"
        silent = 0
        for unit in x.T.tolist():
            silent += all(value <= 0 for value in unit) if kind == "relu" else all(abs(v) >= SATURATED for v in unit)
        expected.append((name, kind, x.shape[-1], silent))
    assert counts(watch) == expected
    assert any(silent for _, _, _, silent in expected)


def test_channels_are_the_units_of_images_and_a_block_has_its_places():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 1)
            self.block = Residual(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.block(self.conv(x))

    network = Network()
    with torch.no_grad():
        network.conv.weight.copy_(torch.tensor([1.0, -1.0, 0.0]).view(3, 1, 1, 1))
        network.conv.bias.zero_()
        network.block.first.weight.zero_()
        network.block.first.bias.copy_(torch.tensor([1.0, -1.0, -1.0]))
    image = torch.zeros(2, 1, 4, 4)
    image[1, 0, 2, 3] = 1.0  # one pixel of one image is enough
    with watched(network) as watch:
        network(image)
        network(image)
    assert counts(watch) == [("conv", "relu", 3, 2), ("block.first", "relu", 3, 2)]


def test_nothing_is_watched_afterwards_and_gradients_flow_meanwhile():
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    with watched(network) as watch:
        network(torch.ones(1, 2)).sum().backward()
    assert network[0].weight.grad is not None
    before = counts(watch)
    torch.relu(torch.ones(7))
    network(torch.full((1, 2), -5.0))
    assert counts(watch) == before
    assert not network._forward_pre_hooks and not network[0]._forward_pre_hooks


@pytest.mark.parametrize("core", ["elstm-rtrl", "rtu"])
def test_the_gates_of_cores_may_be_shut(core):
    spec = EnvSpec("toy", {"observation": ArraySpec((3,))}, ActionSpec("discrete", 2))
    from offbeat.agents import r2ac

    agent = make_agent("r2ac", r2ac.Config(torso="mlp", core=core, core_size=4), spec)
    with watched(agent.network) as watch:
        inputs = Inputs({"observation": torch.randn(1, 5, 3)}, torch.zeros(1, 5, dtype=torch.bool))
        agent.act(inputs, agent.initial_state(5), torch.Generator())
    assert [layer.name for layer in watch.layers] == ["torso.mlp.0", "torso.mlp.2"]


def test_every_activation_of_every_torso_is_seen():
    spec = EnvSpec("toy", {"observation": ArraySpec((4, 84, 84), "uint8")}, ActionSpec("discrete", 2))
    expected = {"nature": 4, "shallow": 3, "resnet": 14, "deep1": 14}
    for torso, count in expected.items():
        agent = make_agent("impala", impala.Config(torso=torso), spec)
        with watched(agent.network) as watch:
            image = torch.randint(0, 256, (1, 2, 4, 84, 84), dtype=torch.uint8)
            agent.act(Inputs({"observation": image}, torch.zeros(1, 2, dtype=torch.bool)), {}, torch.Generator())
        assert len(watch.layers) == count, (torso, counts(watch))
