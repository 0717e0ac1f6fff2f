"""Gymnasium spaces as offbeat's specs: observations become a flat dictionary of arrays that networks can read.

- ``Box`` of uint8 stays uint8, every other one becomes float32.
- Boxes with three axes are pictures: [C, H, W], whichever axis holds the channels (see ``channel_axis``); uint8 boxes
  with two axes are pictures with one channel. Other shapes stay as they are.
- ``Discrete`` and ``MultiDiscrete`` become one-hot float32, ``MultiBinary`` float32.
- ``Dict`` and ``Tuple`` are flattened, nested keys joined with "."; a single array has the key ``"observation"``.

What an environment gives is checked against its space: what does not belong to it would be stored as something else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from gymnasium import spaces

from offbeat.envs.base import Misbehaved
from offbeat.errors import in_short
from offbeat.types import LEGAL, OBSERVATION, ActionSpec, ArrayDict, ArraySpec

MASK = "action_mask"
"""What others call a mask of actions, in observations and in ``info``."""
MAX_ONE_HOT = 4096
"""Largest number of values of a discrete observation."""


@dataclass(frozen=True)
class Conversion:
    """How a part of an observation becomes an array."""

    spec: ArraySpec
    axes: Literal["same", "channels last", "no channels"] = "same"
    """Of what the environment gives: channels go to the front, and a picture that has none gets one."""
    places: np.ndarray | None = None
    """[components]: which place is set for 0 in each component, where they become one-hot."""

    def __call__(self, value: np.ndarray, lead: int) -> np.ndarray:
        """The array of a checked ``value`` with so many leading batch axes (0 or 1)."""
        if self.places is not None:
            return self._one_hot(self.places, value, lead)
        if self.axes == "channels last":
            return np.ascontiguousarray(np.moveaxis(value, -1, lead), self.spec.dtype)
        return np.array(np.expand_dims(value, lead) if self.axes == "no channels" else value, self.spec.dtype)

    def view(self, value: np.ndarray, lead: int) -> np.ndarray | None:
        """A checked ``value`` itself, with an axis more where its channels lack one; None where it is converted, or
        could not be written to.
        """
        same = self.places is None and self.axes != "channels last" and value.dtype == self.spec.dtype
        if not same or not value.flags.c_contiguous or not value.flags.writeable:
            return None
        return np.expand_dims(value, lead) if self.axes == "no channels" else value

    def _one_hot(self, places: np.ndarray, value: np.ndarray, lead: int) -> np.ndarray:
        places = places + value.astype(np.int64).reshape(*value.shape[:lead], -1)
        vector = self.spec.zeros(*value.shape[:lead])
        if lead:
            np.put_along_axis(vector, places, 1, axis=-1)
        else:
            vector[places] = 1
        return vector


class Leaf:
    """One array of a flattened observation: where it is found in the original, its spec, and how it is converted.

    Args:
        path: keys and indices that lead to it.
        space: its part of the observation space.
        encode: makes the array of a value that belongs to the space.
        env_id: for messages.
    """

    def __init__(self, path: tuple[Any, ...], space: spaces.Space[Any], encode: Conversion, env_id: str) -> None:
        self.path, self.space, self.spec, self.encode = path, space, encode.spec, encode
        self.key = ".".join(map(str, path)) or OBSERVATION
        self.env_id, self._shape = env_id, tuple(space.shape or ())
        self._bytes = encode.spec.dtype == "uint8"
        self._range = _allowed(space)

    def read(self, observation: Any) -> np.ndarray:
        """This leaf's array from an observation of the original space. ``Misbehaved`` if it does not belong to it."""
        return self.encode(self.checked(self.pick(observation), 0), 0)

    def pick(self, observation: Any) -> Any:
        """The part of an observation that this leaf is made of."""
        try:
            for key in self.path:
                observation = observation[key]
        except (KeyError, IndexError, TypeError):
            raise self._wrong(observation, f"there is no {key!r} in it") from None
        return observation

    def checked(self, value: Any, lead: int) -> np.ndarray:
        """``value`` as an array of the space's shape behind ``lead`` batch axes, after a look at its numbers."""
        array = np.asarray(value)
        if array.shape[lead:] != self._shape:
            raise self._wrong(value, f"its shape is {list(array.shape[lead:])}")
        if self._bytes and array.dtype == np.uint8:
            return array
        if array.dtype.kind not in ("biu" if self._bytes or self._range is not None else "biuf"):
            raise self._wrong(value, f"its dtype is {array.dtype}")
        if self._range is not None and array.size:
            low, high = self._range
            outside = (array < low) | (array > high)
            if outside.any():
                raise self._wrong(value, f"{array[outside].flat[0]} is outside")
        return array

    def _wrong(self, value: Any, why: str) -> Misbehaved:
        said = in_short(repr(value))
        return Misbehaved(f"{self.env_id}: observation {self.key!r} must belong to {self.space}, but {why}: {said}")


