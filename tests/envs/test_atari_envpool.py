"""EnvPool: the rows of ALE, partial batches, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import make_env
from offbeat.types import EnvStep
from tests.envs.playing import assert_same, random_actions, rows_of

pytest.importorskip("envpool")
pytest.importorskip("ale_py")
pytest.importorskip("cv2")


def aligned(config: EnvConfig, actions: np.ndarray) -> tuple[list[EnvStep], list[EnvStep]]:
    """Rows of ALE and of EnvPool from the same emulator state.

    EnvPool always plays at least one no-op, so with noop_max=1 and no FIRE it starts one frame after ALE does with
    noop_max=0; ALE with noop_max=2 draws 0 or 1 no-ops, and a seed is looked for that gives 1 at the start. Later
    episodes start from other draws; they are compared only as far as the flags of the end that led to them.
    """
    pool = rows_of(make_env(dataclasses.replace(config, backend="envpool", noop_max=1), 1), actions)
    ale = make_env(dataclasses.replace(config, backend="ale-single", noop_max=2), 1)
    for seed in range(20):
        ale.reset(seed)
        if ale.state()["noops"][0] == 1:
            return rows_of(ale, actions, seed), pool
    raise AssertionError("no seed with one no-op")


@pytest.mark.parametrize(
    "config",
    [
        EnvConfig(id="Pong", fire_reset=False, max_frames=4200),
        EnvConfig(id="Breakout", fire_reset=False, life_loss="terminal", reward_clip="sign"),
        EnvConfig(id="Breakout", fire_reset=False, life_loss="end_episode"),
        EnvConfig(id="MsPacman", fire_reset=False, frame_skip=3, full_action_space=True, life_loss="terminal"),
    ],
    ids=lambda config: f"{config.id}-{config.life_loss}",
)
def test_envpool_gives_the_rows_of_ale(config: EnvConfig) -> None:
    """Rows of the first episode are equal, up to the picture of its last row if the game ended within a skip.

    Compared are the same actions from the same emulator state (see ``aligned``): all flags and rewards, every frame
    but the last one of a game that is over. Of the second episode, that it starts in the next row.
    """
    ale, pool = aligned(config, random_actions(config, 1100, 1))
    end = next(step for step, rows in enumerate(ale) if not rows.valid[0])
    assert end > 20
    for step in range(end + 1):
        assert_same(ale[step], pool[step], step, frames=step < end or bool(ale[end].truncated[0]))
    assert pool[end + 1].first[0] and pool[end + 1].valid[0] and pool[end + 1].raw_reward[0] == 0


def test_envpool_plays_partial_batches() -> None:
    env = make_env(EnvConfig(id="Pong", backend="envpool", max_frames=80), 4, batch_size=2, threads=2)
    env.reset(0)
    steps = np.full(4, -1)
    for _ in range(120):
        rows = env.recv()
        steps[rows.env_ids] = np.where(rows.first, 0, steps[rows.env_ids] + 1)
        assert (rows.truncated == (steps[rows.env_ids] == 20)).all()
        env.send(np.zeros(2, np.int64))
    env.close()


def test_envpool_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="noop_max=0 is impossible with backend='envpool'"):
        make_env(EnvConfig(backend="envpool", noop_max=0), 1)
