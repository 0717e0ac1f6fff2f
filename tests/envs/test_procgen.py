"""Procgen: its levels and modes; it plays where EnvPool and Qt are installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.envs.base import EnvConfig, EnvUnavailable, StateUnsupported, VectorEnv
from offbeat.envs.listing import list_envs
from offbeat.envs.procgen import GAMES, LAST_LEVEL, MODES, find_game, make_procgen, task_id
from offbeat.envs.registry import env_spec, make_env
from offbeat.types import OBSERVATION, EnvStep

CHASER = EnvConfig(id="procgen:procgen-chaser-v0")
MAZE = EnvConfig(id="procgen:procgen-maze-v0")
NUMBERS = {0: "easy", 1: "hard", 2: "extreme", 10: "memory", 20: "exploration"}
"""EnvPool's numbers of modes, as Procgen has them."""


@pytest.fixture
def envpool() -> ModuleType:
    """EnvPool, where its Procgen can draw."""
    module: ModuleType = pytest.importorskip("envpool")
    try:
        env_spec(CHASER)
    except EnvUnavailable as error:
        pytest.skip(str(error))
    return module


def played(
    config: EnvConfig, count: int, steps: int, act: Callable[[int], np.ndarray] | None = None, seed: int = 0
) -> list[tuple[EnvStep, np.ndarray]]:
    """Rows of ``count`` games, in the games' order, and their levels; without ``act`` nothing is done."""
    env = make_procgen(config, str(find_game(config.id)), count, None, 1, False)
    env.reset(seed)
    found = []
    for step in range(steps):
        rows = env.recv()
        assert np.array_equal(rows.env_ids, np.arange(count))
        assert (rows.valid == ~(rows.terminated | rows.truncated)).all()
        assert (rows.first == (step == 0 if not found else ~found[-1][0].valid)).all()
        found.append((rows, env.levels.copy()))
        env.send(np.full(count, 4) if act is None else act(step))
    env.close()
    return found


def random_play(count: int) -> Callable[[int], np.ndarray]:
    """Random actions, always the same ones."""
    return lambda step: np.random.default_rng(step).integers(15, size=count)


def test_it_plays_and_cannot_be_saved(envpool: ModuleType) -> None:
    spec = env_spec(CHASER)
    assert spec.observation[OBSERVATION].shape == (3, 64, 64) and spec.action.num_actions == 15
    env: VectorEnv = make_env(CHASER, 2)
    env.reset(0)
    first = env.recv()
    assert first.first.all() and first.observation[OBSERVATION].shape == (2, 3, 64, 64)
    with pytest.raises(StateUnsupported, match="neither saved nor replayed"):
        env.state()
    env.close()


def test_what_cannot_be_is_refused_without_envpool() -> None:
    with pytest.raises(StateUnsupported, match="neither saved nor replayed"):
        make_env(CHASER, 2, deterministic=True)
    with pytest.raises(ValueError, match=r"max_steps=9 restarts single games .* whole batches.* all 4 environments"):
        make_env(replace(CHASER, max_steps=9), 4, batch_size=2)
    with pytest.raises(
        ValueError, match=r"'memory' is not there for procgen:procgen-chaser-v0; chaser has easy, hard, extreme; memory"
    ):
        env_spec(replace(CHASER, distribution_mode="memory"))
    with pytest.raises(ValueError, match="start_level=500 means nothing with num_levels=0"):
        env_spec(replace(CHASER, start_level=500))
    with pytest.raises(ValueError, match=f"start_level={LAST_LEVEL} and num_levels=2 reach beyond the last level"):
        env_spec(replace(CHASER, start_level=LAST_LEVEL, num_levels=2))
    with pytest.raises(ValueError, match="distribution_mode='harder' is unknown; allowed are easy, hard, "):
        env_spec(replace(CHASER, distribution_mode="harder"))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"num_levels": 500}, {"start_level": 1}, {"distribution_mode": "easy"}])
@pytest.mark.parametrize("env_id", ["toy/catch", "CartPole-v1", "Pong"])
def test_levels_mean_nothing_to_others(env_id: str, change: dict[str, Any]) -> None:
    if env_id == "Pong":
        pytest.importorskip("ale_py")
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.* means nothing to {env_id}"):
        env_spec(EnvConfig(id=env_id, **change))


def test_evaluations_follow_but_for_what_they_are_given() -> None:
    options = [("env.id", CHASER.id), ("env.num_levels", "500"), ("env.distribution_mode", "easy")]
    config = apply_overrides(load_preset("impala-atari"), [*options, ("eval_env.start_level", "500")])
    assert (config.env.num_levels, config.env.start_level) == (500, 0)
    assert (config.eval_env.num_levels, config.eval_env.start_level) == (500, 500)
    assert config.eval_env.distribution_mode == "easy" and config.eval_env.id == CHASER.id


