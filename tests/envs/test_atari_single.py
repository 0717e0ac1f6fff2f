"""Single emulators: the rows of ALE's vector environment, and exact restoring."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import make_env
from offbeat.types import OBSERVATION
from tests.envs.playing import assert_same, random_actions, rows_of

pytest.importorskip("ale_py")
pytest.importorskip("cv2")


PARITY = [
    EnvConfig(id="Pong", noop_max=0, max_frames=2002),
    EnvConfig(id="Breakout", noop_max=0, life_loss="terminal", reward_clip="sign"),
    EnvConfig(id="Breakout", noop_max=0, life_loss="end_episode", fire_reset=False),
    EnvConfig(id="ms_pacman", noop_max=0, frame_skip=3, life_loss="terminal", full_action_space=True),
    EnvConfig(id="ALE/SpaceInvaders-v5", noop_max=0, frame_skip=1, frame_size=42, max_frames=999),
]


@pytest.mark.parametrize("config", PARITY, ids=lambda config: config.id.replace("/", "-"))
def test_single_emulators_give_the_rows_of_the_vector_environment(config: EnvConfig) -> None:
    """Same actions, no random start: every frame, reward and flag over 1,100 steps, across ends of episodes."""
    actions = random_actions(config, 1100, 1)
    ale = rows_of(make_env(dataclasses.replace(config, backend="ale"), 1), actions)
    single = rows_of(make_env(dataclasses.replace(config, backend="ale-single"), 1), actions)
    for step, (one, two) in enumerate(zip(ale, single, strict=True)):
        assert_same(one, two, step)
    assert sum(int(rows.first.sum()) for rows in ale) > 1, "no episode ended"
    assert any(rows.raw_reward.any() for rows in ale)


@pytest.mark.parametrize("game", ["Pong", "Breakout"])
def test_state_goes_on_exactly_with_sticky_actions(game: str) -> None:
    config = EnvConfig(id=game, sticky=0.25, noop_max=30, max_frames=500, life_loss="end_episode")
    actions = random_actions(config, 400, 2)
    one, two = (make_env(config, 2, deterministic=True) for _ in range(2))
    rows_of(one, actions[:150])
    saved = one.state()
    assert all(isinstance(array, np.ndarray) and array.dtype != object for array in saved.values())
    expected = []
    for action in actions[150:]:
        one.send(action)
        expected.append(one.recv())
    two.load_state(saved)
    for step, (action, rows) in enumerate(zip(actions[150:], expected, strict=True)):
        two.send(action)
        assert_same(two.recv(), rows, step)


def test_fire_is_pressed_at_the_start() -> None:
    config = EnvConfig(id="Breakout", noop_max=0, backend="ale-single")
    still = np.zeros((40, 1), np.int64)
    served = rows_of(make_env(config, 1), still)[40].observation[OBSERVATION]
    waiting = rows_of(make_env(dataclasses.replace(config, fire_reset=False), 1), still)[40].observation[OBSERVATION]
    assert not np.array_equal(served, waiting)
