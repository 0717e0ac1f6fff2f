"""Ids that Gymnasium knows a vector entry point of: all copies stepped at once, where rows stay the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium

from offbeat.envs.base import EnvConfig, Misbehaved, UnusedSwitch, VectorEnv
from offbeat.envs.closing import close_env, closed_on_failure, warn
from offbeat.envs.gymnasium import USED, MakeEnv, gymnasium_spec, looked_at
from offbeat.envs.manners import check_like
from offbeat.envs.module_ids import ModuleId
from offbeat.envs.vector import GymnasiumVectorEnv
from offbeat.errors import told
from offbeat.types import EnvSpec

LEAST = 8
"""From so many copies on they are stepped at once: with fewer, single ones are as fast."""
SWITCHES = (*USED, "vectorised")
"""Switches that mean something to an id of Gymnasium."""


def has_entry_point(env_id: str) -> bool:
    """Whether an id of Gymnasium, or the newest version of it, is registered with a vector entry point."""
    known = gymnasium.registry.values()
    found = [spec for spec in known if spec.id == env_id] or [spec for spec in known if _stem(spec.id) == env_id]
    return any(spec.vector_entry_point is not None for spec in found)


def id_of(kind: str, name: str, factory: object) -> str:
    """The id of Gymnasium that environments are made by, of a ``factory`` too; empty where they are not."""
    return factory.registered() if isinstance(factory, ModuleId) else name if kind == "gymnasium" else ""


def switches_of(config: EnvConfig, factory: object) -> tuple[str, ...]:
    """The switches that a user's ``factory`` of single environments understands; ``UnusedSwitch`` as below."""
    if not isinstance(factory, ModuleId):
        return USED
    check_asked_for(config, factory.registered() if config.vectorised == "yes" else "")
    return SWITCHES


def singly(config: EnvConfig) -> EnvConfig:
    """``config`` for one environment that is made by itself, to be drawn, listened to or recorded: no vector entry
    point is asked for.
    """
    return replace(config, vectorised="no")


def _stem(env_id: str) -> str:
    return env_id.rsplit("-v", 1)[0]


def check_asked_for(config: EnvConfig, env_id: str) -> None:
    """``UnusedSwitch`` where copies are to be stepped at once of an id that has no vector entry point."""
    if config.vectorised == "yes" and not has_entry_point(env_id):
        raise UnusedSwitch(config, "vectorised", "auto")


def why_single(config: EnvConfig, env_id: str, num_envs: int, deterministic: bool) -> str:
    """Why so many copies of an id that has a vector entry point are stepped one by one; empty: nothing speaks for it
    yet. The entry point is not called.
    """
    if config.vectorised == "no":
        return "env.vectorised = 'no'"
    if config.vectorised == "yes":
        return ""
    if deterministic:
        return (
            "the run is deterministic, and its results stay those of single ones; env.vectorised = 'yes' changes that"
        )
    return f"{num_envs} of them are as fast alone" if num_envs < LEAST else ""


def make_vectorised(
    config: EnvConfig, env_id: str, num_envs: int, make: MakeEnv, deterministic: bool
) -> VectorEnv | None:
    """``num_envs`` copies stepped at once; None where single ones are to be stepped.

    ``make`` makes a single one, whose rows theirs must be like. ``Misbehaved`` where ``config`` insists on what cannot
    be.
    """
    if not has_entry_point(env_id) or why_single(config, env_id, num_envs, deterministic):
        return None
    made = tried(config, env_id, num_envs, make)
    if not isinstance(made, str):
        return made
    _refuse(config, made)
    return None


def _refuse(config: EnvConfig, why: str) -> None:
    """``Misbehaved`` where ``config`` insists on a vector entry point that cannot be taken."""
    if config.vectorised == "yes":
        raise Misbehaved(f"{config.id}: env.vectorised = 'yes' cannot be: {why}; 'auto' and 'no' step single ones")


def said(config: EnvConfig, env_id: str, num_envs: int, deterministic: bool, make: MakeEnv) -> str:
    """A line on how so many copies of an id that has a vector entry point are stepped. ``Misbehaved`` as above."""
    why = why_single(config, env_id, num_envs, deterministic)
    if not why:
        made = tried(config, env_id, num_envs, make)
        if not isinstance(made, str):
            warn(close_env(made, config.id))
            return (
                f"{config.id}: the {num_envs} environments of an actor are stepped at once, by its vector entry point"
            )
        _refuse(config, made)
        why = made
    return f"{config.id}: environments are stepped one after the other, though it has a vector entry point: {why}"


def tried(config: EnvConfig, env_id: str, num_envs: int, make: MakeEnv) -> VectorEnv | str:
    """``num_envs`` copies of ``env_id`` by its vector entry point, or why they would not be like single ones."""
    with looked_at(config.id) as keep:
        single = keep(make())
        spec = gymnasium_spec(config, single, SWITCHES)
        registered = single.spec
    made: list[Any] = []
    own = replace(config, max_steps=0, vectorised="auto")
    try:
        with closed_on_failure(made, config.id):
            made.append(_by_entry_point(registered, num_envs, spec))
            envs = GymnasiumVectorEnv(own, made[0], limit=spec.max_episode_steps or 0)
            check_like(envs.spec, spec, "its vector entry point", "the single environment")
    except Exception as error:  # of somebody else's code, of any class
        return str(error) if isinstance(error, Misbehaved) else told(error)
    envs.spec = spec
    return envs


def _by_entry_point(registered: Any, num_envs: int, spec: EnvSpec) -> Any:
    """What the vector entry point gives, with the limit of steps of ``spec``."""
    limit = spec.max_episode_steps
    limits: dict[str, Any] = {} if limit == registered.max_episode_steps else {"max_episode_steps": limit}
    return gymnasium.make_vec(registered.id, num_envs, vectorization_mode="vector_entry_point", **limits)
