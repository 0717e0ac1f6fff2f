"""The plain path through small networks gives what their modules give, bit by bit, and steps aside where it cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offbeat.agents.impala import Agent, Config
from offbeat.networks.flat import flatten_parameters, view_parameters
from offbeat.networks.plain import PlainPath, plain_path
from offbeat.networks.torsos import Torso
from offbeat.types import LEGAL, ActionSpec, ArraySpec, EnvSpec, Inputs

BOX = {"observation": ArraySpec((5,))}
MIXED = {
    "place": ArraySpec((2, 3)), "bytes": ArraySpec((4,), "uint8", 0.0, 255.0), "kind": ArraySpec((), "int64", 0, 6),
}  # fmt: skip
MASKED = BOX | {LEGAL: ArraySpec((3,), "bool")}
TWO = ActionSpec("multi_discrete", nvec=(3, 2))


def make_spec(observation: dict[str, ArraySpec], action: ActionSpec | None = None) -> EnvSpec:
    """A made-up environment."""
    return EnvSpec("made-up", observation, action or ActionSpec("discrete", 3))


def make_agent(spec: EnvSpec, **options: Any) -> Agent:
    """A small agent, flat as those of actors are, whose policy is far from uniform."""
    torch.manual_seed(3)
    agent = Agent(Config(**({"torso": "mlp", "hidden_size": (32, 16), "policy_init_scale": 9.0} | options)), spec)
    flatten_parameters(agent.network)
    agent.network.eval()
    return agent


def make_inputs(spec: EnvSpec, batch: int, seed: int = 0) -> Inputs:
    """Random observations [1, batch, ...]."""
    random = np.random.default_rng(seed)
    seen = {}
    for key, part in spec.observation.items():
        shape = (1, batch, *part.shape)
        if part.dtype == "float32":
            value = random.normal(size=shape).astype(np.float32)
        else:
            value = random.integers(0, 2 if part.dtype == "bool" else 6, shape).astype(part.dtype)
        seen[key] = torch.from_numpy(value)
    return Inputs(seen, torch.zeros(1, batch, dtype=torch.bool))


CASES: dict[str, tuple[EnvSpec, dict[str, Any]]] = {
    "box": (make_spec(BOX), {}),
    "box, relu": (make_spec(BOX), {"activation": "relu", "hidden_size": (64,)}),
    "mixed": (make_spec(MIXED), {}),
    "masked": (make_spec(MASKED), {}),
    "two components": (make_spec(BOX | {LEGAL: ArraySpec((5,), "bool")}, TWO), {}),
    "values kept": (make_spec(BOX), {"value_cloning_cost": 0.1}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("greedy", [False, True])
def test_actions_and_what_is_kept_are_those_of_the_modules(name: str, batch: int, greedy: bool) -> None:
    spec, options = CASES[name]
    agent, inputs = make_agent(spec, **options), make_inputs(spec, batch)
    path = agent._plain
    assert isinstance(path, PlainPath) and path.serves(agent.network)
    with torch.inference_mode():
        plain = agent.act(inputs, {}, torch.Generator().manual_seed(1), greedy)
        agent._plain = None
        known = agent.act(inputs, {}, torch.Generator().manual_seed(1), greedy)
    assert torch.equal(plain.action, known.action)
    assert plain.extras.keys() == known.extras.keys() and plain.state == {}
    assert all(torch.equal(plain.extras[key], known.extras[key]) for key in known.extras)
    assert ("behaviour_value" in known.extras) == (name == "values kept")


def test_it_acts_on_the_newest_weights_wherever_they_lie() -> None:
    spec = make_spec(BOX)
    agent, inputs = make_agent(spec), make_inputs(spec, 4)
    flat, path = flatten_parameters(agent.network), agent._plain
    assert path is not None
    with torch.inference_mode():
        before = path(inputs.observation, False)[0]
        flat.mul_(0.5)
        after = path(inputs.observation, False)[0]
        view_parameters(agent.network, torch.full_like(flat, 0.25))
        elsewhere = path(inputs.observation, False)[0]
        assert torch.equal(elsewhere, agent._forward(inputs, {}).policy)
    assert not torch.equal(before, after) and not torch.equal(after, elsewhere)


def test_observations_are_left_as_they_are() -> None:
    spec = make_spec(BOX)
    agent, inputs = make_agent(spec, hidden_size=(5,)), make_inputs(spec, 4)
    kept = inputs.observation["observation"].clone()
    agent.act(inputs, {}, torch.Generator())
    assert torch.equal(inputs.observation["observation"], kept)


def test_it_steps_aside_where_somebody_watches_or_weights_are_rounded() -> None:
    agent = make_agent(make_spec(BOX))
    path, inputs = agent._plain, make_inputs(agent.spec, 2)
    assert path is not None and path.serves(agent.network)
    torso = agent.network.torso
    assert isinstance(torso, Torso)
    for module in (agent.network, torso, torso.mlp[0], torso.mlp[1], agent.network.policy, agent.network.value.linear):
        seen: list[Any] = []
        hook = module.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        assert not path.serves(agent.network)
        agent.act(inputs, {}, torch.Generator())
        assert seen, "who watches is served"
        hook.remove()
        assert path.serves(agent.network)
    with torch.autocast("cpu", torch.bfloat16):
        assert not path.serves(agent.network)
    assert not path.serves(make_agent(make_spec(BOX)).network), "another network"


@pytest.mark.parametrize(
    "options",
    [
        {"core": "lstm", "core_size": 4}, {"last_action": True}, {"last_reward": True}, {"normalise": True},
        {"store_features": True}, {"hidden_size": ()},
    ],
)  # fmt: skip
def test_there_is_none_where_there_is_more_to_a_network(options: dict[str, Any]) -> None:
    assert make_agent(make_spec(BOX), **options)._plain is None


def test_there_is_none_for_pictures_boxes_of_actions_and_other_precisions() -> None:
    picture = {"observation": ArraySpec((3, 10, 10), "uint8", 0.0, 255.0)}
    assert make_agent(make_spec(picture), torso="minatar")._plain is None
    assert make_agent(make_spec(picture))._plain is not None, "an mlp flattens it"
    assert make_agent(make_spec(BOX, ActionSpec("continuous", shape=(2,), low=(-1, -1), high=(1, 1))))._plain is None
    network = make_agent(make_spec(BOX)).network.double()
    assert plain_path(network, network.policy, network.value, network.choices) is None


def test_gradients_are_not_wanted_of_it() -> None:
    agent = make_agent(make_spec(BOX))
    output = agent.act(make_inputs(agent.spec, 2), {}, torch.Generator())
    assert not output.extras["behaviour_logits"].requires_grad
    assert agent._forward(make_inputs(agent.spec, 2), {}).policy.requires_grad
