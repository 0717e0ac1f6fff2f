"""The policy that an actor holds: states stay with their environments, weights come when asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offbeat.agents.impala import Agent, Config
from offbeat.networks.flat import flatten_parameters
from offbeat.runtime.params import ParamStore
from offbeat.runtime.policy import LocalPolicy
from offbeat.types import ActionSpec, ArraySpec, CoreState, EnvSpec, Inputs
from tests.agents.unrolls import make_inputs, make_spec, row
from tests.runtime.parts import private_params, same_arrays

COUNT = 4
SPEC = make_spec()


def make_agent(core: str = "lstm", seed: int = 0) -> Agent:
    """A small recurrent agent."""
    torch.manual_seed(seed)
    return Agent(Config(hidden_size=(6,), core=core, core_size=5, last_action=True, last_reward=True), SPEC)


def make_policy(seed: int = 3, **options: bool) -> tuple[LocalPolicy, ParamStore]:
    """A policy over weights of version 0 that are not those that its agent was made with."""
    policy = LocalPolicy(make_agent(seed=seed), private_params(1), COUNT, seed=7, **options)
    store = private_params(len(policy.flat))
    policy.params = store
    store.publish(LocalPolicy(make_agent(seed=0), store, COUNT, seed=0).flat, 0)
    policy.refresh()
    return policy, store


def some(inputs: Inputs, ids: np.ndarray) -> Inputs:
    """The inputs of environments ``ids``."""
    index = torch.from_numpy(ids)
    assert inputs.last_action is not None
    assert inputs.last_reward is not None
    observation = {key: value[:, index] for key, value in inputs.observation.items()}
    return Inputs(observation, inputs.first[:, index], inputs.last_action[:, index], inputs.last_reward[:, index])


def equal(one: CoreState, other: CoreState) -> bool:
    """The same states, within rounding of differently shaped products."""
    return all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)


def test_any_subset_in_any_order_keeps_each_environments_own_state() -> None:
    """Against an agent for each environment that never saw the others; greedy, so that no generator is shared."""
    policy, _ = make_policy(greedy=True)
    alone, rng = make_agent(), np.random.default_rng(1)
    states = [alone.initial_state(1) for _ in range(COUNT)]
    inputs = make_inputs(SPEC, 30, COUNT)
    everyone = np.arange(COUNT)
    for t in range(30):
        ids = rng.permutation(COUNT)[: rng.integers(1, COUNT + 1)]
        if t % 5 == 0:
            ids = everyone
        now = row(inputs, t)
        now.first[0] = torch.from_numpy(rng.random(COUNT) < 0.2)
        before = policy.core_state(everyone)
        output = policy.act(ids, some(now, ids))
        for place, env in enumerate(ids):
            assert equal(policy.core_state(np.array([env])), {n: v[[place]] for n, v in output.state.items()})
            with torch.inference_mode():
                own = alone.act(some(now, np.array([env])), states[env], None, greedy=True)
            states[env] = own.state
            assert output.action[place] == own.action[0]
            torch.testing.assert_close(
                output.extras["behaviour_logits"][place], own.extras["behaviour_logits"][0], rtol=1e-4, atol=1e-5
            )
        for env in np.setdiff1d(everyone, ids):
            assert equal(policy.core_state(np.array([env])), {n: v[[env]] for n, v in before.items()})
        for env in everyone:
            assert equal(policy.core_state(np.array([env])), states[env])


def test_the_core_state_given_is_the_one_before_the_next_act() -> None:
    policy, _ = make_policy()
    ids, inputs = np.arange(COUNT), make_inputs(SPEC, 2, COUNT)
    policy.act(ids, row(inputs, 0))
    before = {name: value.clone() for name, value in policy.core_state(ids).items()}
    with torch.inference_mode():
        expected = make_agent().act(row(inputs, 1), before, None, greedy=True)
    output = policy.act(ids, row(inputs, 1))
    assert equal(expected.state, output.state)
    assert not equal(before, output.state)


def test_refresh_takes_new_versions_and_only_then() -> None:
    policy, store = make_policy()
    assert policy.version == 0
    assert torch.equal(policy.flat, LocalPolicy(make_agent(), store, COUNT, seed=0).flat)
    mine = policy.flat.clone()
    store.publish(torch.full_like(policy.flat, 0.25), 3)
    policy.act(np.arange(COUNT), row(make_inputs(SPEC, 1, COUNT), 0))
    assert (policy.version, torch.equal(policy.flat, mine)) == (0, True), "weights change at refresh only"
    assert policy.refresh() == policy.version == 3
    assert (policy.flat == 0.25).all()
    policy.flat.fill_(9.0)
    assert policy.refresh() == 3
    assert (policy.flat == 9.0).all(), "the same version is not copied again"


def test_pulled_weights_are_those_of_the_network() -> None:
    policy, store = make_policy(greedy=True)
    ids, inputs = np.arange(COUNT), row(make_inputs(SPEC, 1, COUNT), 0)
    before = policy.act(ids, inputs).extras["behaviour_logits"]
    store.publish(torch.zeros_like(policy.flat), 1)
    policy.refresh()
    after = policy.act(ids, inputs).extras["behaviour_logits"]
    assert before.abs().min() > 0
    assert (after == 0).all()


@pytest.mark.parametrize("greedy", [False, True])
def test_a_saved_state_gives_the_same_actions(greedy: bool) -> None:
    policy, store = make_policy(greedy=greedy)
    ids, inputs = np.arange(COUNT), make_inputs(SPEC, 30, COUNT)
    for t in range(10):
        policy.act(ids, row(inputs, t))
    saved = {name: value.copy() for name, value in policy.state().items()}
    again = LocalPolicy(make_agent(seed=9), store, COUNT, seed=1234, greedy=greedy)
    again.load_state(saved)
    again.refresh()
    same_arrays(again.state(), saved)
    for t in range(10, 30):
        one, other = policy.act(ids, row(inputs, t)), again.act(ids, row(inputs, t))
        assert torch.equal(one.action, other.action)
        assert torch.equal(one.extras["behaviour_logits"], other.extras["behaviour_logits"])
    same_arrays(again.state(), policy.state())


def test_sampled_actions_come_from_the_seed() -> None:
    inputs, ids = make_inputs(SPEC, 20, COUNT), np.arange(COUNT)

    def actions(seed: int, greedy: bool = False) -> list[int]:
        store = make_policy()[1]
        fresh = LocalPolicy(make_agent(), store, COUNT, seed=seed, greedy=greedy)
        fresh.refresh()
        return [int(action) for t in range(20) for action in fresh.act(ids, row(inputs, t)).action]

    assert actions(1) == actions(1) != actions(2)
    assert actions(1, greedy=True) == actions(2, greedy=True)


def test_a_feed_forward_agent_has_no_state() -> None:
    agent = make_agent(core="none")
    policy = LocalPolicy(agent, private_params(1), COUNT, seed=0)
    policy.act(np.array([2]), some(row(make_inputs(SPEC, 1, COUNT), 0), np.array([2])))
    assert policy.core_state(np.array([1])) == {}
    assert policy.state().keys() == {"generator", "version"}


def test_weights_rounded_once_act_like_autocast_and_follow_new_versions() -> None:
    spec = EnvSpec("toy", {"image": ArraySpec((4, 40, 40), "uint8")}, ActionSpec("discrete", 3))
    image = torch.randint(0, 256, (1, 6, 4, 40, 40), dtype=torch.uint8)
    inputs = Inputs({"image": image}, torch.zeros(1, 6, dtype=torch.bool))
    torch.manual_seed(0)
    learner, actor = Agent(Config(core="lstm", core_size=8), spec), Agent(Config(core="lstm", core_size=8), spec)
    flat = flatten_parameters(learner.network)
    store = private_params(len(flat))
    policy = LocalPolicy(actor, store, 6, seed=0, precision="bf16")
    for version in (1, 2):
        flat.normal_(0.0, 0.05)
        store.publish(flat, version)
        policy.refresh()
        state = policy.core_state(np.arange(6))
        output = policy.act(np.arange(6), inputs)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            expected = learner.network(inputs.observation, inputs.first, state).policy[0]
        torch.testing.assert_close(output.extras["behaviour_logits"], expected, rtol=0.02, atol=0.02)
        assert output.extras["behaviour_logits"].dtype == torch.float32
        assert expected.std() > 0.01
