"""A run's demonstration: where its rows come from, and whether the run can learn from them at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from offbeat.acting.demonstrating import read_for
from offbeat.envs.delay import undelayed
from offbeat.envs.registry import env_spec
from offbeat.replay.demonstrated import DemonstratedRows
from offbeat.runtime.settings import Settings
from offbeat.types import EnvSpec


def demonstrated(
    config: Settings, spec: EnvSpec, discount: Callable[[], float], env_factory: Any = None
) -> DemonstratedRows | None:
    """The rows of the run's demonstration, as its actors would have written them; None where there is none.

    Args:
        config: of the run.
        spec: of its environments, the delay included.
        discount: gives gamma.
        env_factory: makes its environments, if the user's own.

    DemonstrationError naming what does not fit.
    """
    path = config.demonstrations.path
    if not path:
        return None
    bare = env_spec(undelayed(config.env), env_factory) if config.env.delay.active else spec
    return read_for(Path(path).expanduser(), config.env, bare, discount())
