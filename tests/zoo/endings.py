"""Every way in which episodes end, or do not."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit

from tests.zoo.entry import Entry
from tests.zoo.small import Small


class Flags(Small):
    """Ends with flags of its own choice."""

    def __init__(self, terminated: Any, truncated: Any, length: int = 5) -> None:
        super().__init__(length=length)
        self.flags = terminated, truncated

    def ends(self) -> tuple[Any, Any]:
        return self.flags if self.t >= self.length else (type(self.flags[0])(0), type(self.flags[1])(0))


class Never(Small):
    """Goes on for ever."""

    def ends(self) -> tuple[Any, Any]:
        return False, False


class Drawn(Small):
    """How long an episode lasts is drawn at its start, and shown."""

    def __init__(self) -> None:
        super().__init__(spaces.Discrete(10))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        _, info = super().reset(seed=seed)
        self.length = int(self.np_random.integers(1, 10))
        return self.length, info

    def seen(self) -> Any:
        return self.length


class Chance(Small):
    """May end at each step, after the first one too."""

    def ends(self) -> tuple[Any, Any]:
        return bool(self.np_random.random() < 0.2), False


class Alternating(Small):
    """Its episodes end in turn by themselves and by a limit: which, follows from the seed."""

    def ends(self) -> tuple[Any, Any]:
        over = self.t >= 4
        return over and self.wins, over and not self.wins

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        given = super().reset(seed=seed)
        self.wins = bool(self.np_random.integers(2))
        return given


def limited() -> gymnasium.Env[Any, Any]:
    """A wrapper cuts it."""
    return TimeLimit(Never(), 5)


def wrapped() -> gymnasium.Env[Any, Any]:
    """Some of Gymnasium's own wrappers around it."""
    inner = gymnasium.wrappers.RecordEpisodeStatistics(limited())
    return gymnasium.wrappers.TransformReward(gymnasium.wrappers.NormalizeObservation(inner), lambda reward: reward / 2)


def registered() -> gymnasium.Env[Any, Any]:
    """A limit that its registration names."""
    if "zoo/Registered-v0" not in gymnasium.registry:
        gymnasium.register("zoo/Registered-v0", Never, max_episode_steps=5, disable_env_checker=True)
    return gymnasium.make("zoo/Registered-v0")


ENDLESS = r"no episode ended within \d+ steps.*env\.max_steps"
ENTRIES = [
    Entry("ends-at-once", partial(Small, length=1)),
    Entry("ends-never", Never, options={"evaluation.at_end": False}, ends=False, warns=(ENDLESS,)),
    Entry("ends-never-scored", Never, options={"evaluation.longest": 50}, ends=False, warns=(ENDLESS,)),
    Entry("ends-never-cut", Never, options={"env.max_steps": 5}),
    Entry("ends-truncated", partial(Flags, False, True)),
    Entry("ends-both", partial(Flags, True, True)),
    Entry("ends-numpy-flags", partial(Flags, np.True_, np.False_)),
    Entry("ends-int-flags", partial(Flags, 1, 0)),
    Entry("ends-drawn", Drawn),
    Entry("ends-by-chance", Chance),
    Entry("ends-alternating", Alternating),
    Entry("ends-time-limit", limited),
    Entry("ends-registered", registered),
    Entry(
        "ends-after-600", partial(Small, length=600), options={"evaluation.at_end": False}, ends=False, warns=(ENDLESS,)
    ),
]