def test_levels_are_those_that_were_asked_for(envpool: ModuleType) -> None:
    """Some hundred levels of each: of 500 from 0 on, and of 500 from 500 on."""
    seen = []
    for start in (0, 500):
        config = replace(CHASER, num_levels=500, start_level=start, max_steps=2)
        seen.append({int(level) for _, levels in played(config, 64, 13) for level in levels})
        assert len(seen[-1]) > 150
        assert start <= min(seen[-1]) < start + 50 and start + 450 <= max(seen[-1]) < start + 500
    everywhere = {int(level) for _, levels in played(CHASER, 64, 1) for level in levels}
    assert not seen[0] & seen[1] and max(everywhere) > 10**9


def test_a_level_is_a_level(envpool: ModuleType) -> None:
    """One level is the same for every game, seed and episode; the next one, and another mode of it, look different."""

    def frames(start: int, mode: str, seed: int) -> np.ndarray:
        config = replace(MAZE, num_levels=1, start_level=start, distribution_mode=mode, max_steps=3)  # type: ignore[arg-type]
        rows = [rows for rows, _ in played(config, 3, 9, seed=seed) if rows.first.any()]
        assert len(rows) == 3
        return np.concatenate([one.observation[OBSERVATION] for one in rows])

    shown = frames(7, "hard", 0)
    assert (shown == shown[0]).all() and np.array_equal(shown, frames(7, "hard", 1))
    for other in (frames(8, "hard", 0), frames(7, "easy", 0), frames(7, "memory", 0)):
        assert (other[0] != shown[0]).mean() > 0.05


def test_games_have_levels_of_their_own_that_follow_from_the_seed(envpool: ModuleType) -> None:
    config = replace(CHASER, max_steps=2)
    first, again, other = (np.stack([levels for _, levels in played(config, 4, 13, seed=seed)]) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and len(np.unique(first)) == 4 * 5
    assert not set(first.ravel()) & set(other.ravel())


def test_max_steps_cuts_and_the_next_row_is_of_a_new_level(envpool: ModuleType) -> None:
    """EnvPool itself ignores a limit; games that end by themselves before it are left alone."""
    assert env_spec(replace(CHASER, max_steps=90)).max_episode_steps == 90
    found = played(replace(CHASER, max_steps=90), 16, 400, random_play(16), seed=3)
    length, ends = np.zeros(16, int), {"cut": 0, "over": 0}
    for (before, old), (rows, new) in pairwise(found):
        length = np.where(rows.first, 0, length + 1)
        assert (rows.truncated == ((length == 90) & ~rows.terminated)).all() and length.max() <= 90
        assert (rows.raw_reward[rows.first] == 0).all()
        assert ((old != new) == rows.first).all()
        assert (rows.observation[OBSERVATION] != before.observation[OBSERVATION])[rows.first].any(axis=(1, 2, 3)).all()
        ends["cut"] += int(rows.truncated.sum())
        ends["over"] += int(rows.terminated.sum())
    assert ends["cut"] > 20 and ends["over"] > 5


def test_a_games_own_limit_truncates(envpool: ModuleType) -> None:
    assert env_spec(MAZE).max_episode_steps == env_spec(replace(MAZE, max_steps=900)).max_episode_steps == 500
    found = played(MAZE, 2, 503)
    assert [step for step, (rows, _) in enumerate(found) if rows.truncated.any()] == [500]
    assert found[500][0].truncated.all() and found[501][0].first.all()


def test_partial_batches_give_rows_of_the_levels_asked_for(envpool: ModuleType) -> None:
    env = make_procgen(replace(CHASER, num_levels=3, start_level=11), "chaser", 6, 2, 1, False)
    env.reset(0)
    seen: set[int] = set()
    for _ in range(60):
        rows = env.recv()
        assert len(rows.env_ids) == len(env.levels) == 2
        seen |= {int(level) for level in env.levels}
        env.send(np.zeros(2, np.int64))
    env.close()
    assert seen <= {11, 12, 13} and len(seen) > 1


def test_names_and_modes() -> None:
    assert [find_game(f"procgen:procgen-{game}-v0") for game in ("chaser", "pong")] == ["chaser", None]
    assert len(GAMES) == 16 and task_id("starpilot") == "StarpilotHard-v0"
    assert task_id("maze", "memory") == "MazeMemory-v0"
    notes = {record.id: record.note for record in list_envs("procgen")}
    assert len(notes) == 16 and notes[CHASER.id] == "modes easy, hard, extreme"


def test_modes_are_those_of_envpool(envpool: ModuleType) -> None:
    known = {task_id(game, mode) for mode in MODES for game in GAMES} & set(envpool.list_all_envs())
    assert known == {task_id(game, mode) for mode, games in MODES.items() for game in games} and len(known) == 50
    for mode, games in MODES.items():
        assert NUMBERS[envpool.make_spec(task_id(games[0], mode)).config.distribution_mode] == mode
