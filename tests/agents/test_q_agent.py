"""What value-based agents share: how much they explore, what they note down, when the target network is renewed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offbeat.agents import apex, dqn, r2d2, rainbow
from offbeat.agents.base import Explores, learner_states
from offbeat.agents.q_agent import QAgent, explore
from offbeat.agents.target import TargetNetwork
from offbeat.algorithms.priorities import epsilon_ladder
from offbeat.types import LEGAL
from tests.agents.items import any_inputs, make_transition, masked_spec, unlike
from tests.agents.unrolls import BOX, make_spec, row

MODULES = [dqn, apex, rainbow, r2d2]
SMALL: dict[str, Any] = {"hidden_size": (8,), "head_size": 6}


def make_agent(module: Any = dqn, spec: Any = None, **options: Any) -> QAgent:
    torch.manual_seed(0)
    small = SMALL | ({"core_size": 4} if module is r2d2 else {})
    return module.Agent(module.Config(**(small | options)), spec or make_spec())


def kept(agent: QAgent) -> TargetNetwork:
    """What the learner keeps of it."""
    return agent.learner_states()["target"]


@pytest.mark.parametrize("module", MODULES)
def test_every_agent_explores_and_has_a_target(module: Any) -> None:
    agent = make_agent(module)
    assert isinstance(agent, Explores)
    assert list(learner_states(agent)) == ["target"]
    assert set(agent.row_extras()) == {"q", "q_max"}
    assert agent.wants_last == (module is r2d2)
    assert agent.items.kind == ("sequence" if module is r2d2 else "transition")
    assert agent.items.n == agent.config.n_step


def test_the_ladder_goes_across_all_environments_of_the_run() -> None:
    agent = make_agent(apex)
    ladder = epsilon_ladder(12).numpy()
    parts = [agent.exploration(np.arange(4 * worker, 4 * worker + 4), 12, 10**6) for worker in range(3)]
    assert all(part.dtype == np.float32 for part in parts)
    np.testing.assert_allclose(np.concatenate(parts), ladder, rtol=1e-6)
    np.testing.assert_allclose(agent.exploration(np.array([7, 2]), 12, 0), ladder[[7, 2]], rtol=1e-6)
    assert agent.exploration(np.array([0]), 1, 0) == np.float32(0.4)


def test_linear_exploration_falls_straight_and_stays() -> None:
    agent = make_agent(epsilon_start=0.8, epsilon_end=0.2, explore=100)
    got = [float(agent.exploration(np.arange(3), 3, steps)[1]) for steps in (0, 25, 50, 100, 1000)]
    assert got == pytest.approx([0.8, 0.65, 0.5, 0.2, 0.2])
    assert agent.exploration(np.arange(3), 3, 0).dtype == np.float32


def test_exploring_draws_each_legal_action_alike_and_no_other() -> None:
    count = 30_000
    masked = torch.tensor([[3.0, -1e30, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0], [-1e30, -1e30, 5.0, -1e30]])
    for i, epsilon in ((0, 0.6), (1, 1.0), (2, 0.5), (1, 0.0)):
        best = masked[i].argmax().expand(count)
        generator = torch.Generator().manual_seed(i)
        action = explore(best, masked[i].expand(count, 4), torch.full((count,), epsilon), generator)
        frequency = torch.bincount(action, minlength=4) / count
        legal = (masked[i] > -1e29).float()
        expected = epsilon * legal / legal.sum()
        expected[best[0]] += 1 - epsilon
        torch.testing.assert_close(frequency, expected, rtol=0, atol=0.015)
        assert (frequency[legal == 0] == 0).all()


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0])
def test_exploring_may_repeat_the_last_action(epsilon: float) -> None:
    agent, count, repeat = make_agent(explore_repeat=0.75), 40_000, 0.75
    assert agent.wants_last
    inputs = row(any_inputs(agent.spec, 1, 1), 0)
    inputs.observation = {key: value.expand(1, count, *value.shape[2:]) for key, value in inputs.observation.items()}
    inputs.epsilon = torch.full((1, count), epsilon)
    best = int(agent.act(inputs, {}, None, greedy=True).action[0])
    last = (best + 1) % 3
    inputs.last_action = torch.full((1, count), last)
    for first in (False, True):
        inputs.first = torch.full((1, count), first)
        action = agent.act(inputs, {}, torch.Generator().manual_seed(0)).action
        found = torch.bincount(action, minlength=3) / count
        uniform = epsilon * (1 - repeat)  # of the first row, where nothing can be repeated, those that draw
        wanted = torch.full((3,), uniform / 3)
        wanted[best] += 1 - epsilon
        wanted[last] += epsilon * repeat
        if first:
            drawn = uniform / (1 - epsilon * repeat)
            wanted = torch.full((3,), drawn / 3)
            wanted[best] += 1 - drawn
        torch.testing.assert_close(found, wanted, rtol=0, atol=0.012)


def test_what_was_repeated_stays_legal() -> None:
    agent = make_agent(spec=masked_spec(), explore_repeat=0.9)
    inputs = any_inputs(agent.spec, 1, 500)
    inputs.epsilon = torch.ones(1, 500)
    action = agent.act(inputs, {}, torch.Generator().manual_seed(0)).action
    assert inputs.observation[LEGAL][0].gather(-1, action[:, None]).all()
    assert inputs.last_action is not None
    barred = ~inputs.observation[LEGAL][0].gather(-1, inputs.last_action[0][:, None].long()).squeeze(-1)
    assert barred.any() and (action != inputs.last_action[0])[barred].all()
    for wrong in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"explore_repeat=.* is out of range; allowed: 0 or above, below 1"):
            make_agent(explore_repeat=wrong)


def test_each_environment_explores_by_its_own_epsilon() -> None:
    agent = make_agent(spec=masked_spec())
    inputs = any_inputs(agent.spec, 1, 1)
    inputs.observation = {key: value.expand(1, 8000, *value.shape[2:]) for key, value in inputs.observation.items()}
    inputs.first = inputs.first.expand(1, 8000)
    inputs.epsilon = torch.cat([torch.zeros(4000), torch.full((4000,), 0.8)])[None]
    greedy = agent.act(inputs, {}, None, greedy=True).action
    action = agent.act(inputs, {}, torch.Generator().manual_seed(0)).action
    assert torch.equal(action[:4000], greedy[:4000])
    assert (action[4000:] != greedy[4000:]).float().mean().item() == pytest.approx(0.4, abs=0.03), "of two legal ones"
    assert inputs.observation[LEGAL][0].gather(-1, action[:, None]).all()
    again = agent.act(inputs, {}, torch.Generator().manual_seed(0)).action
    assert torch.equal(action, again)


@pytest.mark.parametrize("module", MODULES)
def test_extras_are_the_values_of_the_action_taken_and_of_the_best_legal_one(module: Any) -> None:
    options = {"noisy_sigma": 0.0} if module is rainbow else {}
    agent = make_agent(module, masked_spec(), **options)
    inputs = any_inputs(agent.spec, 1, 64)
    inputs.epsilon = torch.ones(1, 64)
    state = agent.initial_state(64)
    output = agent.act(inputs, state, torch.Generator().manual_seed(0))
    value = agent.values(agent.forward(agent.network, inputs, state).value[0]).detach()
    legal = inputs.observation[LEGAL][0]
    assert len(set(output.action.tolist())) == 3
    for b in range(64):
        assert output.extras["q"][b] == value[b, output.action[b]]
        assert output.extras["q_max"][b] == max(value[b, a] for a in range(3) if legal[b, a])
        assert legal[b, output.action[b]]
    assert (output.extras["q"] <= output.extras["q_max"]).all()
    assert all(extra.dtype == torch.float32 and not extra.requires_grad for extra in output.extras.values())


def test_without_epsilon_and_when_greedy_nothing_is_drawn() -> None:
    agent = make_agent()
    inputs = any_inputs(agent.spec, 1, 32)
    before = torch.get_rng_state()
    best = agent.act(inputs, {}, None).action
    inputs.epsilon = torch.ones(1, 32)
    assert torch.equal(agent.act(inputs, {}, None, greedy=True).action, best)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_target_is_made_when_it_is_first_needed_and_then_renewed_whole() -> None:
    agent = make_agent(target_period=3)
    inputs = row(any_inputs(agent.spec, 1, 4), 0)
    agent.act(inputs, {}, None)
    assert kept(agent)._copy is None, "actors need none"
    names = dict(agent.network.named_parameters())
    initial = {name: weight.detach().clone() for name, weight in names.items()}
    assert all(torch.equal(value, initial[name]) for name, value in kept(agent).state().items())
    assert not any(weight.requires_grad for weight in agent.target.parameters())
    for updates in range(1, 7):
        with torch.no_grad():
            for weight in names.values():
                weight += 1.0
        kept(agent).trained(None, updates)
        renewed = updates - updates % 3
        for name, value in kept(agent).state().items():
            torch.testing.assert_close(value, initial[name] + renewed)


def test_the_target_can_follow_slowly() -> None:
    """Polyak averaging: target += rate (online - target), in every ``target_period``-th update."""
    agent = make_agent(target_period=2, target_rate=0.25)
    unlike(agent)
    online = {name: weight.detach().clone() for name, weight in agent.network.named_parameters()}
    expected = kept(agent).state()
    expected = {name: value.clone() for name, value in expected.items()}
    for updates in range(1, 6):
        kept(agent).trained(None, updates)
        if updates % 2 == 0:
            expected = {name: 0.75 * value + 0.25 * online[name] for name, value in expected.items()}
        for name, value in kept(agent).state().items():
            torch.testing.assert_close(value, expected[name])
    assert all(torch.equal(weight, online[name]) for name, weight in agent.network.named_parameters())


@pytest.mark.parametrize(("jumps", "times"), [([3], 1), ([2, 5], 1), ([4, 5], 1), ([2, 9], 3), ([1, 2], 0)])
def test_multiples_that_others_updates_passed_count(jumps: list[int], times: int) -> None:
    """Of several learners each hears only of its own updates; the first one that it hears of may be any."""
    agent = make_agent(target_period=3, target_rate=0.25)
    unlike(agent)
    online = {name: weight.detach().clone() for name, weight in agent.network.named_parameters()}
    expected = {name: value.clone() for name, value in kept(agent).state().items()}
    if jumps == [4, 5]:
        kept(agent).trained(None, 2)
    for updates in jumps:
        kept(agent).trained(None, updates)
    for _ in range(times):
        expected = {name: 0.75 * value + 0.25 * online[name] for name, value in expected.items()}
    for name, value in kept(agent).state().items():
        torch.testing.assert_close(value, expected[name])


def test_target_weights_are_saved_and_loaded() -> None:
    agent, other = make_agent(), make_agent()
    unlike(agent)
    batch = make_transition(agent)
    assert not torch.equal(agent.loss(batch, 0.0).loss, other.loss(batch, 0.0).loss)
    kept(other).load_state(kept(agent).state())
    assert torch.equal(agent.loss(batch, 0.0).loss, other.loss(batch, 0.0).loss)


def test_the_target_follows_the_memory_layout_of_images() -> None:
    agent = make_agent(spec=make_spec("image"))
    assert not agent.target.channels_last
    agent.network.channels_last = True
    assert agent.target.channels_last


@pytest.mark.parametrize("module", MODULES)
def test_continuous_actions_are_refused(module: Any) -> None:
    with pytest.raises(ValueError, match="value-based agents need discrete actions"):
        make_agent(module, make_spec(action=BOX))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"discount": 1.5}, "discount=1.5 is out of range; allowed: 0 to 1"),
        ({"epsilon_end": -0.1}, "epsilon_end=-0.1 is out of range; allowed: 0 to 1"),
        ({"ladder_base": 1.1}, "ladder_base=1.1 is out of range; allowed: 0 to 1"),
        ({"n_step": 0}, "n_step=0 is out of range; allowed: 1 or above"),
        ({"target_period": 0}, "target_period=0 is out of range; allowed: 1 or above"),
        ({"target_rate": 0.0}, "target_rate=0.0 is out of range; allowed: above 0, up to 1"),
        ({"feature_size": -2}, "feature_size=-2 is out of range; allowed: -1 or above"),
    ],
)
def test_config_says_what_is_out_of_range(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dqn.Config(**options)
