"""The whole state of a vector environment whose attributes are arrays, numbers and generators: as arrays, and back.

Nothing is pickled: what is neither of these, nor a constant such as a space, is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec as Registration

from offbeat.envs.base import StateUnsupported, VectorEnv
from offbeat.envs.gymnasium import random_actions
from offbeat.envs.seeding import pack_generator, unpack_generator
from offbeat.types import LEGAL, ArrayDict, EnvStep

CONSTANT = (
    spaces.Space, Registration, Enum, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType, np.ufunc,
    np.dtype,
)  # fmt: skip
"""What an environment has as it was made."""
OUTLINE = "outline"
"""Name of the JSON, as bytes, that says which array is where."""
CHECKED_STEPS = 50
"""Random steps before a state is saved for a check, and after it."""


def packed(env: Any, env_id: str) -> ArrayDict:
    """All attributes of ``env`` and of what it wraps. ``StateUnsupported`` naming the first that cannot be kept."""
    arrays: ArrayDict = {}
    outline = []
    for part in _layers(env):
        outline.append([[name, _outlined(value, name, arrays, env_id)] for name, value in _attributes(part)])
    return arrays | {OUTLINE: np.frombuffer(json.dumps(outline).encode(), np.uint8).copy()}


def unpack(env: Any, arrays: ArrayDict) -> None:
    """Give ``env``, which was made alike, the attributes that ``packed`` kept. Arrays are written in place."""
    outline = json.loads(arrays[OUTLINE].tobytes().decode())
    for part, attributes in zip(_layers(env), outline, strict=True):
        here = vars(part)
        for name, node in attributes:
            if node[0] != "constant":
                here[name] = _value(node, here.get(name), arrays)


def check_saved(env_id: str, make: Callable[[], VectorEnv], steps: int = CHECKED_STEPS) -> None:
    """Play on from a saved state in the environments that it is of and in others; ``StateUnsupported`` if the rows of
    random actions differ, or where they cannot be saved at all. ``make`` gives them; they are closed by whoever made
    it.
    """
    one, two = make(), make()
    one.reset(1)
    two.reset(2)
    rows, _ = one.recv(), two.recv()
    generator = np.random.Generator(np.random.PCG64(1))

    def play(envs: VectorEnv) -> EnvStep:
        envs.send(action)
        return envs.recv()

    for step in range(2 * steps):
        if step == steps:
            two.load_state({name: np.array(value) for name, value in one.state().items()})
        action = random_actions(one.spec.action, generator, one.num_envs, rows.observation.get(LEGAL))
        rows = play(one)
        if step >= steps and (differs := _difference(rows, play(two))):
            raise StateUnsupported(
                f"{env_id} cannot be saved exactly: after its attributes were saved and set again, the same actions "
                f"did not give the same {differs}; keep all that changes in attributes, and draw from self.np_random"
            )


def _difference(one: EnvStep, two: EnvStep) -> str:
    """What two batches of rows do not have in common; empty: nothing."""
    names = ("raw_reward", "terminated", "truncated", "first")
    pairs = [(name, getattr(one, name), getattr(two, name)) for name in names]
    pairs += [(key, value, two.observation[key]) for key, value in one.observation.items()]
    return next((name for name, a, b in pairs if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f")), "")


def _layers(env: Any) -> Iterator[Any]:
    """The environment and what it wraps, from the outermost on."""
    while env is not None:
        yield env
        env = getattr(env, "__dict__", {}).get("env")


def _attributes(part: Any) -> list[tuple[str, Any]]:
    """Name and value of each attribute, but what the layer wraps."""
    return [(name, value) for name, value in getattr(part, "__dict__", {}).items() if name != "env"]


def _outlined(value: Any, name: str, arrays: ArrayDict, env_id: str) -> list[Any]:
    """[kind, what JSON has of it] of a value. Its arrays are added to ``arrays``."""

    def added(array: np.ndarray) -> str:
        arrays[key := f"array{len(arrays)}"] = array.copy()
        return key

    if value is None or type(value) in (bool, int, float, str):
        return ["plain", value]
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        return ["scalar", added(np.asarray(value))]
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return ["array", added(value)]
    if isinstance(value, np.random.Generator) and isinstance(value.bit_generator, np.random.PCG64):
        return ["generator", added(pack_generator(value))]
    if type(value) in (list, tuple):
        return [type(value).__name__, [_outlined(part, f"{name}[{i}]", arrays, env_id) for i, part in enumerate(value)]]
    if type(value) is dict and all(type(key) in (str, int) for key in value):
        return ["dict", [[key, _outlined(part, f"{name}[{key!r}]", arrays, env_id)] for key, part in value.items()]]
    if isinstance(value, CONSTANT) or hasattr(value, "py_func"):  # numba's compiled functions have one
        return ["constant", None]
    raise StateUnsupported(
        f"{env_id} is a vector environment that cannot be saved: its {name} is of {type(value).__name__}, kept "
        "are arrays, numbers, text, generators (PCG64), and lists, tuples and dicts of these; deterministic runs need "
        "that, or a factory of single ones"
    )


def _value(node: list[Any], now: Any, arrays: ArrayDict) -> Any:
    """What ``_outlined`` described, put into ``now`` where that is an array or a generator of the same kind."""
    kind, held = node
    if kind == "constant":
        return now
    if kind == "plain":
        return held
    if kind == "scalar":
        return arrays[held][()]
    if kind == "array":
        saved = arrays[held]
        fits = isinstance(now, np.ndarray) and (now.shape, now.dtype) == (saved.shape, saved.dtype)
        if not fits or not now.flags.writeable:
            return saved.copy()
        now[...] = saved
        return now
    if kind == "generator":
        drawn = unpack_generator(arrays[held])
        if not isinstance(now, np.random.Generator) or not isinstance(now.bit_generator, np.random.PCG64):
            return drawn
        now.bit_generator.state = drawn.bit_generator.state  # type: ignore[assignment]  # a mapping that it gave
        return now
    if kind == "dict":
        named = now if isinstance(now, dict) else {}
        return {key: _value(part, named.get(key), arrays) for key, part in held}
    placed = now if isinstance(now, list | tuple) and len(now) == len(held) else [None] * len(held)
    parts = [_value(part, was, arrays) for part, was in zip(held, placed, strict=True)]
    return tuple(parts) if kind == "tuple" else parts
