"""The counting environment with stacked frames beside the vector; it can also step only part of its environments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from offbeat.envs.base import EnvConfig
from offbeat.envs.toy import ToyVector
from offbeat.types import OBSERVATION, ArrayDict, ArraySpec, EnvSpec, EnvStep

FRAME = "frame"
STACK = 4


def counting_spec(config: EnvConfig) -> EnvSpec:
    """``toy/counting`` with a second observation [1, 2] = (row + 1, step + 1), shown as a stack of four."""
    spec = ToyVector(config, 1).spec
    observation = spec.observation | {FRAME: ArraySpec((1, 2), "float32")}
    return replace(spec, observation=observation, frame_stack=STACK, stacked=(FRAME,))


SPREAD = 60
"""Rows that one environment may be ahead of another that steps in the same batches: more than a fifo lets it."""


class CountingFrames:
    """``num_envs`` counting environments. With a smaller ``batch_size`` ``recv`` gives some of them in random order."""

    def __init__(self, config: EnvConfig, num_envs: int, batch_size: int | None = None, spread: int = SPREAD) -> None:
        self.spec = counting_spec(config)
        self.num_envs, self.batch_size = num_envs, batch_size or num_envs
        together = self.batch_size == num_envs
        self._parts = [ToyVector(config, num_envs)] if together else [ToyVector(config, 1) for _ in range(num_envs)]
        self._together, self._spread = together, spread

    def reset(self, seed: int) -> None:
        """All environments are ready with their first rows."""
        for index, part in enumerate(self._parts):
            part.reset(seed + index)
        self._order = np.random.default_rng(seed)
        self._given = np.zeros(len(self._parts), np.int64)
        self._waiting: list[int] = []

    def recv(self) -> EnvStep:
        """The next rows of all environments, or of ``batch_size`` of them."""
        if self._together:
            return _with_frames(self._parts[0].recv())
        pace = self._order.random(len(self._parts)) * (1 + np.arange(len(self._parts)))  # some are slower by far
        order = np.argsort(-pace)
        late = self._given[order] - self._given.min() < self._spread
        drawn = np.concatenate([order[late], order[~late]])[: self.batch_size].tolist()
        self._given[drawn] += 1
        self._waiting = drawn
        rows = [self._parts[env].recv() for env in drawn]
        names = ("reward", "raw_reward", "terminated", "truncated", "first", "valid")
        joined = {name: np.concatenate([getattr(row, name) for row in rows]) for name in names}
        seen = {OBSERVATION: np.concatenate([row.observation[OBSERVATION] for row in rows])}
        return _with_frames(EnvStep(env_ids=np.array(drawn), observation=seen, **joined))

    def send(self, action: np.ndarray) -> None:
        """Actions for the environments of the last ``recv``."""
        if self._together:
            self._parts[0].send(action)
            return
        for env, own in zip(self._waiting, action, strict=True):
            self._parts[env].send(own[None])

    def state(self) -> ArrayDict:
        """The counting environments' state."""
        return self._parts[0].state()

    def load_state(self, state: ArrayDict) -> None:
        """Go back to a saved state."""
        self._parts[0].load_state(state)

    def close(self) -> None:
        """Nothing to free."""


def make_counting(
    config: EnvConfig, num_envs: int, *, batch_size: int | None, threads: int, deterministic: bool
) -> CountingFrames:
    """A user's environment factory."""
    return CountingFrames(config, num_envs, batch_size)


def _with_frames(rows: EnvStep) -> EnvStep:
    count = rows.observation[OBSERVATION]
    frame = np.stack([count[:, 2] + 1, count[:, 0] + 1], axis=1)[:, None].astype(np.float32)
    rows.observation = {OBSERVATION: count, FRAME: frame}
    return rows
