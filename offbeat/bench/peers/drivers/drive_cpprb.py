"""cpprb's prioritised buffer with its memory compression, filled from one stream without episode ends.

One stream, because a change of stream in the middle of an episode would put stacks into cpprb's cache at every block.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

driver = import_module("replay_driver")

WORKLOADS = {
    "one-step": "PrioritizedReplayBuffer, stack_compress and next_of: frames once, returns of 1 step",
    "n-step": "PrioritizedReplayBuffer, stack_compress of obs and next_obs, Nstep: frames twice",
}
"""With Nstep, cpprb leaves next_of out: next observations are then a ring of their own."""


class Cpprb:
    """See ``replay_driver.Contender``."""

    def __init__(self, options: Any, frames: Any) -> None:
        self.nstep = options.variant == "n-step"
        self.period = len(frames)
        self.held = options.transitions
        if self.nstep:
            self.held = min(self.held, options.memory // (2 * driver.SIZE**2))
        self.capacity = self.held
        self.steps = driver.N_STEPS if self.nstep else 1
        rows = np.arange(len(frames))[:, None] + np.arange(driver.STACK)
        stacks = np.ascontiguousarray(np.moveaxis(frames[rows % len(frames)], 1, -1))  # [rows, SIZE, SIZE, STACK]
        self.rows = {"obs": stacks, "next_obs": np.roll(stacks, -1, 0)}
        self.action, self.done = np.zeros(len(frames), np.int64), np.zeros(len(frames))

    def allocate(self) -> None:
        """One ring; two of frames with Nstep."""
        stack = {"shape": (driver.SIZE, driver.SIZE, driver.STACK), "dtype": np.uint8}
        spec: dict[str, Any] = {"obs": stack, "act": {"dtype": np.int64}, "rew": {}, "done": {}}
        options: dict[str, Any] = {"stack_compress": "obs", "next_of": "obs"}
        if self.nstep:
            spec["next_obs"] = dict(stack)
            returns = {"size": driver.N_STEPS, "gamma": driver.DISCOUNT, "rew": "rew", "next": "next_obs"}
            options = {"stack_compress": ["obs", "next_obs"], "Nstep": returns}
        self.buffer = self._prioritised(spec, **options)

    def append(self) -> None:
        """A block of one stream. Rewards are copied, because Nstep sums them in place."""
        self.buffer.add(act=self.action, rew=np.ones(len(self.done)), done=self.done, **self.rows)

    def prepare(self) -> None:
        """A buffer with as many transitions of one byte: what drawing costs alone."""
        self.small = self._prioritised({"x": {"dtype": np.uint8}})
        priorities = np.random.default_rng(0).random(self.held, np.float32)
        self.small.add(x=np.zeros(self.held, np.uint8), priorities=priorities)

    def sample(self) -> tuple[Any, Any, Any]:
        """Stacks come with their frames as the last axis, as cpprb needs them; turned here without a copy."""
        batch = self.buffer.sample(driver.BATCH, driver.BETA)
        return np.moveaxis(batch["obs"], -1, 1), np.moveaxis(batch["next_obs"], -1, 1), batch["indexes"]

    def draw(self) -> Any:
        """From the small buffer."""
        return self.small.sample(driver.BATCH, driver.BETA)

    def update(self, names: Any, priority: Any) -> None:
        """Of the transitions that ``sample`` named."""
        self.buffer.update_priorities(names, priority)

    def sample_sequences(self) -> None:
        """It has none."""

    def update_sequences(self, names: Any, priority: Any) -> None:
        """It has none."""

    def _prioritised(self, spec: dict[str, Any], **options: Any) -> Any:
        return import_module("cpprb").PrioritizedReplayBuffer(self.held, spec, alpha=driver.ALPHA, **options)


if __name__ == "__main__":
    driver.drive("cpprb", Cpprb, WORKLOADS)
