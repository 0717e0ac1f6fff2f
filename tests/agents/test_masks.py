"""Masks of legal actions, in every agent there is: only legal actions are taken, greedily or drawn, and learnt from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from offbeat.agents import impala
from offbeat.agents.base import Agent, policy_name
from offbeat.agents.make import agent_config_class, list_agents, make_agent
from offbeat.algorithms import actor_critic
from offbeat.algorithms.legal import FORBIDDEN
from offbeat.types import LEGAL, ArraySpec, EnvSpec, Inputs
from tests.agents.items import any_inputs, masked_spec, plain
from tests.agents.unrolls import BOX, change, make_spec, make_unroll

OPTIONS: dict[str, dict[str, Any]] = {
    "r2d2": {"core_size": 4, "head_size": 4},
    "rainbow": {"head_size": 4},
}


def make(name: str, spec: EnvSpec, **options: Any) -> Agent:
    torch.manual_seed(0)
    return make_agent(name, agent_config_class(name)(**OPTIONS.get(name, {}), **options), spec)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("name", list_agents())
def test_only_legal_actions_are_taken(name: str, greedy: bool) -> None:
    """Also where the only legal one is the last, and where a float says which are (Gymnasium's ``MultiBinary``)."""
    agent = make(name, masked_spec())
    inputs = any_inputs(agent.spec, 1, 300)
    inputs.observation[LEGAL][0, :100] = torch.tensor([False, False, True])
    inputs.epsilon = torch.full((1, 300), 0.5)
    for mask in (inputs.observation[LEGAL], inputs.observation[LEGAL].float()):
        inputs.observation[LEGAL] = mask
        output = agent.act(inputs, agent.initial_state(300), torch.Generator().manual_seed(0), greedy)
        assert mask[0].bool().gather(-1, output.action[:, None]).all()
        assert (output.action[:100] == 2).all()
        assert all(value.isfinite().all() for value in output.extras.values())


@pytest.mark.parametrize("name", list_agents())
def test_a_mask_is_no_feature_and_a_full_one_changes_nothing(name: str) -> None:
    agent, unmasked = make(name, masked_spec()), make(name, plain(masked_spec()))
    for (key, value), other in zip(agent.network.state_dict().items(), unmasked.network.state_dict().values()):
        assert torch.equal(value, other), key
    if name == "random":
        return  # draws otherwise without a mask
    inputs = any_inputs(plain(agent.spec), 1, 50)
    shown = replace(inputs, observation=inputs.observation | {LEGAL: torch.ones(1, 50, 3, dtype=torch.bool)})
    got, wanted = (
        one.act(seen, one.initial_state(50), torch.Generator().manual_seed(3))
        for one, seen in ((agent, shown), (unmasked, inputs))
    )
    assert torch.equal(got.action, wanted.action)
    for key, value in wanted.extras.items():
        torch.testing.assert_close(got.extras[key], value)


def test_random_draws_each_legal_action_alike() -> None:
    agent = make("random", masked_spec())
    inputs = any_inputs(agent.spec, 1, 30_000)
    inputs.observation[LEGAL][0] = torch.tensor([True, False, True])
    draws = [agent.act(inputs, {}, torch.Generator().manual_seed(seed)).action for seed in (1, 1, 2)]
    torch.testing.assert_close(torch.bincount(draws[0]) / 30_000, torch.tensor([0.5, 0, 0.5]), rtol=0, atol=0.01)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_noop_takes_the_first_legal_action_where_zero_is_none() -> None:
    agent = make("noop", masked_spec())
    inputs = any_inputs(agent.spec, 1, 4)
    inputs.observation[LEGAL][0] = torch.tensor([[True, True, True], [False, True, True], [False] * 3, [False, 0, 1]])
    assert agent.act(inputs, {}, None).action.tolist() == [0, 1, 0, 2]


def masked_unroll(agent: Agent) -> tuple[Any, torch.Tensor]:
    """Six rows of four streams; stream 0 ends with a row that only its last action is legal in, and starts anew."""
    inputs = any_inputs(agent.spec, 7, 4)
    valid = torch.ones(7, 4, dtype=torch.bool)
    valid[2, 0] = False
    inputs.first[3, 0] = True
    inputs.observation[LEGAL][2, 0] = torch.tensor([False, False, True])
    return make_unroll(agent, inputs, valid), inputs.observation[LEGAL]


@pytest.mark.parametrize("options", [{}, {"core": "lstm", "core_size": 8, "last_action": True}])
def test_impala_learns_from_the_masked_policy(options: dict[str, Any]) -> None:
    """Acting and training agree on it, nothing is infinite, and the loss is that of the legal actions alone."""
    agent = make("impala", masked_spec(), entropy_cost=0.1, **options)
    batch, legal = masked_unroll(agent)
    stored = batch.extras["behaviour_logits"]
    assert stored.isfinite().all() and stored.bfloat16().isfinite().all()
    assert (stored[~legal[:-1]] == FORBIDDEN).all() and (stored[legal[:-1]].abs() < 100).all()
    output = agent.loss(batch, 0.0)
    assert output.metrics["ratio_mean"].item() == pytest.approx(1.0, abs=1e-4)
    logits = agent.network(batch.inputs.observation, batch.inputs.first, batch.core_state, batch.inputs.last_action)
    entropy = 0.0
    for t in range(6):
        for b in range(4):
            p = logits.policy[t, b][legal[t, b]].softmax(-1)
            entropy -= (p * p.log()).sum().item() * batch.valid[t, b].item()
    assert -output.metrics["entropy_loss"].item() == pytest.approx(entropy, rel=1e-5)
    output.loss.backward()
    for name, weight in agent.network.named_parameters():
        assert weight.grad is not None and weight.grad.isfinite().all() and weight.grad.abs().sum() > 0, name


def test_impala_gives_no_gradient_to_logits_of_illegal_actions() -> None:
    agent = make("impala", masked_spec(), entropy_cost=0.1)
    batch, _ = masked_unroll(agent)
    batch.inputs.observation[LEGAL][..., 1] = False  # the second action is never legal
    batch = change(batch, action=torch.zeros_like(batch.action))
    batch.inputs.observation[LEGAL][..., 0] = True
    agent.loss(batch, 0.0).loss.backward()
    head = agent.network.policy.linear  # type: ignore[union-attr]
    assert (head.weight.grad[1] == 0).all() and head.bias.grad[1] == 0
    assert head.weight.grad[[0, 2]].abs().sum() > 0


def test_impala_in_bfloat16_stays_finite() -> None:
    agent = make("impala", masked_spec(), entropy_cost=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        batch, _ = masked_unroll(agent)
    with torch.autocast("cpu", torch.bfloat16):
        output = agent.loss(batch, 0.0)
    output.loss.backward()
    assert output.loss.isfinite() and all(value.isfinite() for value in output.metrics.values())
    assert all(weight.grad.isfinite().all() for weight in agent.network.parameters())  # type: ignore[union-attr]


def test_rows_that_a_dead_actor_left_do_no_harm() -> None:
    """Their action is 0, which may be illegal, and their logits are zeros; they are not valid."""
    agent = make("impala", masked_spec())
    batch, _ = masked_unroll(agent)
    batch.action[2, 0] = 0
    batch.extras["behaviour_logits"][2, 0] = 0.0
    output = agent.loss(batch, 0.0)
    output.loss.backward()
    assert output.loss.isfinite() and all(value.isfinite() for value in output.metrics.values())
    assert all(weight.grad.isfinite().all() for weight in agent.network.parameters())  # type: ignore[union-attr]


def test_sampling_follows_the_legal_probabilities() -> None:
    agent = make("impala", masked_spec())
    one = any_inputs(agent.spec, 1, 1)
    one.observation[LEGAL][0] = torch.tensor([True, False, True])
    inputs = Inputs(
        {k: v.expand(1, 20_000, *v.shape[2:]) for k, v in one.observation.items()}, one.first.expand(1, 20_000)
    )
    output = agent.act(inputs, {}, torch.Generator().manual_seed(0))
    probability = output.extras["behaviour_logits"][0].softmax(-1)
    assert probability[1] == 0
    torch.testing.assert_close(torch.bincount(output.action, minlength=3) / 20_000, probability, rtol=0, atol=0.015)
    taken = actor_critic.categorical_log_prob(output.extras["behaviour_logits"], output.action).exp()
    torch.testing.assert_close(taken, probability[output.action])


def test_a_mask_of_another_shape_is_named_where_the_spec_is_made() -> None:
    spec = make_spec()
    with pytest.raises(
        ValueError, match=r"observation 'legal_actions' has shape \[4\], .* must be \[3\]; .* another key"
    ):
        replace(spec, observation=spec.observation | {LEGAL: ArraySpec((4,), "bool")})
    box = replace(make_spec("vector", BOX), observation={LEGAL: ArraySpec((4,))})  # of a box nothing is masked
    assert set(box.features) == {LEGAL}
    assert set(masked_spec().features) == {"observation"}
    with pytest.raises(ValueError, match="players=0 is out of range"):
        replace(spec, players=0)


@pytest.mark.parametrize(
    ("name", "asked", "plays"),
    [
        ("impala", "greedy", "greedy"), ("impala", "sampled", "sampled"), ("dqn", "sampled", "greedy"),
        ("dqn", "greedy", "greedy"), ("apex", "sampled", "greedy"), ("r2d2", "sampled", "greedy"),
        ("rainbow", "sampled", "noisy"), ("rainbow", "greedy", "greedy"), ("random", "greedy", "sampled"),
        ("random", "sampled", "sampled"), ("noop", "sampled", "greedy"),
    ],
)  # fmt: skip
def test_an_agent_says_how_it_plays(name: str, asked: str, plays: str) -> None:
    """And plays so: what is called greedy gives the same actions whatever the generator."""
    agent = make(name, make_spec())
    assert policy_name(agent, asked == "greedy") == plays
    inputs = any_inputs(agent.spec, 1, 500)
    actions = [
        agent.act(inputs, agent.initial_state(500), torch.Generator().manual_seed(seed), asked == "greedy").action
        for seed in (1, 2)
    ]
    assert torch.equal(*actions) == (plays == "greedy")


def test_rainbow_without_noise_is_greedy() -> None:
    agent = make("rainbow", make_spec(), noisy_sigma=0.0)
    assert policy_name(agent, False) == "greedy"
    assert isinstance(make("impala", make_spec()), impala.Agent)
