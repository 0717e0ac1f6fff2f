"""A preset with options laid over it: what of it does not fit to them is left out or made to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace
from typing import Any, TypeVar

from offbeat.acting.final_sets import FinalConfig
from offbeat.config.env_lists import NAMES
from offbeat.config.run_config import ENVS, RunConfig, full_name
from offbeat.envs.base import EnvConfig, UnusedSwitch
from offbeat.envs.rtgym import OwnClock
from offbeat.runtime.evaluator import EvaluationConfig
from offbeat.runtime.validations import ValidationConfig
from offbeat.types import EnvSpec

Played = TypeVar("Played", EvaluationConfig, ValidationConfig, FinalConfig)
ONE_WORLD = ("actor.workers", "actor.envs_per_worker", "evaluation.envs", "validation.envs", "final.envs")
"""Options that are 1 around a world with a clock of its own: there is one robot."""
PLAYED = {"evaluation": "eval_env", "validation": "valid_env", "final": "final_env"}
"""Section that says how many episodes are played -> section of the environments that they are played in."""


def fitted(config: RunConfig, given: Iterable[str], factory: Callable[..., Any] | None = None) -> RunConfig:
    """``config`` without the switches of its preset that mean nothing to its environments, with no more environments
    for evaluations and the like than share the episodes that were asked for, and with one of what keeps its own clock.

    Args:
        config: a preset with options laid over it.
        given: names of those options, e.g. ``env.length``; they stay, to be refused if they mean nothing or do not fit.
        factory: makes the environment, if it is the user's own.
    """
    names = {full_name(name) for name in given}
    if any(f"{section}.{name}" in names for section in ENVS for name in NAMES):
        fit = {section: _fitted(getattr(config, section), names, section, factory) for section in ENVS}
        config = replace(config, **fit)  # type: ignore[arg-type]
    for name in ONE_WORLD if isinstance(factory, OwnClock) else ():
        section, _, key = name.partition(".")
        if name not in names:
            config = replace(config, **{section: replace(getattr(config, section), **{key: 1})})
    for section, env in PLAYED.items():
        if f"{section}.episodes" in names and f"{section}.envs" not in names:
            config = replace(config, **{section: _shared(getattr(config, section), getattr(config, env), factory)})
    return config


def left_out(config: RunConfig, fit: RunConfig) -> str:
    """One line that names the switches of ``config`` that ``fit``, made of it, has left out, and what it has made 1;
    empty: neither.
    """
    told = [name for name in ONE_WORLD[:2] if _of(fit, name) == 1 != _of(config, name)]
    one = f"{fit.env.id} keeps its own clock, and there is one of it: {' = '.join([*told, '1'])}" if told else ""
    return "; ".join(filter(None, [_unused_switches(config, fit), one]))


def _of(config: RunConfig, name: str) -> Any:
    """The option of that full name."""
    section, _, key = name.partition(".")
    return getattr(getattr(config, section), key)


def _unused_switches(config: RunConfig, fit: RunConfig) -> str:
    names: list[str] = []
    for section in ENVS:
        before, after = asdict(getattr(config, section)), asdict(getattr(fit, section))
        changed = [name for name in after if after[name] != before[name]]
        names += [f"{section}.{name}" for name in changed if not any(said.endswith(f".{name}") for said in names)]
    if not names:
        return ""
    mean, kept = ("means", "its default is") if len(names) == 1 else ("mean", "their defaults are")
    preset = f"preset {config.preset}" if config.preset else "the configuration"
    return f"{preset} sets {', '.join(names)}, which {mean} nothing to {fit.env.id}: {kept} taken"


def _shared(played: Played, env: EnvConfig, factory: Callable[..., Any] | None) -> Played:
    """How episodes are ``played``, in the most environments, up to its ``envs``, that play equally many of them."""
    spec, _ = _seen(env, factory)
    if spec is None or played.episodes < 1 or played.envs < 1 or played.envs % spec.players:
        return played  # is refused by whoever checks it next
    most = min(played.envs // spec.players, played.episodes)
    games = next(count for count in range(most, 0, -1) if played.episodes % count == 0)
    return replace(played, envs=games * spec.players)


def _fitted(config: EnvConfig, given: set[str], section: str, factory: Callable[..., Any] | None) -> EnvConfig:
    """One section of it."""
    for _ in fields(EnvConfig):
        unused = _unused(config, factory)
        if unused is None or f"{section}.{unused.name}" in given or f"env.{unused.name}" in given:
            break
        config = replace(config, **{unused.name: unused.default})  # type: ignore[arg-type]
    return config


def _unused(config: EnvConfig, factory: Callable[..., Any] | None) -> UnusedSwitch | None:
    """A switch that means nothing to the environment."""
    _, error = _seen(config, factory)
    return error if isinstance(error, UnusedSwitch) else None


def _seen(config: EnvConfig, factory: Callable[..., Any] | None) -> tuple[EnvSpec | None, Exception | None]:
    """The environment's spec, or why there is none; whoever checks it next says so."""
    from offbeat.envs.registry import env_spec

    try:
        return env_spec(config, factory), None
    except Exception as error:  # an environment may raise anything
        return None, error
