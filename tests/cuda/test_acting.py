"""Acting on the GPU is acting on the processor: greedy actions, what is noted beside them, states; drawn ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offbeat.acting.episodes import play_episodes
from offbeat.agents.make import make_agent
from offbeat.config.run_config import load_preset
from offbeat.envs.registry import env_spec, make_env
from offbeat.networks.flat import flatten_parameters
from offbeat.run.load import LoadedAgent
from offbeat.runtime.policy import LocalPolicy
from offbeat.types import LEGAL, Inputs, move
from tests.agents.items import any_inputs
from tests.agents.unrolls import row
from tests.cuda.twins import CASES, OUTPUT, make, near, on
from tests.runtime.parts import private_params, same_arrays

pytestmark = pytest.mark.cuda

ENVS, ROWS = 12, 4
NETWORKS = [case for case in CASES if case != "random"]
BFLOAT16 = 0.05
"""Outputs in bfloat16, whose steps are 1/256: largest difference to those in float32, relative to the largest."""


def seen(case: str) -> list[Inputs]:
    """Some rows of inputs; an episode starts in the middle of them."""
    inputs = any_inputs(CASES[case][2], ROWS, ENVS)
    inputs.first[0] = True
    inputs.first[2, ::3] = True
    return [row(inputs, t) for t in range(ROWS)]


@pytest.mark.parametrize("case", NETWORKS)
def test_greedy_actions_extras_and_states_are_the_processors(case: str, device: str) -> None:
    here, there = make(case), make(case, device)
    state, other = here.initial_state(ENVS), there.initial_state(ENVS)
    for inputs in seen(case):
        with torch.inference_mode():
            expected = here.act(inputs, state, None, greedy=True)
            got = there.act(move(inputs, torch.device(device)), other, None, greedy=True)
        on(device, got.action, *got.extras.values(), *got.state.values())
        if here.spec.action.kind == "discrete":
            assert torch.equal(got.action.cpu(), expected.action)
        else:
            near(got.action, expected.action, OUTPUT)
        for ours, theirs in ((got.extras, expected.extras), (got.state, expected.state)):
            assert ours.keys() == theirs.keys()
            for name in ours:
                near(ours[name], theirs[name], OUTPUT)
        state, other = expected.state, got.state


@pytest.mark.parametrize("case", CASES)
def test_drawn_actions_come_from_the_devices_generator_and_are_legal(case: str, device: str) -> None:
    agent = make(case, device)
    inputs = move(seen(case)[0], torch.device(device))
    inputs.epsilon = torch.full((1, ENVS), 0.5, device=device)
    drawn = []
    for seed in (1, 1, 2):
        generator = torch.Generator(device).manual_seed(seed)
        with torch.inference_mode():
            drawn.append(
                torch.stack([agent.act(inputs, agent.initial_state(ENVS), generator).action for _ in range(9)])
            )
    on(device, *drawn)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    if (legal := inputs.observation.get(LEGAL)) is not None:
        assert legal[0].gather(-1, drawn[0].t()).all()


def make_policy(case: str, device: str, **options: Any) -> LocalPolicy:
    """A policy that has taken over the weights of the agent ``case``."""
    store = private_params(len(flat := flatten_parameters(make(case).network)))
    store.publish(flat, 4)
    policy = LocalPolicy(make(case, device), store, ENVS, seed=1, **options)
    policy.flat.zero_()
    assert policy.refresh() == 4
    return policy


@pytest.mark.parametrize("case", ["impala-lstm", "impala-images", "apex", "r2d2"])
def test_a_policy_takes_published_weights_and_some_environments_states_to_the_device(case: str, device: str) -> None:
    here, there = (make_policy(case, place, greedy=True) for place in ("cpu", device))
    random = np.random.default_rng(0)
    for inputs in seen(case):
        ids = np.sort(random.permutation(ENVS)[: ENVS - 2])
        some = Inputs(*({key: value[:, ids] for key, value in inputs.observation.items()}, inputs.first[:, ids]))
        if here.agent.wants_last:
            assert inputs.last_action is not None and inputs.last_reward is not None
            some.last_action, some.last_reward = inputs.last_action[:, ids], inputs.last_reward[:, ids]
        expected, got = here.act(ids, some), there.act(ids, some)
        assert torch.equal(got.action.cpu(), expected.action)
        for name, value in expected.extras.items():
            near(got.extras[name], value, OUTPUT)
        for name, value in here.core_state(np.arange(ENVS)).items():
            on(device, there.core_state(ids)[name])
            near(there.core_state(np.arange(ENVS))[name], value, OUTPUT)


@pytest.mark.parametrize("case", ["impala-lstm", "impala-images", "dqn-images", "rainbow", "r2d2"])
def test_a_policy_in_bf16_is_near_the_processors_in_float32(case: str, device: str) -> None:
    here, there = make_policy(case, "cpu", greedy=True), make_policy(case, device, greedy=True, precision="bf16")
    expected, got = (policy.act(np.arange(ENVS), seen(case)[0]) for policy in (here, there))
    on(device, *got.extras.values(), *got.state.values())
    for name, value in (expected.extras | expected.state).items():
        theirs = (got.extras | got.state)[name]
        assert theirs.dtype == torch.float32
        legal = value > -1e29  # logits of what is not legal say nothing of rounding
        near(theirs.cpu()[legal], value[legal], BFLOAT16)
        assert case == "rainbow" or not torch.equal(theirs.cpu(), value), "it was computed in bfloat16"


def test_a_policys_saved_state_goes_on_with_the_same_actions(device: str) -> None:
    policy = make_policy("impala-lstm", device)
    everyone, inputs = np.arange(ENVS), seen("impala-lstm")
    policy.act(everyone, inputs[0])
    saved = {name: value.copy() for name, value in policy.state().items()}
    expected = [policy.act(everyone, one).action for one in inputs[1:]]
    again = make_policy("impala-lstm", device)
    again.act(everyone, inputs[3])
    again.load_state(saved)
    again.refresh()
    same_arrays(again.state() | {"version": saved["version"]}, saved)
    assert all(torch.equal(again.act(everyone, one).action, action) for one, action in zip(inputs[1:], expected))


def test_whole_episodes_and_programs_play_on_the_device(device: str) -> None:
    config = load_preset("impala-catch")
    spec = env_spec(config.eval_env)
    agents = []
    for place in ("cpu", device):
        torch.manual_seed(0)
        agents.append(make_agent(config.agent_name, config.agent, spec, place))
    envs = [make_env(config.eval_env, 4) for _ in agents]
    played = [play_episodes(env, one, episodes=8, greedy=True) for env, one in zip(envs, agents, strict=True)]
    np.testing.assert_array_equal(played[0].returns, played[1].returns)
    assert play_episodes(envs[1], agents[1], episodes=8).complete, "and with drawn actions"
    programs = [LoadedAgent(one) for one in agents]
    for observation in np.random.default_rng(0).random((5, *spec.observation["observation"].shape), np.float32):
        assert programs[0].act(observation) == programs[1].act(observation)
