"""A preset on another environment than its own: switches that only its own one has are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from offbeat.config.run_config import RunConfig, full_name
from offbeat.envs.base import EnvConfig, UnusedSwitch


def fitted(config: RunConfig, given: Iterable[str], factory: Callable[..., Any] | None = None) -> RunConfig:
    """``config`` without the switches of its preset that mean nothing to its environment.

    Args:
        config: a preset with options laid over it.
        given: names of those options, e.g. ``env.length``; they stay, to be refused if they mean nothing.
        factory: makes the environment, if it is the user's own.
    """
    names = {full_name(name) for name in given}
    if "env.id" not in names and "eval_env.id" not in names:
        return config
    env = _fitted(config.env, names, "env", factory)
    eval_env = _fitted(config.eval_env, names, "eval_env", factory)
    return replace(config, env=env, eval_env=eval_env)


def _fitted(config: EnvConfig, given: set[str], section: str, factory: Callable[..., Any] | None) -> EnvConfig:
    """One section of it."""
    for _ in fields(EnvConfig):
        unused = _unused(config, factory)
        if unused is None or f"{section}.{unused.name}" in given or f"env.{unused.name}" in given:
            break
        config = replace(config, **{unused.name: unused.default})  # type: ignore[arg-type]
    return config


def _unused(config: EnvConfig, factory: Callable[..., Any] | None) -> UnusedSwitch | None:
    """A switch that means nothing to the environment. Whatever else is wrong is said by whoever checks it next."""
    from offbeat.envs.registry import env_spec

    try:
        env_spec(config, factory)
    except Exception as error:  # an environment may raise anything
        return error if isinstance(error, UnusedSwitch) else None
    return None
