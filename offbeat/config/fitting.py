"""A preset with options laid over it: what of it does not fit to them is left out or made to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace
from typing import Any

from offbeat.config.run_config import RunConfig, full_name
from offbeat.envs.base import EnvConfig, UnusedSwitch
from offbeat.runtime.evaluator import EvaluationConfig
from offbeat.types import EnvSpec


def fitted(config: RunConfig, given: Iterable[str], factory: Callable[..., Any] | None = None) -> RunConfig:
    """``config`` without the switches of its preset that mean nothing to its environment, and with no more evaluation
    environments than share the episodes that were asked for.

    Args:
        config: a preset with options laid over it.
        given: names of those options, e.g. ``env.length``; they stay, to be refused if they mean nothing or do not fit.
        factory: makes the environment, if it is the user's own.
    """
    names = {full_name(name) for name in given}
    if "env.id" in names or "eval_env.id" in names:
        env = _fitted(config.env, names, "env", factory)
        config = replace(config, env=env, eval_env=_fitted(config.eval_env, names, "eval_env", factory))
    if "evaluation.episodes" in names and "evaluation.envs" not in names:
        config = replace(config, evaluation=_shared(config, factory))
    return config


def left_out(config: RunConfig, fit: RunConfig) -> str:
    """One line that names the switches of ``config`` that ``fit``, made of it, has left out; empty: none were."""
    names: list[str] = []
    for section in ("env", "eval_env"):
        before, after = asdict(getattr(config, section)), asdict(getattr(fit, section))
        names += [f"{section}.{name}" for name in after if after[name] != before[name] and f"env.{name}" not in names]
    if not names:
        return ""
    mean, kept = ("means", "its default is") if len(names) == 1 else ("mean", "their defaults are")
    preset = f"preset {config.preset}" if config.preset else "the configuration"
    return f"{preset} sets {', '.join(names)}, which {mean} nothing to {fit.env.id}: {kept} taken"


def _shared(config: RunConfig, factory: Callable[..., Any] | None) -> EvaluationConfig:
    """How evaluations go, in the most environments, up to ``evaluation.envs``, that play equally many episodes."""
    evaluation = config.evaluation
    spec, _ = _seen(config.eval_env, factory)
    if spec is None or evaluation.episodes < 1 or evaluation.envs < 1 or evaluation.envs % spec.players:
        return evaluation  # is refused by whoever checks it next
    most = min(evaluation.envs // spec.players, evaluation.episodes)
    games = next(count for count in range(most, 0, -1) if evaluation.episodes % count == 0)
    return replace(evaluation, envs=games * spec.players)


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
