"""The flat optimiser against torch's own on single parameters."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from offbeat.runtime.learner import LearnerConfig
from offbeat.runtime.optimiser import FlatOptimiser


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))


def loss_of(network: nn.Module, step: int) -> torch.Tensor:
    inputs = torch.randn(7, 3, generator=torch.Generator().manual_seed(step))
    return network(inputs).pow(2).sum() * 30


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 1e9])
@pytest.mark.parametrize(
    "options",
    [{"optimizer": "rmsprop", "epsilon": 0.01, "rmsprop_momentum": 0.5}, {"optimizer": "adam", "epsilon": 1e-8}],
    ids=["rmsprop", "adam"],
)
def test_it_steps_like_torch(options: dict[str, Any], clip_norm: float) -> None:
    config = LearnerConfig(learning_rate=0.01, clip_norm=clip_norm, **options)
    network = make_network()
    other = copy.deepcopy(network)
    flat = FlatOptimiser(network, config)
    if config.optimizer == "adam":
        reference: torch.optim.Optimizer = torch.optim.Adam(other.parameters(), lr=0.01, eps=config.epsilon)
    else:
        reference = torch.optim.RMSprop(
            other.parameters(), lr=0.01, alpha=config.rmsprop_decay, eps=config.epsilon, momentum=0.5
        )
    for step in range(5):
        progress = step / 5
        flat.zero()
        reference.zero_grad()
        for own in (network, other):
            loss = loss_of(own, step)
            loss.backward()
        for group in reference.param_groups:
            group["lr"] = 0.01 * (1 - progress)
        want = torch.nn.utils.clip_grad_norm_(other.parameters(), clip_norm or 1e30)
        reference.step()
        norm, finite = flat.step(progress, loss.detach())
        assert finite
        torch.testing.assert_close(norm, want)
    for mine, theirs in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_learning_rate_falls_in_a_straight_line() -> None:
    rate = FlatOptimiser(make_network(), LearnerConfig(learning_rate=1.0, final_learning_rate=0.5)).learning_rate
    assert [rate(progress) for progress in (-1.0, 0.0, 0.5, 1.0, 2.0)] == [1.0, 1.0, 0.75, 0.5, 0.5]
    constant = FlatOptimiser(make_network(), LearnerConfig(learning_rate=0.3, schedule="constant")).learning_rate
    assert constant(0.9) == 0.3


@pytest.mark.parametrize(("loss", "gradient"), [(1.0, float("nan")), (1.0, float("inf")), (float("nan"), 1.0)])
def test_what_is_not_finite_changes_nothing(loss: float, gradient: float) -> None:
    network = make_network()
    optimiser = FlatOptimiser(network, LearnerConfig())
    loss_of(network, 0).backward()
    optimiser.step(0.0, torch.tensor(1.0))
    weights, state = optimiser.flat.clone(), optimiser.state()
    optimiser.zero()
    optimiser.grad[3] = gradient
    _, finite = optimiser.step(0.0, torch.tensor(loss))
    assert not finite
    assert torch.equal(optimiser.flat, weights)
    assert all(torch.equal(value, state[name]) for name, value in optimiser.state().items())


@pytest.mark.parametrize("kind", ["rmsprop", "adam"])
def test_a_saved_state_goes_on_bit_for_bit(kind: Any) -> None:
    config = LearnerConfig(optimizer=kind)
    network = make_network()
    optimiser = FlatOptimiser(network, config)

    def work(optimiser: FlatOptimiser, network: nn.Module, steps: range) -> torch.Tensor:
        for step in steps:
            optimiser.zero()
            loss_of(network, step).backward()
            optimiser.step(0.0, torch.tensor(0.0))
        return optimiser.flat.clone()

    work(optimiser, network, range(3))
    other = make_network()
    other.load_state_dict(network.state_dict())
    resumed = FlatOptimiser(other, config)
    resumed.load_state(optimiser.state())
    assert torch.equal(work(optimiser, network, range(3, 6)), work(resumed, other, range(3, 6)))
