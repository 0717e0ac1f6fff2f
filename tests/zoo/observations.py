"""Every kind of observation space: trained on as it is, or refused in one line."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from tests.zoo.entry import ALL, Entry
from tests.zoo.small import Small

INF = np.inf


def shows(name: str, space: Any, says: str = "", **known: Any) -> Entry:
    """An environment that shows samples of ``space``."""
    return Entry(name, partial(Small, space), says, **known)


def box(low: Any, high: Any, shape: Any, dtype: Any = np.float32) -> spaces.Box:
    """A box; bounds are numbers, or arrays of the shape."""
    return spaces.Box(low, high, shape, dtype)


DTYPES = [
    shows(f"box-{np.dtype(dtype)}", box(low, high, (4,), dtype))
    for dtype, low, high in (
        (np.int8, -5, 5), (np.int16, -300, 300), (np.int32, -9, 9), (np.int64, 0, 2), (np.uint8, 0, 255),
        (np.uint16, 0, 900), (np.uint32, 0, 9), (np.uint64, 0, 9), (np.float16, -1, 1), (np.float32, -1, 1),
        (np.float64, -1, 1), (bool, 0, 1),
    )
]  # fmt: skip

EMPTY = r"observation '\w+' has no elements"
LARGE = r"'observation' reaches -?\S+.*hard to learn from"
BOUNDS = [
    shows("box-scalar", box(-1, 1, ())),
    shows("box-scalar-uint8", box(0, 9, (), np.uint8)),
    shows("box-4d", box(-1, 1, (2, 3, 2, 2))),
    shows("box-unbounded", box(-INF, INF, (3,))),
    shows("box-half-bounded", box(np.array([0, -INF, -1], np.float32), np.array([INF, 0, 1], np.float32), (3,))),
    shows("box-huge", box(-1e9, 1e9, (3,)), warns=(LARGE,)),
    shows("box-low-is-high", box(2, 2, (3,))),
    shows("box-whole-int64", box(-(2**62), 2**62, (2,), np.int64), warns=(LARGE,)),
    shows("box-size-0", box(-1, 1, (0,)), warns=(EMPTY,)),
    shows("dict-size-0", spaces.Dict({"nothing": box(-1, 1, (0,)), "speed": box(-1, 1, (2,))}), warns=(EMPTY,)),
]

UNSCALED = r"'observation' is a picture of float32 that reaches \S+"
PICTURES = [
    shows("picture-hwc-1", box(0, 255, (9, 11, 1), np.uint8)),
    shows("picture-hwc-2", box(0, 255, (9, 11, 2), np.uint8)),
    shows("picture-hwc-3", box(0, 255, (40, 36, 3), np.uint8)),
    shows("picture-hwc-6", box(0, 255, (9, 11, 6), np.uint8)),
    shows("picture-hwc-3-float", box(0, 1, (9, 11, 3))),
    shows("picture-hwc-4-float-255", box(0, 255, (9, 11, 4)), warns=(UNSCALED,)),
    shows("picture-chw-1", box(0, 255, (1, 40, 36), np.uint8)),
    shows("picture-chw-3", box(0, 255, (3, 9, 11), np.uint8)),
    shows("picture-chw-4-float", box(0, 1, (4, 40, 36))),
    shows("picture-chw-12", box(0, 255, (12, 20, 20), np.uint8)),
    shows("picture-2d", box(0, 255, (9, 11), np.uint8)),
    shows("picture-2d-float", box(0, 1, (9, 11)), warns=("looks like a picture",)),
    shows("picture-tiny", box(0, 255, (2, 2, 1), np.uint8)),
    shows("picture-1x1", box(0, 255, (1, 1, 3), np.uint8)),
    shows("picture-low-range", box(0, 4, (8, 8, 3), np.uint8)),
    shows("picture-bool", box(0, 1, (5, 5, 3), bool)),
    shows("picture-cube", box(0, 255, (8, 8, 8), np.uint8), says=r"\[8, 8, 8\].*env\.channels = 'first'"),
    shows("picture-cube-told", box(0, 255, (8, 8, 8), np.uint8), options={"env.channels": "last"}),
]

DISCRETE = [
    shows("discrete", spaces.Discrete(5)),
    shows("discrete-start", spaces.Discrete(5, start=-2)),
    shows("discrete-1", spaces.Discrete(1, start=7)),
    shows("discrete-5000", spaces.Discrete(5000), says="at most 4096 values become one-hot"),
    shows("multi-discrete", spaces.MultiDiscrete([2, 3, 4])),
    shows("multi-discrete-nested", spaces.MultiDiscrete([[2, 3], [4, 5]])),
    shows("multi-discrete-start", spaces.MultiDiscrete([2, 3], start=[-1, 10])),
    shows("multi-binary", spaces.MultiBinary(5)),
    shows("multi-binary-shape", spaces.MultiBinary((2, 3))),
]

CAMERA, SPEED, GEAR = box(0, 255, (12, 14, 3), np.uint8), box(-1, 1, (2,), np.float64), spaces.Discrete(3, start=1)
NESTED = spaces.Dict({"body": spaces.Dict({"speed": SPEED, "gear": GEAR}), "camera": CAMERA})
UNSUPPORTED = r"supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these; wrap it"
DICTS = [
    shows("dict", spaces.Dict({"speed": SPEED, "gear": GEAR})),
    shows("dict-nested", NESTED),
    shows("dict-two-pictures", spaces.Dict({"left": CAMERA, "right": CAMERA})),
    shows("tuple", spaces.Tuple((SPEED, spaces.MultiBinary(2)))),
    shows("dict-of-tuple", spaces.Dict({"pair": spaces.Tuple((GEAR, SPEED)), "camera": CAMERA})),
    shows("tuple-of-dict", spaces.Tuple((spaces.Dict({"x": SPEED}), spaces.Dict({"x": GEAR})))),
    shows("dict-empty", spaces.Dict({}), says="has an empty observation space"),
    shows("dict-same-name", spaces.Dict({"a": spaces.Dict({"b": GEAR}), "a.b": GEAR}), says=r"would be called 'a\.b'"),
    shows("text", spaces.Text(5), says=UNSUPPORTED),
    shows("dict-text", spaces.Dict({"speed": SPEED, "said": spaces.Text(5)}), says=UNSUPPORTED),
    shows("sequence", spaces.Sequence(spaces.Discrete(3)), says=UNSUPPORTED),
    shows("graph", spaces.Graph(box(0, 1, (2,)), spaces.Discrete(2)), says=UNSUPPORTED),
    shows("one-of", spaces.OneOf((GEAR, SPEED)), says=UNSUPPORTED),
]

ENTRIES = [*DTYPES, *BOUNDS, *PICTURES, *DISCRETE, *DICTS]
assert all(entry.agents == ALL for entry in ENTRIES)
