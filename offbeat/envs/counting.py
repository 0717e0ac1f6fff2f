"""Counting: an environment whose every row is predictable, for tests that nothing is lost, doubled or reordered."""

from __future__ import annotations

import numpy as np

from offbeat.envs.toy_games import Outcome, discrete
from offbeat.types import OBSERVATION, ArrayDict, ArraySpec

NUM_ACTIONS = 4


def counting_reward(row: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The reward of ``action`` taken at row ``row`` of the stream: (7 row + 3 action) mod 11."""
    return (7 * row + 3 * action) % 11.0


class Counting:
    """Observation float32 [3]: (step in the episode, number of the episode, number of the row), all from 0.

    The third entry counts every row of the environment, final-observation rows included, so that it equals the row's
    index in its stream. Each episode's length is drawn from 1 to 2 length - 1 steps; half of them end by termination,
    half by truncation. The reward is ``counting_reward``.
    """

    def __init__(self, count: int, length: int) -> None:
        self.length = length
        self.observation = {OBSERVATION: ArraySpec((3,), "float32", 0.0, None)}
        self.action = discrete(NUM_ACTIONS)
        self.limit = 2 * length
        self.scores: tuple[float, float] | None = None
        names = ("step", "episode", "row", "end", "cut")
        self.fields: ArrayDict = {name: np.zeros(count, np.int64) for name in names}
        self.fields["episode"] -= 1
        self.fields["row"] -= 1

    def start(self, games: np.ndarray, generator: np.random.Generator) -> None:
        """Draw when and how the episode will end."""
        f = self.fields
        f["step"][games] = 0
        f["episode"][games] += 1
        f["row"][games] += 1
        f["end"][games] = generator.integers(1, 2 * self.length, size=len(games))
        f["cut"][games] = generator.integers(2, size=len(games))

    def step(self, action: np.ndarray, generator: np.random.Generator) -> Outcome:
        """Count on. Games that have ended keep their count: their next row comes from ``start``."""
        f = self.fields
        reward = counting_reward(f["row"], action)
        going_on = f["step"] < f["end"]
        f["step"] = f["step"] + going_on
        f["row"] = f["row"] + going_on
        return reward, reward, (f["step"] >= f["end"]) & (f["cut"] == 0)

    def cut(self) -> np.ndarray:
        """[N] bool: the game was truncated here."""
        return (self.fields["step"] >= self.fields["end"]) & (self.fields["cut"] == 1)

    def observe(self) -> ArrayDict:
        """(step, episode, row)."""
        return {OBSERVATION: np.stack([self.fields[n] for n in ("step", "episode", "row")], axis=1).astype(np.float32)}
