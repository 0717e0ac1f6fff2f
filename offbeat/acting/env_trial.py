"""Plays environments with random actions through the same calls as a run, and adds up what comes out."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from offbeat.acting.episodes import Player
from offbeat.agents import random
from offbeat.agents.make import agent_config_class, list_agents, make_agent
from offbeat.envs.base import VectorEnv
from offbeat.types import LEGAL, ArraySpec, EnvSpec, EnvStep

KEPT = 100
"""So many rows of a trial are kept to be compared with another one's."""
LEARNS_NOTHING = ("noop", "random")
LARGEST_SIDE, LARGEST_VECTOR = 84, 4096
"""Whether an agent takes an observation does not depend on more than this, and a huge network need not be made."""


@dataclass
class KeyTally:
    """One key of the observations, as networks see it."""

    low: float = np.inf
    high: float = -np.inf
    odd: dict[str, int] = field(default_factory=dict)
    """``nan``, ``inf`` or ``-inf`` -> the step at which it came first."""

    def add(self, array: np.ndarray, step: int) -> None:
        """Note the values [n, ...] of one row."""
        if not array.size:
            return
        low, high = float(array.min()), float(array.max())
        if not np.isfinite([low, high]).all():
            for name in {str(float(x)) for x in array[~np.isfinite(array)].ravel()}:
                self.odd.setdefault(name, step)
            array = array[np.isfinite(array)]
            if not array.size:
                return
            low, high = float(array.min()), float(array.max())
        self.low, self.high = min(self.low, low), max(self.high, high)


@dataclass
class Trial:
    """What some steps of ``num_envs`` environments came to."""

    spec: EnvSpec
    num_envs: int
    rows: list[EnvStep] = field(default_factory=list)
    """The first ``KEPT``."""
    steps: int = 0
    """Rounds: each is a step of every environment."""
    whole: bool = False
    """Whether nothing went wrong before the steps or the time were over."""
    seconds: float = 0.0
    seen: dict[str, KeyTally] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    """Of the episodes that ended."""
    rewards: list[np.ndarray] = field(default_factory=list)
    """As the environment gives them."""
    trained_on: list[np.ndarray] = field(default_factory=list)
    """After clipping and scaling."""
    starts: list[dict[str, np.ndarray]] = field(default_factory=list)
    """First observations of episodes."""
    legal: Counter[int] = field(default_factory=Counter)
    """How many actions were legal in rows that take one; of several components, in the one with the fewest."""
    _now: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    def add(self, rows: EnvStep) -> None:
        """Count one row of each environment."""
        if len(self.rows) < KEPT:
            self.rows.append(rows)
        for key, array in rows.observation.items():
            self.seen.setdefault(key, KeyTally()).add(array, self.steps)
        if not len(self._now):
            self._now = np.zeros(self.num_envs, np.int64)
        self._now[rows.env_ids] = np.where(rows.first, 0, self._now[rows.env_ids] + 1)
        acted = ~rows.first
        self.rewards.append(rows.raw_reward[acted])
        self.trained_on.append(rows.reward[acted])
        ended = acted & ~rows.valid
        for name in ("terminated", "truncated"):
            self.ends[name] += int((getattr(rows, name) & ended).sum())
        self.lengths += self._now[rows.env_ids[ended]].tolist()
        if len(self.starts) < KEPT:
            self.starts += [{k: v[i] for k, v in rows.observation.items()} for i in np.flatnonzero(rows.first)]
        if LEGAL in rows.observation:
            mask = rows.observation[LEGAL][rows.valid] > 0
            parts = np.split(mask, np.cumsum(self.spec.action.choices)[:-1], -1)
            self.legal.update(np.minimum.reduce([part.sum(-1) for part in parts]).tolist())


def play(envs: VectorEnv, trial: Trial, seed: int, steps: int, seconds: float) -> None:
    """Random legal actions from a reset, for so many steps or until the time is up; at least one step."""
    agent = random.Agent(random.Config(), envs.spec)
    player = Player(agent, envs.num_envs, greedy=False, generator=torch.Generator().manual_seed(seed))
    started = time.perf_counter()
    envs.reset(seed)
    rows = envs.recv()
    trial.add(rows)
    while trial.steps < steps and (not trial.steps or time.perf_counter() - started < seconds):
        envs.send(player.act(rows))
        trial.steps += 1
        rows = envs.recv()
        trial.add(rows)
        trial.seconds = time.perf_counter() - started
    trial.whole = True


def difference(one: Trial, two: Trial) -> str:
    """Where two trials of the same seed and actions part; empty: they do not, as far as both were kept."""
    for step, (a, b) in enumerate(zip(one.rows, two.rows, strict=False)):
        for key in a.observation:
            if not np.array_equal(a.observation[key], b.observation[key], equal_nan=True):
                return f"observation {key!r} differs in step {step}"
        if not np.array_equal(a.raw_reward, b.raw_reward, equal_nan=True):
            return f"the reward differs in step {step}"
        if not np.array_equal(a.valid, b.valid):
            return f"one episode ends in step {step}, the other does not"
    return ""


def takers(spec: EnvSpec) -> tuple[list[str], dict[str, str]]:
    """Agents that can be made for ``spec``; and the others, with the reason."""
    small = replace(spec, observation={key: _smaller(key, array) for key, array in spec.observation.items()})
    good, others = [], {}
    for name in list_agents():
        if name in LEARNS_NOTHING:
            continue
        try:
            with torch.random.fork_rng(devices=[]):
                make_agent(name, agent_config_class(name)(), small)
            good.append(name)
        except Exception as error:  # of the agent, which may be anybody's
            others[name] = " ".join(str(error).split())
    return good, others


def _smaller(key: str, spec: ArraySpec) -> ArraySpec:
    if key == LEGAL:
        return spec
    if len(spec.shape) == 3:
        return replace(spec, shape=(spec.shape[0], *(min(side, LARGEST_SIDE) for side in spec.shape[1:])))
    return spec if np.prod(spec.shape) <= LARGEST_VECTOR else replace(spec, shape=(LARGEST_VECTOR,))
