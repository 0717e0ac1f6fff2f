"""Calls of Gymnasium's interface that say in one line what an environment gave instead of what it should."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium
import numpy as np

from offbeat.envs.base import Misbehaved
from offbeat.errors import in_short


def reset_env(env: gymnasium.Env[Any, Any], seed: int, env_id: str) -> tuple[Any, dict[str, Any]]:
    """What ``reset(seed=seed)`` gives; ``Misbehaved`` where it gives another thing or takes no seed."""
    try:
        given = env.reset(seed=seed)
    except TypeError as error:
        if "seed" in str(error) and not _takes_seed(env):
            raise Misbehaved(
                f"{env_id}: reset() takes no seed; write def reset(self, *, seed=None, options=None) and begin it with "
                "super().reset(seed=seed)"
            ) from error
        raise
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], dict)):
        raise Misbehaved(
            f"{env_id}: reset() must return (observation, info), info a dict, as Gymnasium has it since 0.26; "
            f"it returned {_said(given)}"
        )
    return given


def step_env(env: gymnasium.Env[Any, Any], action: Any, env_id: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
    """Observation, reward, terminated, truncated, info of one step. ``Misbehaved`` where it gives something else."""
    given = env.step(action)
    if not (isinstance(given, tuple) and len(given) == 5):
        raise Misbehaved(
            f"{env_id}: step() must return (observation, reward, terminated, truncated, info), as Gymnasium has it "
            f"since 0.26; it returned {_said(given)}"
        )
    observation, reward, terminated, truncated, info = given
    if type(reward) is not float:
        reward = _number(reward, env_id)
    ended = _flag(terminated, "terminated", env_id), _flag(truncated, "truncated", env_id)
    return observation, reward, *ended, info if isinstance(info, dict) else {}


def _number(reward: Any, env_id: str) -> float:
    """A reward that is no float as one."""
    if np.ndim(reward) != 0 or isinstance(reward, str | bytes | complex) or reward is None:
        raise Misbehaved(f"{env_id}: step() must return the reward as a number; it returned {_said(reward)}")
    try:
        return float(reward)
    except (TypeError, ValueError):
        raise Misbehaved(f"{env_id}: step() must return the reward as a number; it returned {_said(reward)}") from None


def _flag(value: Any, name: str, env_id: str) -> bool:
    if value is True or value is False:
        return bool(value)
    if np.ndim(value) != 0 or np.asarray(value).dtype.kind not in "biu":
        raise Misbehaved(f"{env_id}: step() must return {name} as True or False; it returned {_said(value)}")
    return bool(value)


def _takes_seed(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether the innermost environment's ``reset`` can be given a seed."""
    try:
        parameters = inspect.signature(env.unwrapped.reset).parameters
    except (TypeError, ValueError):
        return True
    return "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def _said(value: Any) -> str:
    """A value in short."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} of {value.dtype}"
    return in_short(f"{type(value).__name__} {value!r}")
