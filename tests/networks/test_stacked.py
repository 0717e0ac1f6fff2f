"""Layers of traced cores: exact within each, and what is left out is what lies between them."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from offbeat.networks.elstm import ELSTM
from offbeat.networks.rtu import RTU
from offbeat.networks.stacked import Stacked
from tests.networks.recurrences import draw, gradients, over_segments


def make(kind=ELSTM, layers: int = 2, gradient: str = "rtrl") -> Stacked:
    """Layers in float64, always with the same weights."""
    torch.manual_seed(0)
    return Stacked(partial(kind, hidden_size=6, gradient=gradient), 4, layers).double()


@pytest.mark.parametrize(("kind", "width"), [(ELSTM, 6), (RTU, 12)])
def test_within_one_unroll_all_is_exact(kind, width):
    x, first, weight = draw(12, 3, 4, width)
    whole = over_segments(make(kind, 2, "tbptt"), x, first, weight, (0,))
    for name, value in over_segments(make(kind), x, first, weight, (0,)).items():
        torch.testing.assert_close(value, whole[name], msg=name)


@pytest.mark.parametrize(("kind", "width"), [(ELSTM, 6), (RTU, 12)])
def test_the_last_layer_is_exact_over_unrolls_and_the_first_nearer_than_truncated(kind, width):
    x, first, weight = draw(30, 3, 4, width)
    cuts = (0, 5, 10, 15, 20, 25)
    whole = over_segments(make(kind, 2, "tbptt"), x, first, weight, (0,))
    found = over_segments(make(kind), x, first, weight, cuts)
    truncated = over_segments(make(kind, 2, "tbptt"), x, first, weight, cuts)
    far = {"0": 0.0, "1": 0.0}
    cut = dict(far)
    for name, value in whole.items():
        layer = name.split(".")[1]
        far[layer] += (found[name] - value).square().sum().item()
        cut[layer] += (truncated[name] - value).square().sum().item()
    assert far["1"] < 1e-20
    assert 0 < far["0"] < cut["0"]


def test_follows_and_advances_layer_by_layer():
    core = make()
    x, first, weight = draw(5, 2, 4, 6)
    start = {name: torch.randn_like(value) for name, value in core.initial_state(2).items()}
    carry = {name: start[name] for name in core.carried}
    trace = {name: value.clone() for name, value in start.items() if name not in carry}
    output, state = core(x, start, first)
    (output * weight).sum().backward()
    expected = gradients(core)
    core.zero_grad()
    output, after, steps = core.follow(x, carry, first, trace, [0, 1], 5)
    (output * weight).sum().backward()
    core.advance(trace, [0, 1], steps)
    for name, value in gradients(core).items():
        torch.testing.assert_close(value, expected[name], msg=name)
    for name, value in ({name: kept.detach() for name, kept in after.items()} | trace).items():
        torch.testing.assert_close(value, state[name], msg=name)


def test_needs_a_layer():
    with pytest.raises(ValueError, match="layers=0"):
        make(layers=0)
