"""Ids of Gymnasium that name a module, ``my_package.envs:Mine-v0``: whoever makes one has that module imported.

So they are like an ``env_factory``: a user gives one, on the command line or in Python, and gives it again to go on
with the run. An id in a file, a run folder's, a preset's or a campaign's, never has anything imported.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium

from offbeat.envs.base import EnvUnavailable
from offbeat.envs.closing import close_env, warn
from offbeat.envs.gymnasium import unavailable

MODULE_ID = re.compile(r"[A-Za-z_][\w.]*:\S+")
"""What they look like; those of ``OWN`` name no module."""
OWN = ("procgen:", "envpool:")
"""What ids begin with whose environments offbeat makes itself."""


class ModuleId:
    """Makes environments of such an id: an ``env_factory`` that processes can be handed."""

    def __init__(self, text: str) -> None:
        """``text``: the id. Nothing is imported before the first call."""
        self.id = self.__name__ = text
        self.__module__, _, self.__qualname__ = text.partition(":")

    def __call__(self, **options: Any) -> gymnasium.Env[Any, Any]:
        """One environment, made with these. ``EnvUnavailable`` where no such module is, or it has no such id."""
        try:
            return gymnasium.make(self.id, disable_env_checker=True, **options)
        except (gymnasium.error.Error, ImportError) as error:
            raise _unavailable(self.id, error) from error

    def registered(self) -> str:
        """The id as its module has registered it, which is imported for that as one is made."""
        warn(close_env(self(), self.id))
        return self.id.partition(":")[2]


def _unavailable(env_id: str, error: Exception) -> EnvUnavailable:
    """The error for an id that Gymnasium does not make; one that looks like a function may be meant as such."""
    text, (module, _, name) = str(unavailable(env_id, error)), env_id.partition(":")
    if not name.isidentifier() or isinstance(error, ImportError):
        return EnvUnavailable(text)
    return EnvUnavailable(
        f"{text.rstrip('. ')}; a class or function of your own is no id: in Python 'from {module} import {name}' and "
        f"give env_factory={name}, or --env {env_id} on the command line"
    )


def module_id(text: str) -> ModuleId | None:
    """What makes environments of an id that a user gave, if it names a module. Nobody hands it what a file says."""
    return ModuleId(text) if MODULE_ID.fullmatch(text) and not text.startswith(OWN) else None


def refused(env_id: str) -> EnvUnavailable:
    """The error for such an id that nobody has handed over."""
    return EnvUnavailable(
        f"{env_id!r} names a module that Gymnasium would import, and no file has anything imported: "
        f"give {given_by(env_id)}, or register the environment by the entry point offbeat.envs"
    )


def given_by(env_id: str) -> str:
    """How a user hands it over."""
    return f"--env {env_id} on the command line, env_factory=functools.partial(gymnasium.make, {env_id!r}) in Python"


def registered_by(env_id: str) -> str:
    """How a user gives an id that is known only where a module of theirs has registered it."""
    return (
        f"one that a module of yours registers with Gymnasium is given as --env module:{env_id} on the command line, "
        "in Python import that module first"
    )
