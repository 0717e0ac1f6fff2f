"""The observer: inputs are what rows say, for actors and players alike, and go on from a saved state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offbeat.acting.observer import Observer
from offbeat.envs.base import EnvConfig
from offbeat.types import OBSERVATION, EnvStep, Inputs
from tests.conformance.counting_env import FRAME, STACK, CountingFrames, counting_spec

COUNTING = EnvConfig(id="toy/counting", length=4)
COUNT = 3
SPEC = counting_spec(COUNTING)


def observer(wants_last: bool = True, **options: Any) -> Observer:
    return Observer(SPEC, SPEC.action.array, COUNT, wants_last=wants_last, **options)


def games(batch: int | None = None, seed: int = 0) -> CountingFrames:
    envs = CountingFrames(COUNTING, COUNT, batch)
    envs.reset(seed)
    return envs


class Twin:
    """The same by hand: one environment at a time, from lists of what came."""

    def __init__(self) -> None:
        self.frames: list[list[Any]] = [[] for _ in range(COUNT)]
        self.action = [0] * COUNT

    def check(self, rows: EnvStep, inputs: Inputs) -> None:
        """Every number of ``inputs``."""
        assert inputs.last_action is not None and inputs.last_reward is not None
        for i, env in enumerate(rows.env_ids.tolist()):
            if rows.first[i]:
                self.frames[env] = [np.zeros_like(rows.observation[FRAME][i])] * STACK
            self.frames[env] = [*self.frames[env][1:], rows.observation[FRAME][i].copy()]
            np.testing.assert_array_equal(inputs.observation[FRAME][0, i], np.concatenate(self.frames[env]))
            np.testing.assert_array_equal(inputs.observation[OBSERVATION][0, i], rows.observation[OBSERVATION][i])
            assert bool(inputs.first[0, i]) == bool(rows.first[i])
            assert int(inputs.last_action[0, i]) == (0 if rows.first[i] else self.action[env])
            assert float(inputs.last_reward[0, i]) == (0 if rows.first[i] else rows.reward[i])


@pytest.mark.parametrize("batch", [None, 2])
def test_inputs_are_what_came_also_where_environments_step_in_part(batch: int | None) -> None:
    envs, made, twin, random = games(batch), observer(), Twin(), np.random.default_rng(1)
    taken = 0
    for _ in range(60):
        rows = envs.recv()
        twin.check(rows, made.observe(rows))
        action = random.integers(0, 4, len(rows.env_ids))
        made.remember(rows, action)
        for env, own in zip(rows.env_ids.tolist(), action.tolist(), strict=True):
            twin.action[env] = own
        taken += int(rows.valid.sum())
        envs.send(action)
    assert made.steps == taken < 60 * len(rows.env_ids), "actions at final observations are none"


def test_it_goes_on_from_a_saved_state() -> None:
    envs, made, random = games(), observer(), np.random.default_rng(1)
    again = observer()
    for t in range(40):
        rows = envs.recv()
        one = made.observe(rows)
        if t > 20:
            other = again.observe(rows)
            assert torch.equal(one.observation[FRAME], other.observation[FRAME])
            assert one.last_action is not None and other.last_action is not None
            assert torch.equal(one.last_action, other.last_action)
        action = random.integers(0, 4, COUNT)
        for each in (made, again) if t > 20 else (made,):
            each.remember(rows, action)
        if t == 20:
            again.load_state({name: np.array(value) for name, value in made.state().items()})
        envs.send(action)
    assert again.steps == made.steps


@pytest.mark.parametrize("wants_last", [True, False])
def test_inputs_carry_what_the_agent_asks_for(wants_last: bool) -> None:
    inputs = observer(wants_last).observe(games().recv())
    assert inputs.shape == (1, COUNT)
    assert (inputs.last_action is not None) == (inputs.last_reward is not None) == wants_last
    assert inputs.observation[FRAME].shape == (1, COUNT, STACK, 2)
    assert inputs.epsilon is None


def test_inputs_carry_how_much_each_environment_explores() -> None:
    """By the actions taken so far, and for the environments whose rows are in hand."""
    ladder = np.linspace(0.0, 0.5, COUNT, dtype=np.float32)
    asked: list[int] = []

    def explore(made: int) -> np.ndarray:
        asked.append(made)
        return ladder

    made = observer(False, explore=explore)
    rows = games(2).recv()
    made.remember(rows, np.zeros(2, np.int64))
    inputs = made.observe(rows)
    assert inputs.epsilon is not None
    assert inputs.epsilon.tolist() == [ladder[rows.env_ids].tolist()]
    assert inputs.epsilon.dtype == torch.float32
    assert asked == [2]
