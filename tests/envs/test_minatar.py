"""MinAtar: the package's games, sticky actions, exact restoring."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig
from offbeat.envs.minatar import MinAtarGame, _game_module, find_game
from offbeat.envs.registry import env_spec
from offbeat.types import OBSERVATION
from tests.envs.playing import assert_restored

MINATAR = {"asterix": 5, "breakout": 3, "freeway": 3, "seaquest": 6, "space_invaders": 4}


@pytest.mark.parametrize("game", list(MINATAR))
def test_minatar_plays_and_is_restored(game: str) -> None:
    pytest.importorskip("minatar")
    config = EnvConfig(id=f"minatar/{game}", sticky=0.1, max_steps=60)
    spec = env_spec(config)
    assert spec.action.num_actions == MINATAR[game]
    assert env_spec(replace(config, full_action_space=True)).action.num_actions == 6
    frame = spec.observation[OBSERVATION]
    assert frame.shape[1:] == (10, 10) and (frame.dtype, frame.high) == ("uint8", 1.0)
    for rows in assert_restored(config, 150, 70):
        assert set(np.unique(rows.observation[OBSERVATION])) <= {0, 1}


def test_minatar_equals_the_package() -> None:
    """Breakout without sticky actions, against the game's own class driven by hand."""
    pytest.importorskip("minatar")
    ours = MinAtarGame("breakout", 0.0, False)
    seen, _ = ours.reset(seed=5)
    game = _game_module("breakout").Env()
    game.random = np.random.RandomState(5)
    game.reset()
    generator = np.random.default_rng(0)
    for _ in range(200):
        assert np.array_equal(seen, game.state().transpose(2, 0, 1))
        choice = int(generator.integers(3))
        seen, reward, over, _, _ = ours.step(np.int64(choice))
        assert (reward, over) == game.act([0, 1, 3][choice])
        if over:
            break


def test_minatar_sticky_share() -> None:
    pytest.importorskip("minatar")
    game = MinAtarGame("freeway", 0.25, False)
    game.reset(seed=0)
    repeated = 0
    for step in range(2000):
        before = game._last_action
        wanted = game._actions[step % 3]
        game.step(np.int64(step % 3))
        repeated += game._last_action == before != wanted
    assert repeated / 2000 == pytest.approx(0.25, abs=0.03)


def test_minatar_names() -> None:
    names = ("minatar/space_invaders", "MinAtar/SpaceInvaders-v1", "minatar/spaceinvaders")
    assert [find_game(name) for name in names] == ["space_invaders"] * 3
    assert find_game("minatar/pong") is None
