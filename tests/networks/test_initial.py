"""Initial weights: orthogonal or Glorot's, unit rows, zero biases, layers of every kind; whose option it is."""

from __future__ import annotations

import torch
from torch import nn

from offbeat.agents import impala
from offbeat.networks.encoder import EncoderConfig
from offbeat.networks.initial import make_glorot, make_orthogonal, make_unit_rows
from offbeat.networks.q_network import QNetwork
from offbeat.types import OBSERVATION, ActionSpec, ArraySpec, EnvSpec
from tests.agents.unrolls import make_spec


def gram(layer: nn.Module) -> torch.Tensor:
    """The products of a layer's rows, [width, width]."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    rows = layer.weight.detach().flatten(1)
    return rows @ rows.T


def test_orthogonal_weights_and_no_biases() -> None:
    torch.manual_seed(0)
    part = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.Linear(16, 10), nn.Linear(16, 4, bias=False))
    make_orthogonal(part, 3.0)
    for layer in (part[0], part[2], part[3]):
        products = gram(layer)
        torch.testing.assert_close(products, 9.0 * torch.eye(len(products)), rtol=1e-4, atol=1e-4)
    assert not part[0].bias.any() and not part[2].bias.any()


def test_q_network() -> None:
    torch.manual_seed(0)
    made = QNetwork(EncoderConfig(init="orthogonal"), make_spec("image"), duel=True)
    assert made.head.value is not None
    for layer, gain in ((made.torso.image_layer, 2.0), (made.head.advantage[-1], 1.0), (made.head.value[-1], 1.0)):
        assert isinstance(layer, nn.Linear)
        torch.testing.assert_close(gram(layer), gain * torch.eye(layer.out_features), rtol=1e-4, atol=1e-4)
        assert not layer.bias.any()


def test_glorot_weights_fill_their_range_and_biases_are_zero() -> None:
    torch.manual_seed(0)
    part = nn.Sequential(nn.Conv2d(3, 8, 4), nn.ReLU(), nn.Linear(96, 64), nn.Linear(64, 40, bias=False))
    make_glorot(part)
    bounds = (6 / (3 * 16 + 8 * 16)) ** 0.5, (6 / (96 + 64)) ** 0.5, (6 / (64 + 40)) ** 0.5
    for layer, bound in zip((part[0], part[2], part[3]), bounds, strict=True):
        weight = layer.weight.detach()
        assert 0.95 * bound < float(weight.abs().max()) <= bound
        assert abs(float(weight.std()) / bound - 3**-0.5) < 0.05, "uniform"
    assert not part[0].bias.any() and not part[2].bias.any()


def test_rows_of_heads_have_the_length_that_is_asked_for() -> None:
    torch.manual_seed(0)
    head = nn.Linear(512, 300)
    make_unit_rows(head, 0.001)
    rows = head.weight.detach()
    torch.testing.assert_close(rows.norm(dim=1), torch.full((300,), 0.001))
    alike = (rows @ rows.T / 0.001**2).fill_diagonal_(0.0)
    assert float(alike.abs().max()) < 0.3, "directions are drawn, each by itself"
    assert abs(float(rows.mean())) < 1e-6 and not head.bias.any()


def test_glorot_is_what_networks_begin_with() -> None:
    """Torso, policy 0.001, value 1, as the V-trace platform has them; and heads of action values."""
    torch.manual_seed(0)
    config = impala.Config(torso="strided", init="glorot", policy_init_scale=0.001)
    network = impala.Network(config, make_spec("image"))
    lengths = network.policy.linear.weight.norm(dim=1), network.value.linear.weight.norm(dim=1)
    torch.testing.assert_close(lengths, (torch.full((len(lengths[0]),), 0.001), torch.ones(1)))
    convolution, layer = network.torso.trunks[0][2], network.torso.image_layer
    for part, bound in ((convolution, (6 / (9 * 128)) ** 0.5), (layer, (6 / sum(layer.weight.shape)) ** 0.5)):
        assert 0.99 * bound < float(part.weight.detach().abs().max()) <= bound
    assert not any(value.any() for name, value in network.named_parameters() if name.endswith("bias"))
    made = QNetwork(EncoderConfig(init="glorot"), make_spec("image"), duel=True)
    assert made.head.value is not None
    torch.testing.assert_close(made.head.value[-1].weight.norm(), torch.tensor(1.0))


def test_the_platform_network_has_its_number_of_weights() -> None:
    """Published: 2,738,181 with 4 actions, of which a layer of 512 x 512 is never trained and left out here."""
    picture = {OBSERVATION: ArraySpec((4, 84, 84), "uint8", 0.0, 255.0)}
    network = impala.Network(impala.Config(torso="strided"), EnvSpec("x", picture, ActionSpec("discrete", 4)))
    assert sum(weight.numel() for weight in network.parameters()) + 512 * 512 + 512 == 2_738_181
