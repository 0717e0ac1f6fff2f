"""Procgen plays where EnvPool and Qt are installed."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported
from offbeat.envs.procgen import GAMES, find_game, task_id
from offbeat.envs.registry import env_spec, make_env
from offbeat.types import OBSERVATION


def test_procgen_plays_or_says_what_is_missing() -> None:
    config = EnvConfig(id="procgen:procgen-chaser-v0")
    with pytest.raises(StateUnsupported, match="neither saved nor replayed"):
        make_env(config, 2, deterministic=True)
    pytest.importorskip("envpool")
    try:
        spec = env_spec(config)
    except EnvUnavailable as error:
        pytest.skip(str(error))
    assert spec.observation[OBSERVATION].shape == (3, 64, 64) and spec.action.num_actions == 15
    env = make_env(config, 2)
    env.reset(0)
    first = env.recv()
    assert first.first.all() and first.observation[OBSERVATION].shape == (2, 3, 64, 64)
    for _ in range(50):
        env.send(np.zeros(2, np.int64))
        rows = env.recv()
        assert (rows.valid == ~(rows.terminated | rows.truncated)).all()
    env.close()


def test_names() -> None:
    assert [find_game(f"procgen:procgen-{game}-v0") for game in ("chaser", "pong")] == ["chaser", None]
    assert len(GAMES) == 16 and task_id("starpilot") == "StarpilotHard-v0"
