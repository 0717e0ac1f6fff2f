"""Every kind of action space. Each environment insists that what it is given belongs to it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from tests.zoo.entry import ALL, POLICY, Entry
from tests.zoo.small import VECTOR, Small

INF, MOST = np.inf, np.finfo(np.float32).max


def takes(name: str, space: Any, says: str = "", agents: tuple[str, ...] = POLICY, **known: Any) -> Entry:
    """An environment that takes members of ``space``."""
    return Entry(f"action-{name}", partial(Small, VECTOR, space), says, agents=agents, **known)


UNSUPPORTED = r"has the action space .*; supported are .*; wrap it with a gymnasium.ActionWrapper"
UNEVEN = np.array([-1, 0], np.float32), np.array([3, 0.5], np.float32)
HALF = np.array([0, -INF], np.float32), np.array([INF, 1], np.float32)
ENTRIES = [
    takes("discrete-start", spaces.Discrete(4, start=3), agents=ALL),
    takes("discrete-negative", spaces.Discrete(2, start=-1), agents=ALL),
    takes("discrete-1", spaces.Discrete(1), agents=ALL),
    takes("discrete-300", spaces.Discrete(300), agents=ALL),
    takes("box", spaces.Box(-2, 2, (2,))),
    takes("box-1", spaces.Box(-1, 1, (1,))),
    takes("box-scalar", spaces.Box(-1, 1, ())),
    takes("box-unbounded", spaces.Box(-INF, INF, (2,))),
    takes("box-half-bounded", spaces.Box(*HALF)),
    takes("box-asymmetric", spaces.Box(*UNEVEN)),
    takes("box-far", spaces.Box(10, 11, (2,))),
    takes("box-2d", spaces.Box(-1, 1, (2, 3))),
    takes("box-float64", spaces.Box(-1, 1, (2,), np.float64)),
    takes("box-float16", spaces.Box(-1, 1, (2,), np.float16)),
    takes("box-low-is-high", spaces.Box(0.5, 0.5, (2,))),
    takes("box-huge", spaces.Box(-1e30, 1e30, (2,))),
    takes("box-all-of-float32", spaces.Box(-MOST, MOST, (2,))),
    takes("box-int", spaces.Box(0, 9, (2,), np.int64), says=UNSUPPORTED),
    takes("box-uint8", spaces.Box(0, 255, (2,), np.uint8), says=UNSUPPORTED),
    takes("box-bool", spaces.Box(0, 1, (2,), bool), says=UNSUPPORTED),
    takes("multi-discrete", spaces.MultiDiscrete([3, 2])),
    takes("multi-discrete-start", spaces.MultiDiscrete([3, 2], start=[-1, 5])),
    takes("multi-discrete-nested", spaces.MultiDiscrete([[2, 3], [4, 5]])),
    takes("multi-binary", spaces.MultiBinary(3)),
    takes("multi-binary-shape", spaces.MultiBinary((2, 2))),
    takes("dict", spaces.Dict({"go": spaces.Discrete(2), "turn": spaces.Box(-1, 1, (1,))}), says=UNSUPPORTED),
    takes("tuple", spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))), says=UNSUPPORTED),
    takes("text", spaces.Text(4), says=UNSUPPORTED),
]
