"""Gymnasium spaces as offbeat's specs: observations become a flat dictionary of arrays that networks can read.

- ``Box`` of uint8 stays uint8 (images [H, W, C] become [C, H, W], [H, W] becomes [1, H, W]); others are float32.
- ``Discrete`` and ``MultiDiscrete`` become one-hot float32, ``MultiBinary`` float32.
- ``Dict`` and ``Tuple`` are flattened, nested keys joined with "."; a single array has the key ``"observation"``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from offbeat.types import OBSERVATION, ActionSpec, ArrayDict, ArraySpec

MAX_ONE_HOT = 4096
"""Largest number of values of a discrete observation."""
Encode = Callable[[Any], np.ndarray]


class Leaf:
    """One array of a flattened observation: where it is found in the original, its spec, and how it is converted."""

    def __init__(self, path: tuple[Any, ...], spec: ArraySpec, encode: Encode) -> None:
        self.path, self.spec, self.encode = path, spec, encode

    def read(self, observation: Any) -> np.ndarray:
        """This leaf's array from an observation of the original space."""
        for key in self.path:
            observation = observation[key]
        return self.encode(observation)


def flatten_space(space: spaces.Space[Any], env_id: str) -> dict[str, Leaf]:
    """Key -> leaf for an observation space. ValueError naming the space if it is of another kind."""
    leaves = {".".join(map(str, leaf.path)) or OBSERVATION: leaf for leaf in _leaves(space, (), env_id)}
    if not leaves:
        raise ValueError(f"{env_id} has an empty observation space {space}")
    return leaves


def flatten(leaves: dict[str, Leaf], observation: Any) -> ArrayDict:
    """The flat dictionary of one observation."""
    return {key: leaf.read(observation) for key, leaf in leaves.items()}


def action_spec(space: spaces.Space[Any], env_id: str) -> ActionSpec:
    """The spec of an action space: ``Discrete`` (any start) or a ``Box`` of floats. ValueError for others."""
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", int(space.n))
    if isinstance(space, spaces.Box) and space.dtype is not None and np.dtype(space.dtype).kind == "f":
        low, high = (tuple(float(x) for x in bound.ravel()) for bound in (space.low, space.high))
        return ActionSpec("continuous", shape=tuple(space.shape), low=low, high=high)
    raise ValueError(
        f"{env_id} has the action space {space}; supported are Discrete and Box of floats; "
        "wrap it with a gymnasium.ActionWrapper that gives one of these"
    )


def action_decoder(space: spaces.Space[Any]) -> Callable[[np.ndarray], Any]:
    """From one action as offbeat stores it to what the space holds: start added, or clipped to the box's bounds."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return lambda action: int(action) + start
    low, high, dtype = space.low, space.high, space.dtype  # type: ignore[attr-defined]
    return lambda action: np.clip(np.asarray(action).astype(dtype), low, high)


def _leaves(space: spaces.Space[Any], path: tuple[Any, ...], env_id: str) -> list[Leaf]:
    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.spaces.items() for leaf in _leaves(part, (*path, key), env_id)]
    if isinstance(space, spaces.Tuple):
        return [leaf for index, part in enumerate(space.spaces) for leaf in _leaves(part, (*path, index), env_id)]
    if isinstance(space, spaces.Box):
        return [Leaf(path, *_box(space))]
    if isinstance(space, spaces.Discrete):
        return [Leaf(path, *_one_hot(np.array([space.n]), np.array([space.start]), space, env_id))]
    if isinstance(space, spaces.MultiDiscrete):
        return [Leaf(path, *_one_hot(space.nvec.ravel(), np.ravel(space.start), space, env_id))]
    if isinstance(space, spaces.MultiBinary):
        return [Leaf(path, ArraySpec(tuple(space.shape), "float32", 0.0, 1.0), lambda x: np.asarray(x, np.float32))]
    raise ValueError(
        f"{env_id} has the observation space {space}; supported are Box, Discrete, MultiDiscrete, MultiBinary, and "
        "Dict and Tuple of these; wrap it with a gymnasium.ObservationWrapper that gives one of these"
    )


def _box(space: spaces.Box) -> tuple[ArraySpec, Encode]:
    shape = tuple(space.shape)
    if space.dtype != np.uint8:
        low, high = float(space.low.min(initial=np.inf)), float(space.high.max(initial=-np.inf))
        bounded = np.isfinite([low, high]).all()
        return ArraySpec(shape, "float32", low if bounded else None, high if bounded else None), lambda x: np.array(
            x, np.float32
        ).reshape(shape)
    high = float(space.high.max(initial=0))
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        planes = (shape[2], shape[0], shape[1])
        return ArraySpec(planes, "uint8", 0.0, high), lambda x: np.ascontiguousarray(np.moveaxis(x, 2, 0))
    if len(shape) == 2:
        return ArraySpec((1, *shape), "uint8", 0.0, high), lambda x: np.array(x, np.uint8)[None]
    return ArraySpec(shape, "uint8", 0.0, high), lambda x: np.array(x, np.uint8)


def _one_hot(counts: np.ndarray, starts: np.ndarray, space: object, env_id: str) -> tuple[ArraySpec, Encode]:
    size = int(counts.sum())
    if size > MAX_ONE_HOT:
        raise ValueError(f"{env_id} has the observation space {space}; at most {MAX_ONE_HOT} values become one-hot")
    first = np.concatenate([[0], np.cumsum(counts)[:-1]]) - starts

    def encode(value: Any) -> np.ndarray:
        vector = np.zeros(size, np.float32)
        vector[first + np.ravel(value)] = 1.0
        return vector

    return ArraySpec((size,), "float32", 0.0, 1.0), encode
