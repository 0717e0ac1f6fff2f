"""Episodes that never end, and environments that take long: said, not waited for in vain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import offbeat
from offbeat.acting.scores import Evaluation
from offbeat.envs.base import EnvConfig, StateUnsupported
from offbeat.envs.gymnasium import GymnasiumVector
from offbeat.envs.registry import env_spec, make_env, specs_kept
from offbeat.run.dashboard import event_line

made: list[int] = []


class Sometimes(gymnasium.Env[Any, Any]):
    """Ends after five steps, or never: seeds decide."""

    observation_space = spaces.Box(0, 1, (1,))
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        made.append(1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t, self.endless = 0, bool(self.np_random.random() < 0.3)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(1, np.float32), 1.0, self.t == 5 and not self.endless, False, {}


def test_an_evaluation_goes_on_without_episodes_that_do_not_end_and_says_so(tmp_path: Path) -> None:
    evaluation = {"every_frames": 0, "episodes": 20, "envs": 20, "longest": 50}
    result = offbeat.train("debug", env_factory=Sometimes, out=str(tmp_path / "run"), total_frames=200,
                           engine="inline", evaluation=evaluation, log={"tensorboard": False})  # fmt: skip
    assert result.evaluation_mean == 5.0
    score = offbeat.evaluate(result.run, episodes=20, env_factory=Sometimes)
    assert score.complete and 0 < score.given_up < 20 and len(score.returns) == 20 - score.given_up
    assert f"{score.given_up} given up that did not end (env.max_steps ends them)" in score.summary()
    assert score.record()["given_up"] == score.given_up
    assert "given up that did not end" in event_line("evaluator", "evaluation", score.record())
    ended = Evaluation(np.ones(2), np.ones(2, np.int64))
    assert "given_up" not in ended.record() and "given up" not in ended.summary()


def test_actions_are_kept_only_where_the_run_may_be_saved() -> None:
    for deterministic in (False, True):
        envs = make_env(EnvConfig(id="mine"), 2, factory=Sometimes, deterministic=deterministic)
        assert isinstance(envs, GymnasiumVector)
        envs.reset(1)
        for _ in range(30):
            envs.recv()
            envs.send(np.zeros(2, np.int64))
        envs.recv()
        kept = sum(len(slot.actions) for slot in envs._slots)
        assert (kept > 0) == deterministic
        if not deterministic:
            with pytest.raises(StateUnsupported, match="its actions were not kept"):
                envs.state()


def test_each_environment_that_is_made_or_started_is_a_sign_of_life() -> None:
    beats: list[int] = []
    envs = make_env(EnvConfig(id="mine"), 3, factory=Sometimes, beat=lambda: beats.append(len(made)))
    assert np.diff(beats[-3:]).tolist() == [1, 1], "one before each"
    envs.reset(0)
    assert len(beats) == 6


def test_a_slow_one_is_made_once_to_be_looked_at() -> None:
    before = len(made)
    with specs_kept():
        for _ in range(3):
            env_spec(EnvConfig(id="mine"), Sometimes)
        assert len(made) == before + 1
    env_spec(EnvConfig(id="mine"), Sometimes)
    assert len(made) == before + 2
