"""Factories of users: how they are called, and whether what they give can be used."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium

from offbeat.envs.base import EnvConfig, Misbehaved, VectorEnv
from offbeat.envs.module_ids import ModuleId
from offbeat.envs.rtgym import is_interface
from offbeat.envs.vector import GymnasiumVectorEnv
from offbeat.errors import called

Factory = Callable[..., object]
PICTURES = "rgb_array"
"""The render mode that films need."""


def makes_one_env(factory: Factory) -> bool:
    """A factory that can be called without arguments makes single Gymnasium environments.

    ``Misbehaved`` for an environment's class that cannot: nobody else knows its arguments.
    """
    missing = _required(factory)
    if missing and isinstance(factory, type) and issubclass(factory, gymnasium.Env):
        raise Misbehaved(
            f"the env factory {called(factory)} is an environment's class that needs {', '.join(missing)}; hand over "
            f"functools.partial({factory.__name__}, {', '.join(f'{name}=...' for name in missing)})"
        )
    return not missing


def _required(factory: Factory) -> list[str]:
    """Names of the arguments that it cannot be called without."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # a class of an extension module says nothing
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in several]


def drawing(factory: Factory) -> Factory | None:
    """``factory`` with ``render_mode="rgb_array"``; None where it has no such argument. ``gymnasium.make`` has it."""
    inner = factory
    while isinstance(inner, partial):
        inner = inner.func
    try:
        named = "render_mode" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a class of an extension module says nothing
        named = False
    if not named and not isinstance(inner, ModuleId) and inner is not gymnasium.make:
        return None
    return partial(factory, render_mode=PICTURES)


def names_pictures(env: Any) -> bool:
    """Whether the meta data of an environment say that it can draw itself."""
    metadata = getattr(env, "metadata", None)
    return isinstance(metadata, Mapping) and PICTURES in (metadata.get("render_modes") or ())


def batch_of(factory: Factory, config: EnvConfig, num_envs: int, **options: Any) -> object:
    """What a factory of whole batches gives. ``Misbehaved`` for one that takes what nobody knows."""
    if _required(factory) == ["num_envs"]:
        return factory(num_envs=num_envs)
    signature = inspect.signature(factory)
    try:
        signature.bind(config, num_envs, **options)
    except TypeError as error:
        raise Misbehaved(
            f"the env factory {called(factory)} takes {signature}; allowed are no arguments (it makes one "
            "environment), num_envs, or (config, num_envs, *, batch_size, threads, deterministic); functools.partial "
            "fills in others"
        ) from error
    return factory(config, num_envs, **options)


_given: weakref.WeakValueDictionary[int, gymnasium.Env[Any, Any]] = weakref.WeakValueDictionary()
"""Environments that factories have given and that somebody still holds, by identity."""


def checked_single(factory: Factory) -> Callable[[], gymnasium.Env[Any, Any]]:
    """``factory``, which makes single environments; ``Misbehaved`` at a call that gives anything else, or one again."""

    def make() -> gymnasium.Env[Any, Any]:
        env = factory()
        if not isinstance(env, gymnasium.Env):
            hint = ""
            if _is_vector(env):
                hint = "; a factory of vector environments takes num_envs, as many as it is to make"
            elif is_interface(type(env)):
                hint = "; hand over the interface's class itself, or a configuration of rtgym that names it"
            raise Misbehaved(
                f"the env factory {called(factory)} gave {type(env).__name__}; expected a gymnasium.Env{hint}"
            )
        inner = env.unwrapped
        if _given.get(id(inner)) is inner:
            raise Misbehaved(
                f"the env factory {called(factory)} gave the same environment twice; it must make a new one at each "
                "call"
            )
        _given[id(inner)] = inner
        return env

    return make


def _is_vector(env: object) -> bool:
    return isinstance(env, VectorEnv | gymnasium.vector.VectorEnv)


def checked_batch(env: object, config: EnvConfig, num_envs: int) -> VectorEnv:
    """What a factory of whole batches gave, as a ``VectorEnv``. ``Misbehaved`` or ValueError if it cannot be used."""
    if isinstance(env, gymnasium.vector.VectorEnv):
        env = GymnasiumVectorEnv(config, env)
    if not isinstance(env, VectorEnv):
        raise ValueError(f"the factory of {config.id} gave {type(env).__name__}; expected a VectorEnv")
    if env.num_envs % env.spec.players:
        raise ValueError(
            f"{config.id} has {env.spec.players} players, and each is an environment; its factory gave {env.num_envs} "
            f"environments, allowed are multiples of {env.spec.players}; give the factory an attribute players"
        )
    if env.num_envs != num_envs:
        raise Misbehaved(f"the factory of {config.id} gave {env.num_envs} environments, asked for num_envs={num_envs}")
    return env
