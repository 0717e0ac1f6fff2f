"""Exported networks give what the networks give, for any batch, and need nothing of offbeat to be loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from offbeat.agents.make import agent_config_class, make_agent
from offbeat.errors import UserError
from offbeat.run.export import DESCRIPTION, example_inputs, export_agent
from offbeat.run.exported import ExportedNetwork
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Inputs

IMAGE = ArraySpec((1, 84, 84), "uint8", 0, 255)
DISCRETE = ActionSpec("discrete", 3)
BOX = ActionSpec("continuous", shape=(2,), low=(-1.0, -1.0), high=(1.0, 1.0))
LSTM = {"core": "lstm", "core_size": 16, "last_action": True, "last_reward": True}
CASES = [(IMAGE, DISCRETE, {}), (ArraySpec((4,)), DISCRETE, LSTM), (ArraySpec((4,)), BOX, {})]


def build(observation: ArraySpec, action: ActionSpec, options: dict[str, object]):
    torch.manual_seed(0)
    spec = EnvSpec(
        "test",
        {"observation": observation},
        action,
        frame_stack=4,
        stacked=("observation",) * (len(observation.shape) == 3),
    )
    return make_agent("impala", agent_config_class("impala")(**options), spec)


def random_inputs(agent, batch: int) -> tuple:
    """Inputs that differ everywhere; some environments start an episode, with no action before it."""
    generator = torch.Generator().manual_seed(batch)

    def fill(x: torch.Tensor) -> torch.Tensor:
        if x.dtype is torch.bool:
            return torch.rand(x.shape, generator=generator) < 0.5
        if x.dtype.is_floating_point:
            return torch.randn(x.shape, generator=generator)
        return torch.randint(0, 3 if x.dtype is torch.int64 else 255, x.shape, generator=generator).to(x.dtype)

    inputs = {name: torch.utils._pytree.tree_map(fill, value) for name, value in example_inputs(agent, batch).items()}
    for name in inputs.keys() & {"last_action", "last_reward"}:
        inputs[name][inputs["first"]] = 0
    return tuple(inputs.values())


@pytest.mark.parametrize(("observation", "action", "options"), CASES, ids=["image", "lstm", "continuous"])
def test_an_exported_network_gives_the_same(tmp_path: Path, observation, action, options) -> None:
    agent = build(observation, action, options)
    export_agent(agent, tmp_path / "policy.pt2", {"agent": "impala"})
    extra = {DESCRIPTION: ""}
    exported = torch.export.load(tmp_path / "policy.pt2", extra_files=extra).module()
    for batch in (1, 3, 7):
        inputs = random_inputs(agent, batch)
        got = exported(*inputs)
        with torch.no_grad():
            wanted = agent.network(*inputs)._asdict()
        torch.testing.assert_close({name: got[name] for name in wanted}, wanted)
        assert got["value"].shape == (1, batch)
    description = json.loads(extra[DESCRIPTION])
    assert description["agent"] == "impala"
    assert description["inputs"]["observation.observation"]["shape"][:2] == [1, "B"]
    assert description["order"][:3] == ["observation", "first", "state"]


def test_what_was_before_an_episode_counts_for_nothing() -> None:
    agent = build(ArraySpec((4,)), DISCRETE, LSTM)
    observation, _, state, action, reward = random_inputs(agent, 5)
    first = torch.tensor([[True, False, True, False, True]])
    module = ExportedNetwork(agent)
    one = module(observation, first, state, action, reward)
    other = module(
        observation,
        first,
        {key: torch.where(first[0, :, None, None], value + 1, value) for key, value in state.items()},
        torch.where(first, (action + 1) % 3, action),
        torch.where(first, 0.7, reward),
    )
    torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_the_file_needs_no_offbeat(tmp_path: Path) -> None:
    export_agent(build(ArraySpec((4,)), DISCRETE, LSTM), tmp_path / "policy.pt2")
    code = (
        "import sys, torch; sys.modules['offbeat'] = None\n"
        "policy = torch.export.load('policy.pt2').module()\n"
        "state = {'h': torch.zeros(2, 1, 16), 'c': torch.zeros(2, 1, 16)}\n"
        "row = {'observation': torch.zeros(1, 2, 4)}, torch.ones(1, 2, dtype=torch.bool), state\n"
        "print(policy(*row, torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2))['policy'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.Size([1, 2, 3])"


def test_an_agent_without_a_network_is_refused(tmp_path: Path) -> None:
    spec = EnvSpec("test", {"observation": ArraySpec((4,))}, DISCRETE)
    agent = make_agent("random", agent_config_class("random")(), spec)
    with pytest.raises(UserError, match=r"offbeat\.agents\.random\.Agent cannot be exported: its network must"):
        export_agent(agent, tmp_path / "policy.pt2")


@pytest.mark.parametrize("name", ["dqn", "rainbow", "r2d2"])
def test_a_value_based_agent_is_exported_as_action_values_without_noise(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    spec = EnvSpec("test", {"observation": ArraySpec((4,))}, DISCRETE)
    agent = make_agent(name, agent_config_class(name)(head_size=8), spec)
    export_agent(agent, tmp_path / "policy.pt2")
    extra = {DESCRIPTION: ""}
    exported = torch.export.load(tmp_path / "policy.pt2", extra_files=extra).module()
    assert set(json.loads(extra[DESCRIPTION])["outputs"]) == {"q", "action", "state"} | (
        {"last_action"} if name == "r2d2" else set()
    )
    for batch in (1, 5):
        observation, first, state, *last = random_inputs(agent, batch)
        got = exported(observation, first, state, *last)
        assert got["q"].shape == (1, batch, 3)
        acted = agent.act(Inputs(observation, first, *last), state, None, greedy=True)
        torch.testing.assert_close(got["q"][0].max(-1).values, acted.extras["q_max"])
        assert torch.equal(got["q"][0].argmax(-1), acted.action)
        assert torch.equal(got["action"][0], acted.action)


class Odd(torch.nn.Linear):
    """A network of somebody else's, which takes what it likes."""

    def initial_state(self, batch: int) -> dict[str, torch.Tensor]:
        return {}


def test_a_network_that_takes_something_else_is_refused(tmp_path: Path) -> None:
    agent = build(ArraySpec((4,)), DISCRETE, {})
    agent.network = Odd(4, 3)
    with pytest.raises(UserError, match=r"its network must be called as network\(observation, first, .*: TypeError"):
        export_agent(agent, tmp_path / "policy.pt2")
