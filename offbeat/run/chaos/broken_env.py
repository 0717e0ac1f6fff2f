"""A preset's own environment that breaks on purpose: what ``--env offbeat.run.chaos.broken_env:broken_env`` makes.

Which environment and which fault is said by variables of the process's environment, which all roles inherit.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.faulty import broken
from offbeat.envs.registry import make_env

NAME = "offbeat.run.chaos.broken_env:broken_env"
"""What ``--env`` is given."""
ENV = "OFFBEAT_CHAOS_ENV"
"""Variable: the id of the environment."""
FAULT = "OFFBEAT_CHAOS_FAULT"
"""Variable: what happens and at which step, such as ``raise@60``; as ``offbeat.envs.faulty`` says."""


def broken_env(config: EnvConfig, num_envs: int, **options: Any) -> VectorEnv:
    """The environments that the variables name, with the fault in them. KeyError without the variables."""
    inner = make_env(replace(config, id=os.environ[ENV]), num_envs, **options)
    return broken(inner, os.environ[FAULT])
