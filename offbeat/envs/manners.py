"""Calls of Gymnasium's interface that say in one line what an environment gave instead of what it should."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from offbeat.envs.base import Misbehaved
from offbeat.errors import in_short
from offbeat.types import ActionSpec, ArraySpec, EnvSpec

Declared = Mapping[str, spaces.Space[Any]]
"""Name of the attribute -> space."""


def spaces_of(env: Any, names: tuple[str, ...] = ("observation_space", "action_space")) -> Declared:
    """The spaces that an environment declares now."""
    return {name: getattr(env, name) for name in names}


def check_spaces(env: Any, made: Declared, env_id: str) -> None:
    """Refuse an environment that does not declare the spaces that it was ``made`` with any more.

    Asked at each reset, and by identity where nothing has changed: it costs nothing per step. What a step has changed
    shows at the reset after it; until then observations are checked by the space as it was.
    """
    for name, before in made.items():
        now = getattr(env, name)
        if not same_space(now, before):
            raise Misbehaved(f"{env_id}: {changes(name, before, now)}")


def changes(name: str, before: Any, now: Any) -> str:
    """What is said of a space that does not stay."""
    return (
        f"its {name} changes, {_shown(before)} when it was made, and {_shown(now)} later: spaces must stay as they were"
    )


def check_copies(made: Sequence[Declared], env_id: str) -> None:
    """Refuse copies that were ``made`` with other spaces than the first one of them."""
    for number, spaces_made in enumerate(made, 1):
        for name, first in made[0].items():
            if not same_space(spaces_made[name], first):
                raise Misbehaved(
                    f"{env_id}: all copies must have the same spaces, but the {name} of copy {number} of {len(made)} "
                    f"is {_shown(spaces_made[name])}, of the first {_shown(first)}"
                )


def check_like(seen: EnvSpec, known: EnvSpec, who: str, other: str) -> None:
    """Refuse environments, ``who``'s, that show or take other things than those that are ``known``, of ``other``."""
    both = [_parts(spec) for spec in (seen, known)]
    for part in both[0] | both[1]:
        here, there = (parts.get(part) for parts in both)
        if here != there:
            raise Misbehaved(
                f"{seen.id}: {who} has {_described(here)} as {part}, {other} {_described(there)}: all that a factory "
                "makes must have the same spaces"
            )


def _parts(spec: EnvSpec) -> dict[str, ArraySpec | ActionSpec]:
    seen = {f"observation {key!r}": array for key, array in spec.network_observation.items()}
    return {**seen, "action": spec.action}


def _described(spec: ArraySpec | ActionSpec | None) -> str:
    """What is said in a spec."""
    if spec is None:
        return "nothing"
    said = [
        f"{field.name}={value!r}" for field in fields(spec) if (value := getattr(spec, field.name)) != field.default
    ]
    return f"({', '.join(said)})"


def same_space(one: Any, other: Any) -> bool:
    """Whether two spaces are equal; bounds that are not numbers, which equal nothing, by how they are written."""
    return bool(one is other or one == other or repr(one) == repr(other))


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


class Batches:
    """Calls of a vector environment, of ``count`` copies, that refuse what does not have a value for each of them.

    Shapes are compared at each step, types at the first one.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any], count: int, env_id: str) -> None:
        self._env, self._shape, self._id, self._looked = env, (count,), env_id, False

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        """(observations, info). ``Misbehaved`` where it returns something else."""
        outcome: Any = self._env.reset(**given)
        if not (isinstance(outcome, tuple) and len(outcome) == 2 and isinstance(outcome[1], dict)):
            raise Misbehaved(
                f"{self._id}: reset() must return (observations, info), info a dict; it returned {_said(outcome)}"
            )
        return outcome

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Observations, rewards [n], terminated bool [n], truncated bool [n], info. ``Misbehaved`` where it returns
        something else; observations are left to those who read them.
        """
        given: Any = self._env.step(actions)
        if not (isinstance(given, tuple) and len(given) == 5):
            raise Misbehaved(
                f"{self._id}: step() must return (observations, reward, terminated, truncated, info); it returned "
                f"{_said(given)}"
            )
        observations, reward, terminated, truncated, info = given
        for value, name in ((reward, "reward"), (terminated, "terminated"), (truncated, "truncated")):
            if (value.shape if type(value) is np.ndarray else _shape(value)) != self._shape:
                raise self._not_each(name, value)
        if not self._looked:
            self._look(reward, terminated, truncated)
        flags = np.asarray(terminated, bool), np.asarray(truncated, bool)
        return observations, np.asarray(reward), *flags, info if isinstance(info, dict) else {}

    def _look(self, reward: Any, terminated: Any, truncated: Any) -> None:
        """Whether they are numbers, and flags."""
        for value, name, kinds in (
            (reward, "reward", "biuf"),
            (terminated, "terminated", "biu"),
            (truncated, "truncated", "biu"),
        ):
            if np.asarray(value).dtype.kind not in kinds:
                raise self._not_each(name, value)
        self._looked = True

    def _not_each(self, name: str, value: Any) -> Misbehaved:
        each, (count,) = "a number" if name == "reward" else "True or False", self._shape
        return Misbehaved(
            f"{self._id}: step() of a vector environment must return {name} as an array [{count}], {each} for each of "
            f"its num_envs={count}; it returned {_said(value)}"
        )


def _shape(value: Any) -> tuple[int, ...]:
    """Its shape; none that is allowed for lists of unequal lengths."""
    try:
        return tuple(np.shape(value))
    except ValueError:
        return ()


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


def _shown(space: Any) -> str:
    """A space on one line."""
    return " ".join(repr(space).split())


def _said(value: Any) -> str:
    """A value in short."""
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    if isinstance(value, np.ndarray):
        return f"an array {list(value.shape)} of {value.dtype}"
    return in_short(f"{type(value).__name__} {value!r}")
