"""Environments that say which actions are legal. Each raises where it is given another one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces

from tests.zoo.entry import Entry
from tests.zoo.small import VECTOR, Small

ACTIONS = 4
MASKS = {
    "bits": spaces.MultiBinary(ACTIONS),
    "bool": spaces.Box(0, 1, (ACTIONS,), bool),
    "int8": spaces.Box(0, 1, (ACTIONS,), np.int8),
    "float": spaces.Box(0, 1, (ACTIONS,)),
}


class Masked(Small):
    """Of four actions one is illegal at each step, another one each time.

    Args:
        key: under which the mask is shown.
        kind: of the mask's space.
        where: in the observation, or in what goes beside it.
        start: of the actions.
    """

    def __init__(self, key: str, kind: str = "bits", where: str = "observation", start: int = 0) -> None:
        self.key, self.where = key, where
        parts = {"speed": VECTOR} | ({key: MASKS[kind]} if where == "observation" else {})
        super().__init__(spaces.Dict(parts), spaces.Discrete(ACTIONS, start=start))
        self.dtype = MASKS[kind].dtype

    def mask(self) -> np.ndarray:
        """Of the next step."""
        return np.asarray(np.arange(ACTIONS) != self.t % ACTIONS, self.dtype)

    def seen(self) -> Any:
        return super().seen() | ({self.key: self.mask()} if self.where == "observation" else {})

    def info(self) -> dict[str, Any]:
        return {self.key: self.mask()} if self.where == "info" else {}

    def step(self, action: Any) -> Any:
        assert self.mask()[int(action) - int(self.action_space.start)], f"{action} is illegal now"
        return super().step(action)


class Narrow(Masked):
    """Its mask is too short for its actions."""

    def __init__(self) -> None:
        super().__init__("legal_actions")
        self.action_space = spaces.Discrete(ACTIONS + 1)


class Stuck(Masked):
    """Nothing is legal after two steps."""

    def mask(self) -> np.ndarray:
        return super().mask() * (self.t < 2)


class Last(Masked):
    """Nothing is legal in the observation that ends an episode, where nobody acts."""

    def mask(self) -> np.ndarray:
        return super().mask() * (self.t < self.length)


ENTRIES = [
    *(Entry(f"mask-{kind}", partial(Masked, "legal_actions", kind)) for kind in MASKS),
    Entry("mask-start", partial(Masked, "legal_actions", start=5)),
    Entry("mask-last", partial(Last, "legal_actions")),
    Entry("mask-named", partial(Masked, "action_mask", "int8")),
    Entry("mask-info", partial(Masked, "action_mask", "int8", "info")),
    Entry("mask-short", Narrow, says=r"as the mask of actions it must be \[5\]"),
    Entry(
        "mask-stuck", partial(Stuck, "legal_actions"), says="is illegal now", at="look", warns=("no action was legal",)
    ),
]
