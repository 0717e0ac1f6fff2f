"""Initial weights: orthogonal rows times the gain, zero biases, layers of every kind; whose option it is."""

from __future__ import annotations

import torch
from torch import nn

from offbeat.networks.encoder import EncoderConfig
from offbeat.networks.initial import make_orthogonal
from offbeat.networks.q_network import QNetwork
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
