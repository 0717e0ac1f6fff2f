"""A few hundred rows played with a run's newest weights, as it plays in training. The run folder stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.acting.episodes import Player, network_device
from offbeat.agents.base import Agent, Explores
from offbeat.config.run_config import RunConfig
from offbeat.envs.base import VectorEnv
from offbeat.scoring.diagnose.record import Fresh, Seen
from offbeat.scoring.diagnose.units import watched
from offbeat.types import LEGAL, ActionSpec, ArraySpec, EnvStep

BATCH_ROWS = 256
"""Rows of a batch, those of all environments together. Unit: agent steps."""
ENVS = 8
"""Environments that play at most."""


def play_fresh(
    run: Path, config: RunConfig, batches: int = 4, *, device: str | None = None, say: Callable[[str], None], **own: Any
) -> Fresh:
    """Play ``batches`` of ``BATCH_ROWS`` rows in the run's training environment, exploring as it does now.

    Args:
        run: run folder; it is only read.
        config: of the run.
        batches: at least 1.
        device: where the network computes; None: the run's device where this machine has it.
        say: is told what closing the environment raises.
        own: the run's ``env_factory``, ``agent_factory`` or ``torso``, if it had one of the user's.

    Raises what making the environment or the agent raises: ``UserError`` where there is no checkpoint.
    """
    from offbeat.envs.closing import closed_after
    from offbeat.envs.manners import check_like
    from offbeat.envs.registry import make_env
    from offbeat.run.load import load_agent, restored_steps

    agent, meta = load_agent(run, config, device=device, **own)
    streams = config.actor.workers * config.actor.envs_per_worker
    players = agent.spec.players
    count = max(1, min(ENVS, streams) // players) * players
    env = make_env(config.env, count, factory=own.get("env_factory"))
    with closed_after(env, config.env.id, say), watched(agent.network) as watch:
        check_like(env.spec, agent.spec, "what is to be played", "the agent's own environment")
        explore = exploration(agent, count, max(count, streams), restored_steps(meta))
        generator = torch.Generator(network_device(agent)).manual_seed(config.seed)
        player = Player(agent, count, greedy=False, generator=generator, explore=explore)
        tally = Tally(env.spec.observation, env.spec.action, count)
        _play(env, player, tally, config.seed, batches * BATCH_ROWS)
        layers = watch.layers
    return tally.result(layers)


def exploration(agent: Agent, count: int, streams: int, steps: int) -> Callable[[int], np.ndarray] | None:
    """Epsilons [count] of ``count`` environments that stand for all ``streams`` of a run after ``steps`` agent steps;
    None where the agent has none.
    """
    if not isinstance(agent, Explores):
        return None
    stream = np.linspace(0, streams - 1, count).round().astype(np.int64)
    epsilon = agent.exploration(stream, streams, steps)
    return lambda taken: epsilon


def _play(env: VectorEnv, player: Player, tally: Tally, seed: int, rows: int) -> None:
    env.reset(seed)
    while True:
        step = env.recv()
        tally.add(step)
        if tally.rows >= rows:
            return
        action = player.act(step)
        tally.chose(step, action)
        env.send(action)


class Tally:
    """Adds up rows."""

    def __init__(self, observation: dict[str, ArraySpec], action: ActionSpec, count: int) -> None:
        """``observation``: of single frames, ``count``: environments."""
        self._specs = {key: spec for key, spec in observation.items() if key != LEGAL or not action.choices}
        self.rows = 0
        """Actions whose outcome was seen."""
        self._raw: list[np.ndarray] = []
        self._trained: list[np.ndarray] = []
        self._lengths: list[int] = []
        self._truncated = 0
        self._now = np.zeros(count, np.int64)
        self._bounds = {key: [np.inf, -np.inf, 0] for key in self._specs}
        self._first: dict[str, np.ndarray] = {}
        self._moved: dict[str, bool] = dict.fromkeys(self._specs, False)
        self._chosen = [np.zeros(choices, np.int64) for choices in action.choices]
        self._legal = [np.zeros(choices, bool) for choices in action.choices]
        self._several = action.kind == "multi_discrete"

    def add(self, step: EnvStep) -> None:
        """Count one row of some environments."""
        acted = ~step.first
        self.rows += int(acted.sum())
        self._raw.append(step.raw_reward[acted].astype(np.float64))
        self._trained.append(step.reward[acted].astype(np.float64))
        self._now[step.env_ids] = np.where(step.first, 0, self._now[step.env_ids] + 1)
        ended = acted & ~step.valid
        self._lengths += self._now[step.env_ids[ended]].tolist()
        self._truncated += int((ended & step.truncated & ~step.terminated).sum())
        for key in self._specs:
            self._look(key, step.observation[key])

    def _look(self, key: str, array: np.ndarray) -> None:
        """``array``: [n, ...] of one key."""
        if not array.size:
            return
        first = self._first.setdefault(key, array[0].copy())
        same = array == first
        if array.dtype.kind == "f":
            same |= np.isnan(array) & np.isnan(first)
            finite = array[np.isfinite(array)]
            self._bounds[key][2] += array.size - finite.size
            array = finite
        self._moved[key] = self._moved[key] or not bool(same.all())
        if array.size:
            low, high, _ = self._bounds[key]
            self._bounds[key][:2] = min(low, float(array.min())), max(high, float(array.max()))

    def chose(self, step: EnvStep, action: np.ndarray) -> None:
        """Actions [n, ...] were chosen at the rows of ``step``."""
        if not self._chosen:
            return
        mask = step.observation.get(LEGAL)
        sizes = [len(chosen) for chosen in self._chosen]
        legal = [np.ones((1, size), bool) for size in sizes]
        if mask is not None:
            legal = np.split(mask[step.valid] > 0, np.cumsum(sizes)[:-1], -1)
        picked = action[step.valid] if self._several else action[step.valid, None]
        for index, chosen in enumerate(self._chosen):
            chosen += np.bincount(picked[:, index].astype(np.int64), minlength=len(chosen))
            self._legal[index] |= legal[index].any(0)

    def result(self, layers: Any = ()) -> Fresh:
        """All of it. ``layers``: of the network that acted."""
        seen = {}
        for key, spec in self._specs.items():
            low, high, odd = self._bounds[key]
            seen[key] = Seen(low, high, int(odd), self._moved[key], spec.dtype != "float32")
        actions = [np.where(legal, chosen, -1) for chosen, legal in zip(self._chosen, self._legal, strict=True)]
        raw, trained = (np.concatenate([np.zeros(0), *rows]) for rows in (self._raw, self._trained))
        return Fresh(raw, trained, tuple(self._lengths), self._truncated, seen, tuple(actions), tuple(layers))
