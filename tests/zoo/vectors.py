"""Vector environments: one that is right, and others whose steps and resets do not have a value for each copy."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from tests.zoo.entry import Entry


class Lamps(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Each copy shows what it drew; its reward is what it did. Episodes are of 6 steps."""

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs: int, fault: str = "") -> None:
        self.num_envs, self.fault = num_envs, fault
        self.single_observation_space, self.single_action_space = spaces.Box(-1, 1, (3,)), spaces.Discrete(3)
        self.t, self.over = np.zeros(num_envs, np.int64), np.zeros(num_envs, bool)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t[:], self.over[:] = 0, False
        return {"reset-alone": self.seen(), "reset-rows": (self.seen()[:-1], {})}.get(self.fault, (self.seen(), {}))

    def step(self, actions: Any) -> Any:
        anew = self.over
        self.t = np.where(anew, 0, self.t + 1)
        self.over = (self.t >= 6) & ~anew
        seen, reward = self.seen(), np.where(anew, 0.0, actions)
        right = seen, reward, self.over, np.zeros(self.num_envs, bool), {}
        return {
            "scalar-reward": (seen, reward[0], *right[2:]),
            "reward-column": (seen, reward[:, None], *right[2:]),
            "reward-text": (seen, reward.astype(str), *right[2:]),
            "scalar-ends": (seen, reward, False, False, {}),
            "ends-none": (*right[:3], None, {}),
            "ends-half": (*right[:3], 0.5 * right[3], {}),
            "twice-the-rows": (np.concatenate([seen, seen]), *right[1:]),
            "one-row": (seen[0], *right[1:]),
            "four": (seen, reward, self.over, {}),
        }.get(self.fault, right)

    def seen(self) -> np.ndarray:
        """What the copies show now."""
        return self.np_random.uniform(-1, 1, (self.num_envs, 3)).astype(np.float32)


EACH = r"step\(\) of a vector environment must return {} as an array \[\d+\], .* its num_envs=\d+; it returned "
ROWS = r"observation 'observation' of a vector environment must have the shape \[\d+, 3\], .* num_envs=\d+; it has "
FAULTS = {
    "scalar-reward": EACH.format("reward") + "float64",
    "reward-column": EACH.format("reward") + r"an array \[\d+, 1\] of float64",
    "reward-text": EACH.format("reward") + r"an array \[\d+\] of <U",
    "scalar-ends": EACH.format("terminated") + "bool False",
    "ends-none": EACH.format("truncated") + "NoneType None",
    "ends-half": EACH.format("truncated") + r"an array \[\d+\] of float64",
    "twice-the-rows": ROWS + r"\[\d+, 3\]",
    "one-row": ROWS + r"\[3\]",
    "four": r"step\(\) must return \(observations, reward, terminated, truncated, info\); it returned a tuple of 4",
    "reset-alone": r"reset\(\) must return \(observations, info\), info a dict; it returned an array",
    "reset-rows": ROWS + r"\[\d+, 3\]",
}
"""Fault -> pattern of the line that says so."""

ENTRIES = [Entry("vector-good", Lamps, single=False)] + [
    Entry(
        f"vector-{fault}",
        partial(Lamps, fault=fault),
        FAULTS[fault],
        "start" if fault.startswith("reset") else "look",
        single=False,
    )
    for fault in ("scalar-reward", "ends-none", "twice-the-rows", "reset-rows")
]
