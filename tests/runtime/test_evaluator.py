"""An evaluation: the newest weights, whole games, one record that says where the run was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from offbeat.acting.episodes import play_episodes
from offbeat.agents.make import make_agent
from offbeat.envs.base import EnvConfig
from offbeat.envs.toy import ToyVector
from offbeat.runtime.evaluator import EvaluationConfig, run_evaluator
from offbeat.runtime.params import ParamStore
from offbeat.runtime.policy import LocalPolicy
from tests.runtime.parts import Metrics, StopAfter, make_host, private_params, small_config, small_world

CATCH = EnvConfig(id="toy/catch", length=6)
POINT = {"updates": 6, "agent_steps": 10, "frames": 40}


def make_policy(envs: int = 2, seed: int = 0) -> tuple[LocalPolicy, ParamStore]:
    """A policy whose weights are published as version 5."""
    torch.manual_seed(seed)
    agent = make_agent("impala", small_config().agent, ToyVector(CATCH, 1).spec)
    policy = LocalPolicy(agent, private_params(1), envs, seed=0)
    store = private_params(len(policy.flat))
    store.publish(policy.flat, 5)
    policy.params = store
    return policy, store


@pytest.mark.parametrize("kind", ["greedy", "sampled"])
def test_scores_are_those_of_the_newest_weights(kind: str) -> None:
    policy, store = make_policy()
    policy.refresh()
    newer = policy.flat.clone().mul_(3.0).add_(0.01)
    store.publish(newer, 6, agent_steps=10, frames=40)
    metrics, config = Metrics(), EvaluationConfig(episodes=7, policy=kind)  # type: ignore[arg-type]
    result = run_evaluator(ToyVector(CATCH, 2), policy, metrics, StopAfter(), config, seed=3)

    other, _ = make_policy(seed=1)
    other.flat.copy_(newer)
    expected = play_episodes(ToyVector(CATCH, 2), other.agent, episodes=7, greedy=kind == "greedy", seed=3)
    np.testing.assert_array_equal(result.returns, expected.returns)
    assert len(result.returns) == 7
    assert (result.version, result.policy, result.complete) == (6, kind, True)
    (record,) = metrics.of("evaluation")
    assert {name: record[name] for name in POINT} == POINT
    assert record["version"] == 6
    assert record["mean"] == pytest.approx(expected.returns.mean())


def test_the_seed_decides_the_games() -> None:
    policy, _ = make_policy()
    config = EvaluationConfig(episodes=12)
    returns = [
        run_evaluator(ToyVector(CATCH, 2), policy, Metrics(), StopAfter(), config, seed=seed).returns.tolist()
        for seed in (1, 1, 2)
    ]
    assert returns[0] == returns[1]
    assert returns[0] != returns[2]


def test_a_stop_breaks_it_off_and_nothing_is_reported() -> None:
    policy, _ = make_policy()
    metrics = Metrics()
    stop, config = StopAfter(12), EvaluationConfig(episodes=50)
    result = run_evaluator(ToyVector(CATCH, 2), policy, metrics, stop, config, seed=0)
    assert not result.complete
    assert 0 < len(result.returns) < 50
    assert metrics.records == []


def test_an_evaluator_plays_its_exams_each_in_its_own_environments(tmp_path: Path) -> None:
    sets = {"final__vary": "max_steps", "final__values": "2,3", "final__episodes": 4, "final__envs": 2}
    world, metrics = small_world(tmp_path, small_config(**sets, evaluation__policy="sampled")), Metrics()
    learner = make_host(world, "learner", Metrics(), free=False)
    host = make_host(world, "evaluator", metrics, free=False)
    try:
        answers = [host.evaluate(number, part) for number, part in ((7, 0), (0, 1), (0, 2), (7, 0))]
    finally:
        for made in (host, learner):
            made.close()
        world.close()
    assert [metric["lengths"] for metric in metrics.of("final")] == [[2] * 4, [3] * 4]
    assert [(metric["set"], metric["policy"]) for metric in metrics.of("final")] == [
        ("max_steps=2", "greedy"), ("max_steps=3", "greedy"),
    ]  # fmt: skip
    first, again = metrics.of("evaluation")
    assert first["returns"] == again["returns"] and first["lengths"] == [5] * 4, "the number seeds the games"
    assert answers[0] == {"mean": first["mean"], "std": first["std"], "episodes": 4, "complete": True}


def test_a_validator_writes_the_weights_that_it_played_not_newer_ones(tmp_path: Path) -> None:
    config = small_config(validation__every_steps=10, validation__episodes=2, validation__envs=2)
    world, metrics = small_world(tmp_path, config), Metrics()
    learner = make_host(world, "learner", Metrics(), free=False)
    host, written = make_host(world, "validator", metrics, free=False), dict[str, dict[str, torch.Tensor]]()
    try:
        host.evaluate(0)
        played = {name: value.clone() for name, value in learner.work.optimiser.weights().items()}
        learner.work.optimiser.flat.add_(1.0)
        world.params.store.publish(learner.work.optimiser.flat, 9, agent_steps=90, frames=90)
        answer = host.save(lambda part, arrays: written.update({part: {k: v.clone() for k, v in arrays.items()}}))
    finally:
        for made in (host, learner):
            made.close()
        world.close()
    assert answer == {"counters": {"updates": 0, "agent_steps": 0, "frames": 0}, "parts": ["learner"]}
    assert written["learner"].keys() == {f"weights/{name}" for name in played}
    assert all(torch.equal(written["learner"][f"weights/{name}"], value) for name, value in played.items())
    assert metrics.of("validation")[0]["version"] == 0 and metrics.of("evaluation") == []
