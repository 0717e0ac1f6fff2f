"""Convolutions of few channels: torch's own code gives what oneDNN gives, and is taken just where it is meant to be."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from offbeat.networks import narrow
from offbeat.networks.deep_impala import DeepImpala
from offbeat.networks.image_conv import Conv, ImageConv
from offbeat.networks.narrow import is_narrow, narrow_conv


@pytest.mark.parametrize(("found", "made", "padding"), [(1, 1, 0), (1, 2, 1), (2, 2, 1), (2, 1, 0)])
def test_results_and_gradients_are_those_of_the_public_function(found: int, made: int, padding: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(found, made, 3, padding=padding)
    x = torch.randn(5, found, 12, 9, requires_grad=True)
    ours = narrow_conv(layer, x, layer.weight, layer.bias)
    plain = functional.conv2d(x, layer.weight, layer.bias, padding=padding)
    torch.testing.assert_close(ours, plain)
    factor = torch.randn_like(plain)
    for a, b in zip(
        torch.autograd.grad((ours * factor).sum(), [x, *layer.parameters()]),
        torch.autograd.grad((plain * factor).sum(), [x, *layer.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_only_few_channels_in_full_precision_are_computed_so() -> None:
    x = torch.randn(1, 2, 8, 8)
    assert not narrow.missing()
    assert is_narrow(Conv(2, 2, 3), x)
    assert not is_narrow(Conv(2, 3, 3), x)
    assert not is_narrow(Conv(2, 2, 3).bfloat16(), x.bfloat16())
    assert not is_narrow(Conv(2, 2, 3, padding="same"), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_narrow(Conv(2, 2, 3), x)


def test_the_smallest_deep_torso_takes_it_for_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[nn.Conv2d] = []

    def counted(layer: nn.Conv2d, *rest: torch.Tensor) -> torch.Tensor:
        taken.append(layer)
        return narrow_conv(layer, *rest)

    torso = DeepImpala("deep1", (1, 84, 84), 1 / 16, 1 / 255)
    image = torch.randint(0, 256, (2, 1, 84, 84), dtype=torch.uint8)
    monkeypatch.setattr(narrow, "missing", lambda: "as where torch has it no more")
    plain = torso(image)
    monkeypatch.undo()
    monkeypatch.setattr("offbeat.networks.image_conv.narrow_conv", counted)
    torch.testing.assert_close(torso(image), plain)
    assert len(taken) == 15 and isinstance(taken[0], ImageConv)
