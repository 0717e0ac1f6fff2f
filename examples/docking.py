"""A spacecraft docks: a million steps a second, as all copies are rows of a few arrays.

``python examples/docking.py`` trains on it, ``python examples/docking.py speed`` measures it beside the same rules
written as one object per copy. docs/fast_environments.md explains it line by line.
"""

from __future__ import annotations

import sys
import time
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numba import njit

import offbeat

PUSHES = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
"""What each action adds to the velocity, in units of ``PUSH``: nothing, or one of four engines."""
PUSH, DRAG = np.float32(0.01), np.float32(0.98)
DOCK, SLOW, LOST = np.float32(0.06), np.float32(0.04), np.float32(1.5)
"""Docked is who is so near and so slow; lost is who is so far away."""
LIMIT = 150
"""Steps after which an episode is truncated."""
SHOWN = np.float32(10)
"""Velocities are shown so many times larger, to be of the size of places."""


def begin(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and velocities [count, 2] of new episodes: anywhere on a ring, drifting somewhere."""
    angle, far = generator.uniform(0, 2 * np.pi, count), generator.uniform(0.6, 1.0, count)
    place = np.stack([far * np.cos(angle), far * np.sin(angle)], -1)
    return place.astype(np.float32), generator.uniform(-0.02, 0.02, (count, 2)).astype(np.float32)


class Docking(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """``num_envs`` spacecraft, each of which is to come to rest at the origin.

    Shows place and velocity. The reward is what a step brings it nearer, 1 for docking and -1 for getting lost; both
    are ends. Everything that changes is an array or a generator, so that runs can be saved and resumed exactly.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, max_episode_steps: int = LIMIT) -> None:
        self.num_envs, self.limit = num_envs, max_episode_steps
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.single_action_space = spaces.Discrete(len(PUSHES))
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.place = np.zeros((num_envs, 2), np.float32)
        self.velocity = np.zeros((num_envs, 2), np.float32)
        self.far = np.zeros(num_envs, np.float32)
        self.steps = np.zeros(num_envs, np.int32)
        self.over = np.ones(num_envs, bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start all episodes. One generator serves all copies; it is seeded once, and goes on from then."""
        super().reset(seed=seed)
        self._begin(np.arange(self.num_envs))
        self.over[:] = False
        return self._shown(), {}

    def step(self, actions: np.ndarray) -> Any:
        """One step of each; those that were over begin anew instead."""
        before, anew = self.far.copy(), self.over
        self._move(actions)
        slow = np.abs(self.velocity).max(-1) < SLOW
        docked, lost = (self.far < DOCK) & slow, self.far > LOST
        self.steps += 1
        reward = before - self.far + docked - lost
        terminated, truncated = docked | lost, self.steps >= self.limit
        if anew.any():
            self._begin(np.flatnonzero(anew))
            reward[anew], terminated[anew], truncated[anew] = 0, False, False
        self.over = terminated | truncated
        return self._shown(), reward, terminated, truncated, {}

    def _move(self, actions: np.ndarray) -> None:
        self.velocity = DRAG * self.velocity + PUSH * PUSHES[actions]
        self.place += self.velocity
        self.far = _length(self.place)

    def _begin(self, which: np.ndarray) -> None:
        self.place[which], self.velocity[which] = begin(self.np_random, len(which))
        self.far[which], self.steps[which] = _length(self.place[which]), 0

    def _shown(self) -> np.ndarray:
        """A new array at each step: nobody has to copy it then."""
        return np.concatenate([self.place, SHOWN * self.velocity], -1)


def _length(place: np.ndarray) -> np.ndarray:
    """[n] lengths of [n, 2]."""
    return np.sqrt(place[:, 0] * place[:, 0] + place[:, 1] * place[:, 1])


@njit
def _move_all(place, velocity, far, actions):  # type: ignore[no-untyped-def]
    """What ``Docking._move`` does, one after the other, compiled."""
    for i in range(len(actions)):
        for axis in range(2):
            velocity[i, axis] = DRAG * velocity[i, axis] + PUSH * PUSHES[actions[i], axis]
            place[i, axis] += velocity[i, axis]
        far[i] = np.sqrt(place[i, 0] * place[i, 0] + place[i, 1] * place[i, 1])


class CompiledDocking(Docking):
    """The same with its movement compiled by numba: for rules that are no few array operations."""

    def _move(self, actions: np.ndarray) -> None:
        _move_all(self.place, self.velocity, self.far, actions)


class DockingAlone(gymnasium.Env[Any, Any]):
    """The same rules as one object per copy, as most environments are written."""

    observation_space = spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = spaces.Discrete(len(PUSHES))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Start an episode."""
        super().reset(seed=seed)
        place, velocity = begin(self.np_random, 1)
        self.place, self.velocity, self.steps = place[0], velocity[0], 0
        return self._shown(), {}

    def step(self, action: int) -> Any:
        """One step."""
        before = self._far()
        self.velocity = DRAG * self.velocity + PUSH * PUSHES[action]
        self.place = self.place + self.velocity
        self.steps += 1
        far = self._far()
        docked, lost = bool(far < DOCK and max(abs(self.velocity)) < SLOW), bool(far > LOST)
        reward = float(before - far + np.float32(docked) - np.float32(lost))
        return self._shown(), reward, docked or lost, self.steps >= LIMIT, {}

    def _far(self) -> np.float32:
        x, y = self.place
        return np.sqrt(x * x + y * y)

    def _shown(self) -> np.ndarray:
        return np.concatenate([self.place, SHOWN * self.velocity])


def steps_per_s(envs: Any, seconds: float = 2.0) -> float:
    """Steps per second of one core, all copies together, with random actions."""
    draw, count = np.random.default_rng(0), envs.num_envs
    actions = draw.integers(len(PUSHES), size=(100, count))
    envs.reset(seed=0)
    for action in actions[:10]:  # compiles
        envs.step(action)
    done, took, started = 0, 0.0, time.process_time()
    while not done or took < seconds:
        for action in actions:
            envs.step(action)
        done, took = done + len(actions) * count, time.process_time() - started
    return done / took


def speed(seconds: float = 2.0) -> None:
    """Print what each way of writing it reaches."""
    for count in (16, 64, 256, 1024):
        alone = steps_per_s(gymnasium.vector.SyncVectorEnv([DockingAlone] * count), seconds)
        for kind in (Docking, CompiledDocking):
            rate = steps_per_s(kind(count), seconds)
            ratio = f"{rate / alone:5.1f} times one object each"
            print(f"{count:>5} copies: {kind.__name__:<16} {rate:>12,.0f} steps/s, {ratio}")


def train(**options: Any) -> Any:
    """Train with the preset for environments of one's own, and say what was learnt."""
    options = {"total_frames": 300_000, "evaluation": {"every_frames": 100_000}} | options
    result = offbeat.train("own", env_factory=Docking, actor={"envs_per_worker": 64}, **options)
    print(f"mean return {result.evaluation_mean:.2f}")
    return result


if __name__ == "__main__":  # the processes of the run import this file
    speed() if sys.argv[1:] == ["speed"] else train()
