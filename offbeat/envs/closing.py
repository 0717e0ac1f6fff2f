"""Closing environments: what they raise then is one line, and nothing that was done with them is lost by it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from offbeat.errors import told


def close_env(env: Any, env_id: str) -> str:
    """Close an environment, of whichever kind. What it raises then, in one line that names it; empty: nothing."""
    try:
        env.close()
    except (Exception, SystemExit, GeneratorExit) as error:  # of the environment, of any class
        return f"{env_id}: close() raised {told(error)}"
    return ""


def close_envs(envs: Iterable[Any], env_id: str) -> str:
    """Close all of them, whatever some raise. Their lines, each once."""
    return "; ".join(dict.fromkeys(line for env in envs if (line := close_env(env, env_id))))


def warn(line: str) -> None:
    """Say what ``close_env`` gave, if it is a line."""
    if line:
        warnings.warn(line, stacklevel=3)


@contextmanager
def closed_after(env: Any, env_id: str, say: Callable[[str], None] | None = None) -> Iterator[None]:
    """Close ``env`` afterwards, and ``say`` what it raises then; without ``say`` it is a warning."""
    try:
        yield
    finally:
        line = close_env(env, env_id)
        if say is None:
            warn(line)
        elif line:
            say(line)


@contextmanager
def closed_on_failure(envs: list[Any], env_id: str) -> Iterator[None]:
    """Close ``envs``, those that are in the list by then, where something is raised that keeps them from being used."""
    try:
        yield
    except BaseException:
        warn(close_envs(envs, env_id))
        raise
