"""Any environment with a simulated delay: what a policy sees is old when its action takes effect.

The frames are those of K environments of one each; the rows are those of the decisions that act, see ``decisions``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np

from offbeat.envs.base import EnvConfig, Misbehaved, VectorEnv
from offbeat.envs.closing import close_envs, closed_on_failure
from offbeat.envs.decisions import DecisionRows
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.delay_schedule import make_schedule
from offbeat.envs.rows import check_actions, handed_out
from offbeat.envs.seeding import env_seeds
from offbeat.envs.several import PlaysList
from offbeat.types import ArrayDict, EnvStep, under

MOST_IDLE = 100
"""So many episodes of an environment may end, one after the other, before any decision has acted."""


def undelayed(config: EnvConfig) -> EnvConfig:
    """The same environment, which waits for its agent."""
    return replace(config, delay=DelayConfig()) if config.delay.active else config


class DelayedVector:
    """K environments that do not wait, as a ``VectorEnv``: its rows are those of the decisions that act.

    One step takes each environment to its next decision, which may be many frames away; ``elapsed`` says how many. Each
    decision is asked for when it acts: what an agent answers depends on the row alone, not on when it is asked.

    Args:
        delay: when decisions act, and what acts else.
        num_envs: K.
        make: makes one environment, without a delay, as a ``VectorEnv`` of one.
        name: of the environment, for messages.
    """

    def __init__(self, delay: DelayConfig, num_envs: int, make: Callable[[], VectorEnv], name: str) -> None:
        delay.check()
        self._envs: list[VectorEnv] = []
        self._name = name
        with closed_on_failure(self._envs, name):
            self.rows: list[DecisionRows] = []
            for place in range(num_envs):
                self._envs.append(make())
                self.rows.append(DecisionRows(self._envs[-1], delay, seed=place))
        self.schedules = [make_schedule(delay) for _ in range(num_envs)]
        self.spec = self.rows[0].spec
        self.num_envs = self.batch_size = num_envs
        playing = [env for env in self._envs if isinstance(env, PlaysList)]
        if playing:  # as of a list, see PlaysList
            self.game_of = lambda env: playing[env].game_of(0)
        self._idle = np.zeros(num_envs, int)  # episodes in a row that ended before any decision acted
        self._final = np.zeros(num_envs, bool)  # the row in hand carries a final observation
        self._rows: EnvStep | None = None

    @property
    def frames(self) -> int:
        """Frames played since the reset, of all environments."""
        return sum(rows.frames for rows in self.rows)

    @property
    def inaction(self) -> int:
        """Those of them that the default behaviour played."""
        return sum(rows.inaction for rows in self.rows)

    def reset(self, seed: int) -> None:
        """Start all episodes; one environment alone gets ``seed`` itself, as it would without a delay."""
        seeds = [seed, *env_seeds(seed, self.num_envs)[1:].tolist()]
        for place, (rows, own) in enumerate(zip(self.rows, seeds, strict=True)):
            rows.reset(own)
            self.schedules[place].reset(np.random.default_rng([seed, place]))
        self._rows = self._joined([self._advance(place) for place in range(self.num_envs)])

    def recv(self) -> EnvStep:
        """The rows of the next decisions."""
        rows, self._rows = handed_out(self._rows), None
        return rows

    def send(self, action: np.ndarray) -> None:
        """Let these decisions act, and go on to the next."""
        action = check_actions(action, self.spec.action, self.num_envs)
        found = []
        for place, rows in enumerate(self.rows):
            if self._final[place]:
                rows.restart()
                self.schedules[place].start()
            elif not rows.over:  # an episode that ended before any decision acted takes none
                rows.step(action[place : place + 1])
            found.append(self._advance(place))
        self._rows = self._joined(found)

    def _advance(self, place: int) -> EnvStep:
        """Go on to the next decision, or to the episode's end."""
        rows, schedule = self.rows[place], self.schedules[place]
        while not rows.over:
            source = schedule.source(rows.frame)
            if source is not None:
                self._final[place], self._idle[place] = False, 0
                return rows.decide(source)
            rows.step(None)
        if not rows.asked:
            self._check_idle(place, rows.frame)
        source = schedule.pending(rows.frame)
        self._final[place] = rows.asked
        return rows.end(source) if rows.asked else rows.decide(source)

    def _check_idle(self, place: int, frames: int) -> None:
        """Count an episode of so many frames in which no decision acted; raise Misbehaved if there is nothing else, for
        then there is nothing to learn from, however long one waits.
        """
        self._idle[place] += 1
        if self._idle[place] >= MOST_IDLE:
            raise Misbehaved(
                f"{self._name}: {MOST_IDLE} episodes in a row ended before any decision acted, the last one after "
                f"{frames} frames; the delay ([delay]) is longer than they are: make it shorter"
            )

    def _joined(self, found: list[EnvStep]) -> EnvStep:
        if len(found) == 1:
            return found[0]
        columns = {
            field.name: np.concatenate([getattr(row, field.name) for row in found])
            for field in fields(EnvStep)
            if field.name not in ("env_ids", "observation")
        }
        seen = {key: np.concatenate([row.observation[key] for row in found]) for key in self.spec.observation}
        return EnvStep(env_ids=np.arange(self.num_envs), observation=seen, **columns)

    def state(self) -> ArrayDict:
        """Every environment, its frames and its schedule."""
        saved: ArrayDict = {"final": self._final.copy()}
        for place, (rows, schedule) in enumerate(zip(self.rows, self.schedules, strict=True)):
            saved |= {f"{place}/rows/{name}": value for name, value in rows.state().items()}
            saved |= {f"{place}/schedule/{name}": value for name, value in schedule.state().items()}
        return saved

    def load_state(self, state: ArrayDict) -> None:
        """Go on from ``state()``; the next call must be ``send``."""

        for place, (rows, schedule) in enumerate(zip(self.rows, self.schedules, strict=True)):
            rows.load_state(under(state, f"{place}/rows/"))
            schedule.load_state(under(state, f"{place}/schedule/"))
        self._final[:] = state["final"]
        self._rows = None

    def close(self) -> None:
        """Close all environments, whatever some raise."""
        if line := close_envs(self._envs, self._name):
            raise Misbehaved(line)
