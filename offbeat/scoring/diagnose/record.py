"""What judges look at: what a run has recorded, and what was seen of it when it played anew."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offbeat.config.run_config import RunConfig

LEAST_EPISODES = 20
"""So many training episodes are needed to say anything of their returns."""
LEAST_LINES, LEAST_UPDATES = 2, 100
"""So many lines of the learner and so many updates are needed to say how a number moves, or that it does not."""
SPREAD = 0.25
"""Returns have risen when their mean has by this many standard deviations, and by three standard errors."""
KEPT_SHARE = 0.5
"""Returns have fallen back when less than this share of the best rise is left at the end."""


@dataclass(frozen=True)
class Seen:
    """One key of the observations, over all fresh rows, as rows of the environment hold them."""

    low: float
    """The least finite number; infinity where there was none."""
    high: float
    """The largest finite number; minus infinity where there was none."""
    odd: int
    """Numbers that are not finite."""
    moves: bool
    """Whether any of its numbers was not the same in all rows."""
    scaled: bool
    """Whether networks scale it themselves: bytes, flags and categories."""


@dataclass(frozen=True)
class Layer:
    """The units of one activation function, over all fresh rows."""

    name: str
    """Of the module with weights before it."""
    kind: str
    """``relu`` or ``tanh``."""
    units: int
    """Neurons, or channels of a convolution."""
    silent: int
    """Units that were 0 in all rows (relu), or as good as -1 or 1 in all of them (tanh): no gradient passes."""


@dataclass(frozen=True)
class Fresh:
    """A few hundred rows that were played with the newest weights, as in training."""

    raw_rewards: np.ndarray
    """[n] float64, of every action, as the game gives them."""
    rewards: np.ndarray
    """[n] float64, the same as trained on: clipped and scaled."""
    lengths: tuple[int, ...] = ()
    """Agent steps of the episodes that ended."""
    truncated: int = 0
    """How many of those were cut by a time limit."""
    observations: Mapping[str, Seen] = field(default_factory=dict)
    """By key; the mask of legal actions is none."""
    actions: tuple[np.ndarray, ...] = ()
    """[A] int64 for each component of discrete actions: how often each was chosen; -1: it was never legal."""
    layers: tuple[Layer, ...] = ()
    """In the order in which a forward comes by them."""

    @property
    def largest(self) -> float:
        """Magnitude of the largest reward that is trained on, of those that are finite; 0 where there is none."""
        finite = self.rewards[np.isfinite(self.rewards)]
        return float(np.abs(finite).max(initial=0.0))


@dataclass(frozen=True)
class Record:
    """What is known of a run. Pure data: judges read it, tests make it up."""

    config: RunConfig
    learner: Sequence[Mapping[str, Any]] = ()
    """The first learner's lines of metrics.jsonl, in order."""
    returns: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """[episodes] float64, raw returns of the training episodes, in order."""
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """[episodes] float64, agent steps of them."""
    evaluations: Sequence[Mapping[str, Any]] = ()
    """The evaluation lines, in order."""
    progress: Sequence[Mapping[str, float]] = ()
    """The rows of progress.csv, without the cells that are empty."""
    cores: int = 0
    """Cores of the machine that it ran on; 0: not known."""
    fresh: Fresh | None = None
    """What it plays now; None: it could not be played."""

    @functools.cached_property
    def known(self) -> frozenset[str]:
        """What judges may ask for: ``episodes``, ``fresh``, ``layers``, ``actions``, ``cores``, ``frames``,
        ``exploration``, ``target``, ``waits``, and names of the learner's numbers.
        """
        fresh, agent = self.fresh, self.config.agent
        there = {
            "episodes": len(self.returns) >= LEAST_EPISODES,
            "fresh": fresh is not None,
            "layers": fresh is not None and bool(fresh.layers),
            "actions": fresh is not None and bool(fresh.actions),
            "cores": self.cores > 0 and self.config.engine != "inline",
            "frames": self.last("frames") > 0,
            "exploration": hasattr(agent, "epsilon_end"),
            "target": hasattr(agent, "target_period"),
            "waits": self.config.engine != "inline" and len(self.progress) >= LEAST_LINES,
        }
        return frozenset({name for name, have in there.items() if have} | {n for line in self.learner for n in line})

    @property
    def paced(self) -> bool:
        """Whether everything that is trained on comes fresh, in the order in which it was acted."""
        return all(sampler.paces for sampler in self.config.replay.samplers)

    def series(self, name: str) -> np.ndarray:
        """[lines] float64: a number of the learner where it was finite, in order."""
        found = [line[name] for line in self.learner if isinstance(line.get(name), int | float)]
        return np.array(found, np.float64)

    def late(self, name: str) -> np.ndarray:
        """Its second half, the newest at least; empty where it was never finite."""
        series = self.series(name)
        return series[len(series) // 2 :]

    def last(self, name: str) -> float:
        """A counter's newest value, of the learner's lines or of progress.csv; 0 where there is none."""
        counted = [float(row[name]) for row in self.progress[-1:] if name in row]
        return max([*counted, *self.series(name)[-1:].tolist()], default=0.0)

    def moving(self, name: str) -> np.ndarray:
        """``series``, or nothing where it is too early to say how it moves."""
        series = self.series(name)
        early = len(series) < LEAST_LINES or self.last("updates") < LEAST_UPDATES
        return series[:0] if early else series

    def column(self, name: str) -> np.ndarray:
        """[rows] float64: a column of the second half of progress.csv, without its empty cells."""
        rows = self.progress[len(self.progress) // 2 :]
        return np.array([row[name] for row in rows if name in row], np.float64)

    @functools.cached_property
    def windows(self) -> tuple[float, float, float]:
        """Mean return of the first and of the last tenth of the training episodes (10 at least), and of the best such
        stretch; NaN where there are too few.
        """
        count = len(self.returns)
        if count < LEAST_EPISODES:
            return (float("nan"),) * 3
        size = max(10, count // 10)
        starts = range(0, count - size + 1, size)
        best = max(float(self.returns[start : start + size].mean()) for start in starts)
        first, last = float(self.returns[:size].mean()), float(self.returns[-size:].mean())
        return first, last, max(best, last)

    @functools.cached_property
    def learns(self) -> bool:
        """Whether returns of training episodes have risen, and have not fallen back."""
        first, last, best = self.windows
        if not np.isfinite(first):
            return False
        size = max(10, len(self.returns) // 10)
        deviation = max(float(self.returns[:size].std()), float(self.returns[-size:].std()))
        needed = deviation * max(SPREAD, 3.0 * (2.0 / size) ** 0.5)
        return last - first > needed and last - first >= KEPT_SHARE * (best - first)
