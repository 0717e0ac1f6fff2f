"""Notes down what a Gymnasium environment gives before anything is made of it: ranges, types, buffers, times."""

from __future__ import annotations

import copy
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from offbeat.acting.env_report import Sandbox
from offbeat.envs.base import Misbehaved
from offbeat.envs.manners import changes, same_space
from offbeat.envs.spaces import Leaf

MASKS = ("action_mask", "action_masks", "legal_actions", "avail_actions")
"""Keys under which environments say which actions are legal."""


@dataclass
class LeafLog:
    """One part of the observation, as it was given."""

    leaf: Leaf
    low: float = np.inf
    high: float = -np.inf
    kinds: set[str] = field(default_factory=set)
    """Types or dtypes."""
    outside: str = ""
    """The first value beyond the space's bounds."""
    buffered: bool = False
    """Whether an array that was given has changed afterwards."""
    _last: Any = None
    _copy: Any = None

    def add(self, observation: Any) -> None:
        """Note one observation. What is no number, or not there, is left to those who check it."""
        try:
            value = self.leaf.pick(observation)
        except Misbehaved:
            return
        kind, array = type(value).__name__, np.asarray(value)
        self.kinds.add(str(array.dtype) if isinstance(value, np.ndarray | np.generic) else kind)
        if array.dtype.kind not in "biuf" or not array.size:
            return
        if isinstance(self._last, np.ndarray) and not np.array_equal(self._last, self._copy, equal_nan=True):
            self.buffered = True
        self._last, self._copy = value, np.array(value)
        array = array[np.isfinite(array)]
        if array.size:
            self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
        self._compare(value)

    def _compare(self, value: Any) -> None:
        space = self.leaf.space
        if self.outside or not isinstance(space, spaces.Box) or np.shape(value) != space.shape:
            return
        array = np.asarray(value)
        beyond = ((array < space.low) | (array > space.high)) & np.isfinite(array)
        if beyond.any():
            at = tuple(int(i) for i in np.argwhere(beyond)[0])
            self.outside = f"{array[at]:.6g} where {space.low[at]:.6g} to {space.high[at]:.6g} is declared"


@dataclass
class Log:
    """What the environments of one trial gave, all episodes together."""

    leaves: list[LeafLog]
    steps: int = 0
    resets: int = 0
    step_s: list[float] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    reward_kinds: set[str] = field(default_factory=set)
    ends: Counter[str] = field(default_factory=Counter)
    lengths: list[int] = field(default_factory=list)
    """Of the episodes that ended."""
    extra: set[str] = field(default_factory=set)
    """Keys of observations that their space does not have."""
    masks: set[str] = field(default_factory=set)
    """Keys that look like masks of actions, and where they were."""
    moved: dict[str, str] = field(default_factory=dict)
    """Space that changed -> the line that says so."""


class Recorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose every step and reset is noted in ``log`` and called through ``box``."""

    def __init__(self, env: gymnasium.Env[Any, Any], log: Log, box: Sandbox, lent: bool = False) -> None:
        """``lent``: it is never closed here."""
        super().__init__(env)
        self._log, self._box, self._length, self._closed = log, box, 0, lent
        self._before = {name: _copied(getattr(env, name, None)) for name in ("observation_space", "action_space")}

    def reset(self, **given: Any) -> Any:  # type: ignore[override]
        """Exactly the arguments that offbeat gives, as a reset may take no others."""
        with self._box.calling("reset()"):
            outcome = self.env.reset(**given)
        self._log.resets += 1
        self._length = 0
        if isinstance(outcome, tuple) and len(outcome) == 2:
            self._note(*outcome)
        return outcome

    def step(self, action: Any) -> Any:
        """One step."""
        started = time.perf_counter()
        with self._box.calling("step()"):
            outcome: Any = self.env.step(action)
        log = self._log
        log.step_s.append(time.perf_counter() - started)
        log.steps += 1
        self._length += 1
        if isinstance(outcome, tuple) and len(outcome) == 5:
            observation, reward, terminated, truncated, info = outcome
            self._note(observation, info)
            log.reward_kinds.add(_kind(reward))
            if reward is not None and np.ndim(reward) == 0 and np.asarray(reward).dtype.kind in "biuf":
                log.rewards.append(float(reward))
            self._end(terminated, truncated)
        return outcome

    def close(self) -> None:
        """Once, whoever asks for it and how often."""
        if not self._closed:
            self._closed = True
            with self._box.calling("close()", "; a run says so and goes on; close() must not fail"):
                self.env.close()

    def _end(self, terminated: Any, truncated: Any) -> None:
        flags = [name for name, flag in (("terminated", terminated), ("truncated", truncated)) if np.any(flag)]
        if flags:
            self._log.ends[" and ".join(flags)] += 1
            self._log.lengths.append(self._length)

    def _note(self, observation: Any, info: Any) -> None:
        log = self._log
        for leaf in log.leaves:
            leaf.add(observation)
        extra_keys(self._before["observation_space"], observation, "", log.extra)
        if isinstance(info, dict):
            log.masks |= {f"info[{key!r}]" for key in MASKS if key in info}
        if isinstance(observation, dict):
            log.masks |= {key for key in MASKS if key in observation}
        if self._length % 16 == 0:
            self._compare_spaces()

    def _compare_spaces(self) -> None:
        for name, before in self._before.items():
            with self._box.calling(name):
                now = getattr(self.env, name)
            if name not in self._log.moved and not same_space(now, before):
                self._log.moved[name] = changes(name, before, now)


def _copied(space: Any) -> Any:
    """A copy to compare with later; where it cannot be copied itself, and changes in it are not seen."""
    try:
        return copy.deepcopy(space)
    except Exception:  # a class of the user's
        return space


def extra_keys(space: spaces.Space[Any], observation: Any, path: str, found: set[str]) -> None:
    """Add to ``found`` the keys of ``observation`` that a Dict space does not have, dotted."""
    if isinstance(space, spaces.Dict) and isinstance(observation, dict):
        found |= {f"{path}{key}" for key in observation if key not in space.spaces}
        for key, part in space.spaces.items():
            extra_keys(part, observation.get(key), f"{path}{key}.", found)
    elif isinstance(space, spaces.Tuple) and isinstance(observation, tuple | list):
        for index, (part, value) in enumerate(zip(space.spaces, observation, strict=False)):
            extra_keys(part, value, f"{path}{index}.", found)


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"array {list(value.shape)} of {value.dtype}"
    return type(value).__name__