def flatten_space(space: spaces.Space[Any], env_id: str, channels: str = "auto") -> dict[str, Leaf]:
    """Key -> leaf for an observation space. ValueError naming the space if it is of another kind.

    ``channels``: which axis of pictures holds the channels, see ``EnvConfig.channels``.
    """
    leaves: dict[str, Leaf] = {}
    for leaf in _leaves(space, (), env_id, channels):
        if leaf.key in leaves:
            raise ValueError(
                f"{env_id}: two parts of the observation space would be called {leaf.key!r}: {leaves[leaf.key].path} "
                f"and {leaf.path}; rename one with a gymnasium.ObservationWrapper"
            )
        leaves[leaf.key] = leaf
    if not leaves:
        raise ValueError(f"{env_id} has an empty observation space {space}")
    return leaves


def flatten(leaves: dict[str, Leaf], observation: Any) -> ArrayDict:
    """The flat dictionary of one observation. ``Misbehaved`` if it does not belong to its space."""
    return {key: leaf.read(observation) for key, leaf in leaves.items()}


def action_spec(space: spaces.Space[Any], env_id: str) -> ActionSpec:
    """The spec of an action space: ``Discrete`` and ``MultiDiscrete`` (any start), ``MultiBinary``, or a ``Box`` of
    floats. ValueError for others.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", int(space.n))
    if isinstance(space, spaces.Box) and space.dtype is not None and np.dtype(space.dtype).kind == "f":
        low, high = (tuple(float(x) for x in bound.ravel()) for bound in (space.low, space.high))
        return ActionSpec("continuous", shape=tuple(space.shape), low=low, high=high)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.size:
        return ActionSpec("multi_discrete", nvec=tuple(int(n) for n in space.nvec.ravel()))
    if isinstance(space, spaces.MultiBinary) and np.prod(space.shape) > 0:
        return ActionSpec("multi_discrete", nvec=(2,) * int(np.prod(space.shape)))
    raise ValueError(
        f"{env_id} has the action space {space}; supported are Discrete, MultiDiscrete, MultiBinary and Box of floats; "
        "wrap it with a gymnasium.ActionWrapper that gives one of these"
    )


def action_decoder(space: spaces.Space[Any]) -> Callable[[np.ndarray], Any]:
    """From one action as offbeat stores it, or a batch [n, ...] of them, to what the space or its batches hold.

    Its start is added, or what it gives is clipped to the box's bounds.
    """
    if isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary):
        first, shape, kind = getattr(space, "start", 0), space.shape, space.dtype
        return lambda action: (np.reshape(action, (*np.shape(action)[:-1], *shape)) + first).astype(kind)
    if isinstance(space, spaces.Discrete):
        start, kind = space.start, np.dtype(space.dtype or np.int64)
        return lambda action: np.add(action, start, dtype=kind, casting="unsafe")
    low, high, dtype = space.low, space.high, space.dtype  # type: ignore[attr-defined]
    return lambda action: np.clip(np.asarray(action).astype(dtype), low, high)


def has_mask(info: dict[str, Any], action: ActionSpec, num_envs: int | None = None) -> bool:
    """Whether ``info`` of one environment, or of a vector of ``num_envs``, says which discrete actions are legal."""
    lead = () if num_envs is None else (num_envs,)
    return bool(action.choices) and np.shape(info.get(MASK, ())) == (*lead, sum(action.choices))


def refuse_late_mask(info: dict[str, Any], action: ActionSpec, env_id: str, num_envs: int | None = None) -> None:
    """``Misbehaved`` if ``info`` holds a mask, of an environment whose first reset gave none: nobody would read it."""
    if MASK in info and has_mask(info, action, num_envs):
        raise Misbehaved(
            f"{env_id}: info[{MASK!r}] is there now and was not at the first reset; give it at every reset and step, "
            "all ones where every action is legal"
        )


def read_mask(info: dict[str, Any], shape: tuple[int, ...], env_id: str) -> np.ndarray:
    """The mask in ``info``, bool of ``shape``; where there is none all are legal. ``Misbehaved`` for another shape."""
    mask = np.array(info.get(MASK, np.ones(shape)), bool)
    if mask.shape != shape:
        raise Misbehaved(f"{env_id}: info[{MASK!r}] must have the shape {list(shape)}, got {list(mask.shape)}")
    if len(shape) > 1:  # of a vector, which notes who gave one
        mask[~np.broadcast_to(info.get(f"_{MASK}", True), len(mask))] = True
    return mask


def with_mask(leaves: dict[str, Leaf], action: ActionSpec) -> dict[str, Leaf]:
    """``leaves`` with a part called ``action_mask`` (as PettingZoo and others name it) under offbeat's own name.

    It is one where it has a number for each choice of a discrete action: not 0 where that may be chosen.
    """
    mask = leaves.get(MASK) or leaves.get(LEGAL)
    if mask is None or not action.choices or mask.spec.shape != (sum(action.choices),):
        return leaves
    encode = replace(mask.encode, spec=ArraySpec(mask.spec.shape, "bool"))
    named = Leaf(mask.path, mask.space, encode, mask.env_id)
    return {LEGAL if leaf is mask else key: named if leaf is mask else leaf for key, leaf in leaves.items()}


class Translator:
    """Between a Gymnasium environment's own spaces and what offbeat makes of them, for one observation or a batch.

    Args:
        leaves: of the observation space, as ``flatten_space`` gives them.
        observation_space, action_space: of the environment.
    """

    def __init__(
        self, leaves: dict[str, Leaf], observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        self.leaves, self.observation_space, self.action_space = leaves, observation_space, action_space
        self._decode = action_decoder(action_space)

    def observation(self, given: Any) -> tuple[ArrayDict, bool]:
        """One observation as the environment gives it, or a batch (every array with one more axis in front), as key ->
        [n, ...]; and whether it was a batch. ``Misbehaved`` for what is neither.
        """
        first = next(iter(self.leaves.values()))
        lead = np.ndim(first.pick(given)) - len(first.space.shape or ())
        batched = lead == 1
        found = {}
        for key, leaf in self.leaves.items():
            value = leaf.encode(leaf.checked(leaf.pick(given), int(batched)), int(batched))
            found[key] = value if batched else value[None]
        sizes = {key: len(value) for key, value in found.items()}
        if len(set(sizes.values())) != 1:
            raise Misbehaved(f"observation: a batch must have one size, got {sizes}")
        return found, batched

    def action(self, action: np.ndarray, batched: bool) -> Any:
        """Stored actions [n, ...] as members of the action space: a batch [n, ...] of them, or the only one."""
        return self._decode(action if batched else action[0])


def channel_axis(shape: tuple[int, ...], channels: str, what: str) -> int:
    """Which axis of a picture [., ., .] holds its channels: 0 or 2.

    ``channels``: ``first``, ``last``, or ``auto``: the shorter of the two. ValueError, naming ``what``, where they are
    equally long.
    """
    if channels != "auto":
        return 0 if channels == "first" else 2
    if shape[0] == shape[2]:
        raise ValueError(
            f"{what} has the shape {list(shape)}, which does not say whether its first or its last axis holds the "
            "channels; env.channels = 'first' (as it is) or 'last' does"
        )
    return 0 if shape[0] < shape[2] else 2


def _leaves(space: spaces.Space[Any], path: tuple[Any, ...], env_id: str, channels: str) -> list[Leaf]:
    if isinstance(space, spaces.Dict):
        return [leaf for key, part in space.spaces.items() for leaf in _leaves(part, (*path, key), env_id, channels)]
    if isinstance(space, spaces.Tuple):
        return [leaf for i, part in enumerate(space.spaces) for leaf in _leaves(part, (*path, i), env_id, channels)]
    name = ".".join(map(str, path)) or OBSERVATION
    shown = f"{env_id} has the observation space {space}{f' at {name!r}' if path else ''}"
    if isinstance(space, spaces.Box):
        made = _box(space, channels, f"{env_id}: observation {name!r}")
    elif isinstance(space, spaces.Discrete):
        made = _one_hot(np.array([space.n]), np.array([space.start]), shown)
    elif isinstance(space, spaces.MultiDiscrete):
        made = _one_hot(space.nvec.ravel(), np.ravel(space.start), shown)
    elif isinstance(space, spaces.MultiBinary):
        made = Conversion(ArraySpec(tuple(space.shape), "float32", 0.0, 1.0))
    else:
        raise ValueError(
            f"{shown}; supported are Box, Discrete, MultiDiscrete, MultiBinary, and "
            "Dict and Tuple of these; wrap it with a gymnasium.ObservationWrapper that gives one of these"
        )
    return [Leaf(path, space, made, env_id)]


def _allowed(space: spaces.Space[Any]) -> tuple[Any, Any] | None:
    """Least and greatest number that is stored as itself; None: any."""
    if isinstance(space, spaces.Discrete):
        return int(space.start), int(space.start + space.n - 1)
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    return (0, 255) if space.dtype == np.uint8 else None


def _box(space: spaces.Box, channels: str, what: str) -> Conversion:
    """A box as it is stored; pictures with their channels in front."""
    shape, dtype = tuple(space.shape), "uint8" if space.dtype == np.uint8 else "float32"
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    ends = (float(low.min(initial=np.inf)), float(high.max(initial=-np.inf)))
    bounds = (0.0, ends[1]) if dtype == "uint8" else ends if np.isfinite(ends).all() else (None, None)
    if len(shape) == 3 and channel_axis(shape, channels, what) == 2:
        return Conversion(ArraySpec((shape[2], shape[0], shape[1]), dtype, *bounds), "channels last")
    if len(shape) == 2 and dtype == "uint8":
        return Conversion(ArraySpec((1, *shape), dtype, *bounds), "no channels")
    return Conversion(ArraySpec(shape, dtype, *bounds))


def _one_hot(counts: np.ndarray, starts: np.ndarray, shown: str) -> Conversion:
    """Discrete numbers as they are stored. ``shown``: how an error begins."""
    size = int(counts.sum())
    if size > MAX_ONE_HOT:
        raise ValueError(f"{shown}; at most {MAX_ONE_HOT} values become one-hot")
    places = np.concatenate([[0], np.cumsum(counts)[:-1]]) - starts
    return Conversion(ArraySpec((size,), "float32", 0.0, 1.0), places=places)
