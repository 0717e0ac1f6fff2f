"""ALE's vector environment: seeds, threads and partial batches."""

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


def test_same_seed_same_rows_and_environments_differ() -> None:
    config = EnvConfig(id="Pong", sticky=0.25)
    actions = np.repeat(random_actions(config, 40, 1), 2, axis=1)
    for backend in ("ale", "ale-single"):
        runs = [
            rows_of(make_env(dataclasses.replace(config, backend=backend), 2, threads=threads), actions, seed)
            for threads, seed in ((1, 5), (2, 5), (1, 6))
        ]
        for step, (one, two) in enumerate(zip(runs[0], runs[1], strict=True)):
            assert_same(one, two, step)
        last = [run[-1].observation[OBSERVATION] for run in runs]
        assert not np.array_equal(last[0], last[2])
        assert not np.array_equal(last[0][0], last[0][1])


def test_partial_batches_reach_every_environment_in_order() -> None:
    config = EnvConfig(id="Pong", noop_max=0, max_frames=80)
    env = make_env(config, 6, batch_size=2, threads=2)
    whole = rows_of(make_env(dataclasses.replace(config, backend="ale-single"), 1), np.full((60, 1), 2))
    env.reset(0)
    seen = np.zeros(6, np.int64)
    for _ in range(20_000):  # as many as it takes: a thread that the machine holds up holds up its game
        if (seen > 22).all():
            break
        rows = env.recv()
        assert len(rows.env_ids) == 2 == len(set(rows.env_ids))
        for index, one in enumerate(rows.env_ids):
            step = seen[one] % 22  # the start, 20 actions, and a row without an episode
            seen[one] += 1
            if step == 21:
                assert rows.first[index] and not rows.valid[index]
                continue
            expected = whole[step]
            assert rows.first[index] == expected.first[0] and rows.truncated[index] == expected.truncated[0]
            assert np.array_equal(rows.observation[OBSERVATION][index], expected.observation[OBSERVATION][0])
        env.send(np.full(2, 2))
    assert (seen > 22).all()
    env.close()
    env.close()
