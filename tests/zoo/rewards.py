"""Every kind of reward."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tests.zoo.entry import Entry
from tests.zoo.small import Small


class Pays(Small):
    """Always the same reward; or that one at the episode's last step and 0 before it."""

    def __init__(self, amount: Any, last: bool = False) -> None:
        super().__init__()
        self.amount, self.last = amount, last

    def reward(self, action: Any) -> Any:
        return 0.0 if self.last and self.t < self.length else self.amount


def pays(name: str, amount: Any, says: str = "", last: bool = False, **known: Any) -> Entry:
    """An environment that pays ``amount``."""
    return Entry(f"reward-{name}", partial(Pays, amount, last), says, **known)


BROKEN = {"learner.nonfinite_limit": 2}
DIAGNOSIS = r"2 updates in a row.* not finite"
NO_NUMBER = r"step\(\) must return the reward as a number; it returned "
CLIPPED = {"env.reward_clip": "sign"}
ENTRIES = [
    pays("int", 2),
    pays("bool", True),
    pays("float32", np.float32(0.5)),
    pays("int64", np.int64(-3)),
    pays("array", np.array(1.0)),
    pays("array-int", np.array(1)),
    pays("negative", -1.5),
    pays("last", 1.0, last=True),
    pays("zero", 0.0, warns=("every reward was 0",)),
    pays("nan", float("nan"), DIAGNOSIS, at="run", options=BROKEN, error="reward was nan"),
    pays("nan-last", float("nan"), last=True, error="reward was nan"),
    pays("inf", float("inf"), DIAGNOSIS, at="run", options=BROKEN, error="reward was inf"),
    pays("inf-clipped", float("-inf"), options=CLIPPED, warns=("reward was -inf in step 1: clipped",)),
    pays("huge", 1e30, DIAGNOSIS, at="run", options=BROKEN, error=r"reward.* 1e\+30"),
    pays("huge-clipped", 1e30, options=CLIPPED),
    pays("large", 1e4, warns=(r"rewards reach 1e\+04.*env\.reward_scale",)),
    pays("beyond-float32", 1e300, DIAGNOSIS, at="run", options=BROKEN, error=r"reward.* 1e\+300"),
    pays("list", [1.0], NO_NUMBER + "list", at="look"),
    pays("array-1", np.array([1.0]), NO_NUMBER + r"an array \[1\] of float64", at="look"),
    pays("none", None, NO_NUMBER + "NoneType None", at="look"),
    pays("text", "1", NO_NUMBER + "str '1'", at="look"),
    pays("complex", 1j, NO_NUMBER + "complex", at="look"),
]
