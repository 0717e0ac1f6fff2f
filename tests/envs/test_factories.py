"""Users' factories of environments: how they may be called, and what they may give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest

import offbeat
from offbeat.envs.base import EnvConfig, Misbehaved
from offbeat.envs.factories import makes_one_env
from offbeat.envs.registry import make_env


class Sized(gymnasium.Env[Any, Any]):
    def __init__(self, size: int) -> None:
        self.size = size


def test_a_factory_without_needs_makes_one() -> None:
    assert makes_one_env(lambda size=3: Sized(size)) and makes_one_env(lambda *_, **__: Sized(3))
    assert not makes_one_env(lambda num_envs: None) and not makes_one_env(lambda *, num_envs: None)
    with pytest.raises(Misbehaved, match=r"needs size; hand over functools.partial\(Sized, size=...\)"):
        makes_one_env(Sized)


def so_many(num_envs: int, vectorization_mode: str = "vector_entry_point") -> Any:
    return gymnasium.make_vec("CartPole-v1", num_envs, vectorization_mode)


def test_a_factory_may_take_their_number_alone(tmp_path: Path) -> None:
    options: dict[str, Any] = {"total_frames": 1000, "evaluation": {"every_frames": 0}, "log": {"tensorboard": False}}
    result = offbeat.train("impala-cartpole", env_factory=so_many, out=str(tmp_path / "run"), **options)
    assert result.finished and offbeat.evaluate(result.run, episodes=3, env_factory=so_many).complete


def given(number: int) -> Any:
    return gymnasium.make_vec("CartPole-v1", num_envs=number)


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (lambda num_envs: given(3), "the factory of mine gave 3 environments, asked for num_envs=2"),
        (
            lambda: given(2),
            "gave CartPoleVectorEnv; expected a gymnasium.Env; a factory of vector environments takes num_envs",
        ),
        (
            lambda settings: given(2),
            r"takes \(settings\); allowed are no arguments \(it makes one environment\), num_envs",
        ),
        (lambda config, num_envs: given(2), r"takes \(config, num_envs\); allowed are no arguments"),
    ],
)
def test_factories_that_nobody_knows_how_to_call_are_refused(factory: Any, says: str) -> None:
    with pytest.raises(Misbehaved, match=says):
        make_env(EnvConfig(id="mine"), 2, factory=factory)
