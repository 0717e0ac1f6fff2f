"""Hooks: code of the user's that the main process calls while a run goes on. What is one, and how it is found.

A hook is called with one dict of plain data after each evaluation, checkpoint, or line of metrics.jsonl. It comes as an
argument of ``offbeat.train`` and ``offbeat.resume``, or by its name from an installed package, by the entry point group
``offbeat.hooks``: an object, or what makes one without arguments, with any of ``on_evaluation``, ``on_checkpoint``,
``on_metrics`` and ``on_end``, which is told once how the run ended, and perhaps ``close``, called once after it.
``docs/runtime.md`` says what they get.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from offbeat.config.log import LogConfig
from offbeat.errors import UserError, called, load_entry_point, told, unknown

ENTRY_POINT_GROUP = "offbeat.hooks"
SINKS = {"wandb": "wandb", "mlflow": "mlflow-skinny"}
"""Hooks of our own, ``run/sinks``, each with an extra of its name -> the package that it needs."""
MOMENTS = ("on_evaluation", "on_checkpoint", "on_metrics", "on_end")
"""When a hook may be called."""

Call = Callable[[dict[str, Any]], object]
"""Takes what happened; its answer means something only if it is ``STOP``."""


class Answer(Enum):
    """What a hook may return."""

    STOP = "stop"
    """End the run as Ctrl-C does."""

    def __repr__(self) -> str:
        return f"offbeat.{self.name}"

    __str__ = __repr__


STOP = Answer.STOP
"""Returned by a hook, it ends the run as Ctrl-C does: saved, to be resumed later."""


class HookFailed(RuntimeError):
    """A hook raised: the run was ended and saved. ``__cause__`` is what it raised."""


@dataclass(frozen=True)
class Hook:
    """Functions that belong together."""

    name: str
    """As messages call it."""
    calls: Mapping[str, Call]
    """Moment -> what is called then."""
    close: Callable[[], object] | None = None
    """Called once at the end of the run, whatever its end was."""


def find_hooks(log: LogConfig, given: Mapping[str, Any]) -> list[Hook]:
    """The hooks handed over, moment -> function or None, then those that the options name.

    UserError, in one line, for what is no hook.
    """
    names = list(log.hooks)
    if doubled := {name for name in names if names.count(name) > 1}:
        raise UserError(f"log.hooks names {sorted(doubled)[0]!r} twice; once is enough")
    return [*_handed_over(given), *(_sink(name, log) if name in SINKS else _installed(name) for name in names)]


def _handed_over(given: Mapping[str, Any]) -> list[Hook]:
    hooks = []
    for moment, function in given.items():
        if function is None:
            continue
        if not callable(function):
            raise UserError(f"{moment}={function!r}: expected a function of one dict, got {type(function).__name__}")
        hooks.append(Hook(f"hook {moment}={called(function)}", {moment: function}))
    return hooks


def _sink(name: str, log: LogConfig) -> Hook:
    """A hook of our own, whose package is imported here."""
    try:
        module = import_module(f"offbeat.run.sinks.{name}")
    except Exception as error:  # of the package, of any class
        raise UserError(
            f"hook {name!r} needs the package {SINKS[name]} ({told(error)}); install it with pip install "
            f"'offbeat[{name}]'"
        ) from error
    try:
        return hook_of(f"hook {name!r}", module.Sink(log))
    except Exception as error:
        raise UserError(f"hook {name!r} cannot report anywhere: {told(error)}") from error


def _installed(name: str) -> Hook:
    """The hook of an installed package."""
    points = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if name not in points:
        raise unknown("hook", name, [*SINKS, *sorted(points)])
    found = load_entry_point("hook", points[name])
    if callable(found) and (isinstance(found, type) or not any(hasattr(found, moment) for moment in MOMENTS)):
        try:
            found = found()
        except Exception as error:  # of the package, of any class
            raise UserError(f"hook {name!r}: {points[name].value} cannot be made: {told(error)}") from error
    return hook_of(f"hook {name!r}", found)


def hook_of(name: str, thing: Any) -> Hook:
    """The hook that an object is. UserError where it is none."""
    members = {moment: getattr(thing, moment, None) for moment in (*MOMENTS, "close")}
    for moment, function in members.items():
        if function is not None and not callable(function):
            raise UserError(f"{name}: {moment} is {function!r}, expected a function")
    close = members.pop("close")
    calls = {moment: function for moment, function in members.items() if function is not None}
    if not calls:
        raise UserError(f"{name}: expected an object with any of {', '.join(MOMENTS)}, got {thing!r}")
    return Hook(name, calls, close)
