"""Heads: shapes, initial scale, and the units of continuous actions."""

from __future__ import annotations

import pytest
import torch

from offbeat.networks.heads import CategoricalHead, GaussianHead, ValueHead
from offbeat.types import ActionSpec


def test_shapes():
    features = torch.randn(3, 2, 8)
    assert CategoricalHead(8, 5)(features).shape == (3, 2, 5)
    assert ValueHead(8)(features).shape == (3, 2)
    mean, log_std = GaussianHead(8, ActionSpec("continuous", shape=(2,), low=(-1, -1), high=(1, 1)))(features)
    assert mean.shape == log_std.shape == (3, 2, 2)


def test_small_initial_scale_starts_near_uniform():
    logits = CategoricalHead(8, 5, init_scale=0.0)(torch.randn(3, 2, 8))
    assert (logits == 0).all()


def test_continuous_actions_start_in_the_middle_of_their_bounds():
    inf = float("inf")
    spec = ActionSpec("continuous", shape=(3,), low=(-2.0, 10.0, -inf), high=(2.0, 20.0, inf))
    mean, log_std = GaussianHead(8, spec, init_scale=0.0, init_log_std=-1.0)(torch.randn(4, 8))
    torch.testing.assert_close(mean, torch.tensor([0.0, 15.0, 0.0]).expand(4, 3))
    torch.testing.assert_close(log_std, (torch.tensor([2.0, 5.0, 1.0]).log() - 1.0).expand(4, 3))


def test_heads_give_float32_under_autocast():
    features = torch.randn(3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert CategoricalHead(8, 5)(features).dtype == torch.float32
        assert ValueHead(8)(features).dtype == torch.float32


def test_values_and_logits_are_not_rounded_under_autocast() -> None:
    features = torch.full((3, 4), 0.5, dtype=torch.bfloat16)
    head = ValueHead(4)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0 + 2**-8]]))
        head.linear.bias.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        value = head(features)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, torch.full((3,), 2.0 + 2**-9), rtol=0, atol=0)


@pytest.mark.parametrize(("low", "high", "centre"), [(2.0, 2.0, 2.0), (-3.4e38, 3.4e38, 0.0), (-1e20, 5.0, 0.0)])
def test_odd_bounds_give_policies_that_learn(low: float, high: float, centre: float) -> None:
    """An empty range, and bounds whose difference overflows."""
    head = GaussianHead(4, ActionSpec("continuous", shape=(2,), low=(low, -1.0), high=(high, 1.0)), init_scale=0.01)
    mean, log_std = head(torch.randn(5, 4))
    normal = torch.distributions.Normal(mean, log_std.exp())
    loss = -normal.log_prob(normal.sample()).sum()
    loss.backward()
    assert torch.isfinite(mean).all() and torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)
    assert mean[:, 0].detach().sub(centre).abs().max() < 0.2
    if low == high:
        assert (mean[:, 0] == low).all()
