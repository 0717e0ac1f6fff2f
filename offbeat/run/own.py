"""What users hand over in person: an environment, an agent, a torso. No file can bring these back, so a run's
checkpoints note that there were some, and whoever goes on with the run is asked for them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium

from offbeat.envs.base import VectorEnv
from offbeat.envs.module_ids import MODULE_ID, ModuleId, given_by, module_id
from offbeat.envs.registry import exists
from offbeat.envs.rtgym import with_clock
from offbeat.errors import UserError, called
from offbeat.networks.encoder import EncoderConfig
from offbeat.networks.own_torso import name_of

if TYPE_CHECKING:
    from offbeat.config.run_config import RunConfig

HANDED_OVER = {"env_factory": "an environment", "agent_factory": "an agent", "torso": "a torso"}
"""What may be handed over -> what it makes."""
PURPOSE = {"eval_env": "evaluations", "valid_env": "validations", "final_env": "the final sets"}
"""Section of environments -> what is played in them."""
PYTHON = {"eval": "evaluate"}
"""Commands whose functions in Python have other names."""


def check_factory(factory: Any, must: str = "env_factory must be") -> None:
    """Raise ``UserError`` for what was given as ``env_factory`` and makes no environment, such as one that is made.

    ``must``: how the message begins.
    """
    if factory is None or (callable(factory) and not _is_made(factory)):
        return
    if isinstance(factory, str | int | float):
        got, remedy = repr(factory), "hand over the class or function itself"
    else:
        kind = type(factory).__name__
        got, remedy = f"an instance of {kind}", "hand over the class itself, or functools.partial(its class, arguments)"
        if isinstance(factory, gymnasium.vector.VectorEnv | VectorEnv):
            remedy = "hand over a function of num_envs that makes it"
    raise UserError(f"{must} a class or function that makes an environment, got {got}: {remedy}")


def _is_made(thing: Any) -> bool:
    """Whether it is an environment already, or several."""
    kinds = gymnasium.Env | gymnasium.vector.VectorEnv | VectorEnv
    return isinstance(thing, kinds) and not isinstance(thing, type)


def factory_beside(env_id: Any, factory: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """What makes the environment of a new run where Python gave ``env=`` and ``env_factory=`` (None: not given).

    ``UserError`` where ``env`` is what makes it, or where both name an environment.
    """
    factory = with_clock(factory)
    check_factory(factory)
    if env_id is None:
        return factory
    if callable(env_id) or _is_made(env_id):
        raise UserError(f"env={called(env_id)}: env takes an id; hand over what makes your own as env_factory=")
    by_id = module_id(str(env_id))
    if factory is None:
        return by_id
    check_label(str(env_id), f"env={env_id!r}", f"env_factory={called(factory)}")
    return factory


def check_label(env_id: str, said: str, beside: str) -> None:
    """Raise ``UserError`` where the name of a user's own environment is another environment's.

    ``said``, ``beside``: how it and what makes the environment were given.
    """
    if exists(env_id) or module_id(env_id) is not None:
        raise UserError(
            f"{said} was given beside {beside}, and the run can be of one of the two only; leave one out, or give your "
            "own a name that no other environment has"
        )


def noted(own: Mapping[str, Any]) -> dict[str, str]:
    """What the meta data of checkpoints say of it: names. Torsos are named in the configuration."""
    names = ("env_factory", "agent_factory")
    given = {name: own[name] for name in names if own.get(name) is not None}
    return {name: thing.id if isinstance(thing, ModuleId) else called(thing) for name, thing in given.items()}


def check_given(meta: Mapping[str, Any], own: Mapping[str, Any], run: Path) -> None:
    """Raise ``UserError`` where a run was made with an environment or agent of the user's that is not given again."""
    for name in ("env_factory", "agent_factory"):
        if name in meta and own.get(name) is None:
            if MODULE_ID.fullmatch(str(meta[name])):
                raise UserError(
                    f"{run} was trained with the environment {meta[name]}: give it again: {given_by(meta[name])}"
                )
            how = ", from Python" + (", or --env module:function on the command line" if name == "env_factory" else "")
            raise UserError(
                f"{run} was trained with {HANDED_OVER[name]} of your own, {name}={meta[name]}: give the same {name} "
                f"again{how}"
            )


def check_scored(config: RunConfig, given: Iterable[str], own: Mapping[str, Any]) -> None:
    """Raise ``UserError`` where scores were to be of another environment than the user's own."""
    named = {name.replace("-", "_") for name in given} if own.get("env_factory") is not None else set()
    for section, what in PURPOSE.items():
        env_id = getattr(config, section).id
        if env_id != config.env.id and {section, f"{section}.id"} & named:
            raise UserError(
                f"{section}.id={env_id!r} was given beside an environment of your own, which {what} are played in too; "
                "leave it out"
            )


def with_torso(config: RunConfig, own: Mapping[str, Any]) -> RunConfig:
    """``config`` with the name of a torso that is handed over, for the run's files. UserError where it has no use."""
    if own.get("torso") is None:
        return config
    if own.get("agent_factory") is not None:
        raise UserError("torso and agent_factory were both given: an agent of your own makes its torso itself")
    if not isinstance(config.agent, EncoderConfig):
        raise UserError(f"torso was given, but agent {config.agent_name!r} has none that it could replace")
    return replace(config, agent=replace(config.agent, torso=name_of(own["torso"])))


def command(verb: str, run: Path, own: Mapping[str, Any], **options: int) -> str:
    """How a user does something with the run, ``verb`` being a command: objects of their own are handed over again.

    As a line for a shell, unless there are objects that cannot be named on one: then it is a call in Python. ``own``:
    what was handed over, and under ``env_named`` what the command line called the environment.
    """
    names = [name for name in HANDED_OVER if own.get(name) is not None]
    factory = own.get("env_factory")
    env = own.get("env_named") or (factory.id if isinstance(factory, ModuleId) else "")
    if not names or (names == ["env_factory"] and env):
        words = ["offbeat", verb, str(run), *(["--env", env] if names else [])]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(words)
    given = [f"{name}={value}" for name, value in options.items()] + [f"{name}=..." for name in names]
    return f"offbeat.{PYTHON.get(verb, verb)}({', '.join([repr(str(run)), *given])})"
