"""IMPALA's loss in few steps against autograd: gradients are equal bit by bit, numbers nearly so."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from offbeat.agents import joined_loss as module
from offbeat.agents.impala import Agent, Config
from offbeat.agents.joined_loss import NUMBERS, Constants, Rows, joined_loss, joins, missing, plain_loss
from tests.agents.unrolls import make_spec, make_unroll, with_episode_ends

CONSTANTS = Constants(1.0, 0.9, 1.1, 0.95, 0.3, 0.007)


def make_rows(steps: int, width: int, choices: int, seed: int, share: float = 0.8) -> tuple[Tensor, Tensor, Rows]:
    """Random logits and values that want gradients, and rows; ``share`` of them count."""
    draw = torch.Generator().manual_seed(seed)
    lead = (steps, width)
    policy = 3 * torch.randn(steps + 1, width, choices, generator=draw)
    value = torch.randn(steps + 1, width, generator=draw)
    rows = Rows(
        policy[:-1] + torch.randn(*lead, choices, generator=draw),
        torch.randint(choices, lead, generator=draw),
        torch.randn(*lead, generator=draw),
        0.99 * (torch.rand(*lead, generator=draw) < 0.9),
        torch.rand(*lead, generator=draw) < share,
    )
    return policy.requires_grad_(), value.requires_grad_(), rows


def gradients(loss: Tensor, policy: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    """Of ``loss`` by both."""
    return torch.autograd.grad(loss, [policy, value])


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal, what is no number included."""
    return torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0))


def test_this_torch_and_numba_agree() -> None:
    assert missing() == ""


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 40, 3), (5, 32, 6), (20, 8, 2), (20, 17, 18), (3, 5, 1)])
@pytest.mark.parametrize("share", [0.0, 0.7, 1.0])
def test_gradients_are_those_of_autograd(shape: tuple[int, int, int], share: float) -> None:
    for seed in range(4):
        policy, value, rows = make_rows(*shape, seed, share)
        ours, numbers = joined_loss(policy, value, rows, CONSTANTS)
        known = plain_loss(policy, value, rows, CONSTANTS)
        for one, other in zip(gradients(ours, policy, value), gradients(known, policy, value), strict=True):
            assert torch.equal(one, other)
        torch.testing.assert_close(ours, known, rtol=1e-5, atol=1e-5)
        assert tuple(numbers) == NUMBERS and not any(number.requires_grad for number in numbers.values())


@pytest.mark.parametrize("wild", [float("inf"), -float("inf"), float("nan"), -1e30, 1e30, 88.0])
def test_gradients_are_those_of_autograd_whatever_the_numbers(wild: float) -> None:
    for where in ("policy", "value", "behaviour_logits", "reward", "discount"):
        policy, value, rows = make_rows(4, 6, 3, 1)
        with torch.no_grad():
            target = {"policy": policy, "value": value}.get(where)
            target = getattr(rows, where) if target is None else target
            target[1, 2] = wild
            target[(2, 3, 0)[: target.dim()]] = wild
        ours, _ = joined_loss(policy, value, rows, CONSTANTS)
        known = plain_loss(policy, value, rows, CONSTANTS)
        for one, other in zip(gradients(ours, policy, value), gradients(known, policy, value), strict=True):
            assert same_bits(one, other), where
        assert bool(torch.isfinite(ours)) == bool(torch.isfinite(known)), where


def test_a_multiple_of_the_loss_has_a_multiple_of_its_gradients() -> None:
    policy, value, rows = make_rows(5, 4, 3, 2)
    once = gradients(joined_loss(policy, value, rows, CONSTANTS)[0], policy, value)
    twice = gradients(2.0 * joined_loss(policy, value, rows, CONSTANTS)[0], policy, value)
    assert all(torch.equal(2 * one, two) for one, two in zip(once, twice, strict=True))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_an_agent_learns_the_same_and_tells_the_same(reduction: str) -> None:
    torch.manual_seed(0)
    agent = Agent(Config(hidden_size=(8,), reduction=reduction, entropy_cost=0.02), make_spec())
    batch = make_unroll(agent, *with_episode_ends(agent.spec))
    found = []
    for published in (True, False):
        agent._three_terms = published
        agent.network.zero_grad()
        output = agent.loss(batch, 0.0)
        assert ("_Known" in type(output.total.grad_fn).__name__) == published
        output.total.backward()  # type: ignore[no-untyped-call]
        grads = [None if one.grad is None else one.grad.clone() for one in agent.network.parameters()]
        found.append((output, grads))
    (ours, grads), (plain, known) = found
    assert all(one is not None and other is not None and torch.equal(one, other) for one, other in zip(grads, known))
    assert ours.metrics.keys() == plain.metrics.keys() and (ours.count is None) == (plain.count is None)
    assert ours.count is None or torch.equal(torch.as_tensor(ours.count), torch.as_tensor(plain.count))
    for name, value in plain.metrics.items():
        torch.testing.assert_close(ours.metrics[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    "options",
    [{"trust_region": 0.3}, {"policy_cloning_cost": 0.1}, {"value_cloning_cost": 0.1}, {"entropy_on": "online"}],
)
def test_losses_with_more_terms_are_left_to_autograd(options: dict[str, float | str]) -> None:
    assert not Agent(Config(hidden_size=(8,), **options), make_spec())._three_terms  # type: ignore[arg-type]


def test_it_is_asked_only_where_it_can() -> None:
    policy, value, rows = make_rows(3, 4, 2, 0)
    assert joins(policy, value, rows)
    assert not joins(policy.detach(), value, rows), "no gradient is wanted"
    assert not joins(policy.double(), value, rows)
    assert not joins(policy, value[:-1], rows)
    assert not joins(policy, value, rows._replace(reward=rows.reward[:, :1]))
    assert not joins(policy, value, rows._replace(action=rows.action.int()))
    assert not joins(policy, value, rows._replace(behaviour_logits=rows.behaviour_logits[..., :1]))


def test_where_results_differ_autograd_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing", lambda: "it gives other results")
    policy, value, rows = make_rows(3, 4, 2, 0)
    assert not joins(policy, value, rows)
    agent = Agent(Config(hidden_size=(8,)), make_spec())
    assert (
        "_Known" not in type(agent.loss(make_unroll(agent, *with_episode_ends(agent.spec)), 0.0).total.grad_fn).__name__
    )
