"""Observations by their running mean and variance: against all rows at once, and through runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

import offbeat
from offbeat.agents.base import learner_states
from offbeat.agents.make import agent_config_class, make_agent
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.networks.normaliser import EPSILON, Normaliser, trained_rows
from offbeat.run.train import train
from offbeat.run.verify import compare_checkpoints, verify_resume
from offbeat.types import ActionSpec, ArraySpec, EnvSpec, Inputs
from tests.agents.items import make_sequence, make_transition
from tests.agents.unrolls import make_spec, make_unroll, with_episode_ends

SPEC = ArraySpec((2, 3))


def seen(count: int, seed: int) -> Tensor:
    """Rows [1, count, 2, 3] far from 0, of very different spreads."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([[1.0, 100.0, 1e-3], [5.0, 0.0, 1e4]])
    return 3000.0 + spread * torch.randn(1, count, 2, 3, generator=generator)


class Rows:
    """As much of a batch as the normaliser reads of transitions."""

    def __init__(self, x: Tensor) -> None:
        self.inputs = Inputs({"x": x}, torch.zeros(x.shape[:2], dtype=torch.bool))


def test_statistics_are_those_of_all_rows_at_once() -> None:
    normaliser = Normaliser({"x": SPEC}, clip=2.0)
    whole = [seen(count, seed) for seed, count in enumerate((7, 1, 300, 20))]
    for x in whole:
        normaliser.trained(Rows(x), 1)  # type: ignore[arg-type]
    rows = torch.cat(whole, 1)[0].double()
    mean, spread = rows.mean(0), (rows.var(0, correction=0) + EPSILON).sqrt()
    assert float(normaliser.rows) == len(rows)
    torch.testing.assert_close(normaliser.get_buffer("mean_0").double(), mean, rtol=1e-6, atol=0)
    x = seen(50, 9)
    expected = ((x.double() - mean) / spread).clamp(-2, 2)
    moving = spread > 1e-2  # float32 knows 3000 to 2e-4
    torch.testing.assert_close(
        normaliser({"x": x})["x"].double()[..., moving], expected[..., moving], rtol=0, atol=1e-3
    )
    assert (expected.abs() == 2).any(), "nothing was clipped"


def test_only_floats_that_may_be_beyond_0_and_1_are_touched() -> None:
    specs = {
        "free": ArraySpec((2,)), "wide": ArraySpec((2,), "float32", 0.0, 2.0),
        "bits": ArraySpec((2,), "float32", 0.0, 1.0), "bytes": ArraySpec((2,), "uint8", 0, 255),
    }  # fmt: skip
    normaliser = Normaliser(specs, 10.0)
    assert normaliser.keys == ["free", "wide"]
    given = {name: torch.full((1, 4, 2), 200) for name in specs}
    changed = normaliser(given)
    assert changed["bits"] is given["bits"] and changed["bytes"] is given["bytes"]
    assert (changed["free"] == 10).all() and (given["free"] == 200).all()


def test_rows_that_are_not_trained_on_do_not_count() -> None:
    agent = make_agent("impala", agent_config_class("impala")(), make_spec("vector"))
    unroll = make_unroll(agent, *with_episode_ends(agent.spec))
    x = unroll.inputs.observation["observation"]
    assert not unroll.valid[:-1].all()
    assert torch.equal(trained_rows(unroll, "observation"), x[:-1][unroll.valid[:-1]])
    recurrent = make_agent("r2d2", agent_config_class("r2d2")(length=4, burn_in=2), make_spec("vector"))
    sequence = make_sequence(recurrent, [(0, None, ""), (1, 5, "terminated")])
    assert len(trained_rows(sequence, "observation")) == sequence.rows > 0
    value = make_agent("dqn", agent_config_class("dqn")(), make_spec("vector"))
    transition = make_transition(value)
    assert torch.equal(trained_rows(transition, "observation"), transition.inputs.observation["observation"][0])


@pytest.mark.parametrize("name", ["impala", "dqn", "r2d2", "rainbow", "apex"])
def test_every_agent_keeps_it_in_its_weights(name: str) -> None:
    agent = make_agent(name, agent_config_class(name)(normalise=True), make_spec("vector"))
    assert learner_states(agent)["normaliser"] is agent.network.normaliser
    names = set(agent.network.state_dict())
    assert {"normaliser.rows", "normaliser.mean_0", "normaliser.variance_0"} <= names
    without = make_agent(name, agent_config_class(name)(), make_spec("vector"))
    assert "normaliser" not in learner_states(without)
    assert set(without.network.state_dict()) == {n for n in names if not n.startswith("normaliser.")}


