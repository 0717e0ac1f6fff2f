"""What a user had better know of a run that begins, and what to do about it: one line each."""

from __future__ import annotations

import math
from collections.abc import Iterator

from offbeat.config.run_config import RunConfig
from offbeat.networks.own_torso import find_torso
from offbeat.networks.torsos import choose_torso, flattened_pictures
from offbeat.types import ArraySpec, EnvSpec


def flattened(config: RunConfig, spec: EnvSpec) -> Iterator[str]:
    """A line for each observation that looks like a picture and that the run's torso does not convolve.

    Nothing for torsos of the user's own, and for agents that have none.
    """
    kind = getattr(config.agent, "torso", None)
    if kind is None or (kind != "auto" and (kind.startswith("python:") or find_torso(kind) is not None)):
        return
    chosen = choose_torso(spec.features) if kind == "auto" else kind
    for key, array in flattened_pictures(spec.features, chosen).items():
        seen = f"observation {key!r}, {array.dtype} {list(array.shape)}, looks like a picture"
        yield f"{seen}; it is flattened to {math.prod(array.shape):,} numbers: {_instead(array, chosen)}"


def _instead(array: ArraySpec, torso: str) -> str:
    """How it would be convolved."""
    if len(array.shape) == 3:
        return f"torso {torso} has no convolutions, agent.torso = 'per_key' has"
    if len(array.shape) == 2:
        return "networks take pictures as [channels, height, width], so give it a third axis of length 1"
    return "networks take pictures as [channels, height, width], so stack frames along the channels"
