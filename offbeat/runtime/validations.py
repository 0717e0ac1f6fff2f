"""When the agent is scored on what it was not trained on, and whether its weights are the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from offbeat.runtime.clock import Clock


@dataclass(frozen=True)
class ValidationConfig:
    """Scores during a run on levels or seeds that are not trained on, by which the best weights are kept. Off unless
    ``every_steps`` or ``every_minutes`` is set."""

    every_steps: int = 0
    """A validation starts each time the run has come so many agent steps further; 0: none by steps. Unit: agent
    steps."""
    every_minutes: float = 0.0
    """Also so many minutes after the last one; 0: none by time. Not used in deterministic runs, nor inline. Unit:
    minutes."""
    episodes: int = 10
    """Whole episodes per validation, in ``valid_env``; the same games each time, as far as a seed decides them."""
    envs: int = 10
    """Environments that play them, as of ``evaluation.envs``."""
    policy: Literal["greedy", "sampled"] = "sampled"
    """As of ``evaluation.policy``. Source: R2AC's published code draws actions in validations."""

    @property
    def wanted(self) -> bool:
        """Whether there are any."""
        return bool(self.every_steps or self.every_minutes)


class Validations:
    """The schedule of one run, in its main process.

    Args:
        config: of the run.
        clock: of the run; minutes are counted over all of its parts, without the time between them.
        fixed: the run's schedule is a fixed one, so that minutes do not count.
        saved: an earlier ``state()``, which the run goes on from; {} for a new one.

    Attributes:
        best: highest mean return so far; -inf before the first.
        playing: one is being played.
    """

    def __init__(self, config: ValidationConfig, clock: Clock, *, fixed: bool, saved: Mapping[str, Any]) -> None:
        self._every_steps = config.every_steps
        self._every_s = 0.0 if fixed else 60.0 * config.every_minutes
        self._clock = clock
        best = saved.get("best")
        self.best = -math.inf if best is None else float(best)
        self._passed, self._since = int(saved.get("passed", 0)), clock.now() - float(saved.get("since_s", 0.0))
        self._begun = self._passed, self._since
        self.playing = False

    def due(self, agent_steps: int) -> bool:
        """Whether one should start now, at so many agent steps of the run; counts it. Never while one is played."""
        if self.playing or not (self._by_steps(agent_steps) or self._by_time()):
            return False
        self._begun = agent_steps // self._every_steps if self._every_steps else 0, self._clock.now()
        self.playing = True
        return True

    def _by_steps(self, agent_steps: int) -> bool:
        return bool(self._every_steps) and agent_steps // self._every_steps > self._passed

    def _by_time(self) -> bool:
        return bool(self._every_s) and self._clock.now() - self._since >= self._every_s

    def done(self, mean: float, complete: bool) -> bool:
        """The one that was due has ended; whether its ``mean`` return is higher than all before.

        One that was not ``complete`` counts for nothing: it is due again.
        """
        self.playing = False
        if not complete:
            return False
        self._passed, self._since = self._begun
        return mean > self.best

    def state(self) -> dict[str, Any]:
        """What a checkpoint must remember, as JSON can hold it; one that is being played is none yet."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "passed": self._passed, "since_s": self._clock.now() - self._since}