def test_a_clip_that_lets_nothing_through_is_refused() -> None:
    with pytest.raises(ValueError, match=r"normalise_clip=0\.0 is out of range; allowed: above 0"):
        agent_config_class("impala")(normalise_clip=0.0)


class Shifted(gymnasium.Env[Any, Any]):
    """Shows 5000 plus the number of the right one of four actions; 20 steps, random actions earn 5."""

    observation_space = spaces.Box(0.0, 10_000.0, (1,))
    action_space = spaces.Discrete(4)

    def _next(self) -> Any:
        self.right = int(self.np_random.integers(4))
        return np.array([5000.0 + self.right], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._next(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        reward = float(action == self.right)
        return self._next(), reward, self.steps == 20, False, {}


IMPALA = {"learner.batch_size": 4, "learner.unroll_length": 10, "actor.envs_per_worker": 4}
DQN = {
    "agent.name": "dqn", "agent.torso": "auto", "replay.capacity": 4000, "learner.batch_size": 32,
    "replay.samplers": '[{kind = "uniform", min_rows = 200}]', "replay.samples_per_insert": 4,
}  # fmt: skip


def config(out: Path | str, **options: Any) -> RunConfig:
    """A short inline run of ``Shifted``."""
    short = {
        "out": str(out), "env": "mine", "env.length": 20, "engine": "inline", "log.tensorboard": False,
        "evaluation.every_frames": 0, "evaluation.episodes": 20, "agent.normalise": True, "total_frames": 3000,
    }  # fmt: skip
    return apply_overrides(load_preset("debug"), (short | options).items())


def score(run: Path) -> float:
    """Mean return of 20 greedy episodes."""
    return float(offbeat.evaluate(run, episodes=20, env_factory=Shifted, policy="greedy").returns.mean())


@pytest.mark.parametrize("options", [IMPALA, pytest.param(DQN, marks=pytest.mark.slow)], ids=["impala", "dqn"])
def test_what_lies_far_from_0_is_learnt_with_it_alone(options: dict[str, Any], tmp_path: Path) -> None:
    long = options | {"total_frames": 12_000, "learner.learning_rate": 3e-3, "agent.discount": 0.0}
    run = train(config(tmp_path / "with", **long), env_factory=Shifted).run
    assert score(run) > 15
    without = train(config(tmp_path / "without", **long, **{"agent.normalise": False}), env_factory=Shifted).run
    assert score(without) < 11
    agent, env = offbeat.load(run, env_factory=Shifted), Shifted()
    mean = agent.agent.network.get_buffer("normaliser.mean_0")
    assert float(mean) == pytest.approx(5001.5, abs=0.5)
    observation, _ = env.reset(seed=0)
    right = 0
    for _ in range(20):
        action = agent.act(observation)
        right += action == env.right
        observation, *_ = env.step(action)
    assert right > 15


@pytest.mark.parametrize(("options", "precision"), [(IMPALA, "bf16"), (DQN, "fp32")], ids=["impala", "dqn"])
def test_inline_and_lockstep_are_the_same_bit_for_bit(options: dict[str, Any], precision: str, tmp_path: Path) -> None:
    options = options | {"total_frames": 800, "learner.precision": precision, "deterministic": True}
    inline = train(config(tmp_path / "inline", **options), env_factory=Shifted)
    lockstep = train(config(tmp_path / "lockstep", **options, engine="local"), env_factory=Shifted)
    result = compare_checkpoints(inline.run, lockstep.run)
    assert inline.updates > 5 and result.equal, result.differing


def test_killed_and_resumed_equals_never_killed(tmp_path: Path) -> None:
    options = {"env": "CartPole-v1", "checkpoint.every_updates": 10}
    run = replace(config("", **IMPALA | options), out="")
    assert verify_resume(run, kills=1, folder=tmp_path)


def test_it_comes_along_with_weights_of_another_run(tmp_path: Path) -> None:
    first = train(config(tmp_path / "first", **IMPALA), env_factory=Shifted)
    short = config(tmp_path / "again", **IMPALA, **{"total_frames": 400})
    again = offbeat.train(short, from_run=first.run, env_factory=Shifted)
    rows = [
        float(offbeat.load(run.run, env_factory=Shifted).agent.network.get_buffer("normaliser.rows"))
        for run in (first, again)
    ]
    assert rows[1] > rows[0] > 2000


def test_in_float64_it_is_exact() -> None:
    torch.manual_seed(0)
    spec = EnvSpec("test", {"observation": ArraySpec((4,))}, ActionSpec("discrete", 3))
    agent = make_agent("impala", agent_config_class("impala")(normalise=True), spec)
    agent.network.double()
    assert agent.network.normaliser.rows.dtype == torch.float64
