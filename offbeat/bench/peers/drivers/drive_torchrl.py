"""TorchRL's prioritised sampler over tensors in memory, filled from one stream without episode ends.

``frames`` keeps each frame once, draws the rows around each transition and stacks them here; ``stacks`` keeps
observations and next observations as networks see them, their returns already summed.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import numpy as np

driver = import_module("replay_driver")

WORKLOADS = {
    "frames": "PrioritizedSampler, LazyTensorStorage of frames, sample_unit Sequence around each drawn row",
    "stacks": "PrioritizedSampler, LazyTensorStorage of stacks: each frame eight times",
}
HISTORY = driver.STACK - 1


class TorchRL:
    """See ``replay_driver.Contender``."""

    steps = driver.N_STEPS

    def __init__(self, options: Any, frames: Any) -> None:
        # The binaries of 0.14 are built for torch 2.14. With 2.13 they lack two functions of autograd, which the trees
        # never call: looked up when first called instead of at once, they are not missed.
        sys.setdlopenflags(os.RTLD_LAZY)
        self.torch = import_module("torch")
        self.data: Any = import_module("torchrl.data")
        self.stacked = options.variant == "stacks"
        self.period = len(frames)
        self.held = options.transitions
        if self.stacked:
            self.held = min(self.held, options.memory // (2 * driver.STACK * driver.SIZE**2))
        self.capacity = self.held
        self.rows = self._rows(frames)
        self.powers = driver.DISCOUNT ** self.torch.arange(driver.N_STEPS)

    def _rows(self, frames: Any) -> Any:
        """The block that is appended again and again."""
        torch, count = self.torch, len(frames)
        pixels: Any = frames
        next_: dict[str, Any] = {"reward": torch.ones(count), "done": torch.zeros(count, 1, dtype=torch.bool)}
        if self.stacked:
            pixels = frames[(np.arange(count)[:, None] + np.arange(driver.STACK)) % count]
            next_["pixels"] = torch.from_numpy(np.roll(pixels, -driver.N_STEPS, 0))
        rows = {"pixels": torch.from_numpy(pixels), "action": torch.zeros(count, dtype=torch.int64), "next": next_}
        return import_module("tensordict").TensorDict(rows, [count])

    def allocate(self) -> None:
        """Tensors of the whole size, whose pages are taken as they are filled."""
        unit = {} if self.stacked else {"sample_unit": self._around(HISTORY, 1, driver.N_STEPS)}
        self.storage = self.data.LazyTensorStorage(self.held)
        self.transitions = self._buffer(driver.BATCH, **unit)

    def append(self) -> None:
        """A block of one stream."""
        self.transitions.extend(self.rows)

    def prepare(self) -> None:
        """Another sampler over the same frames; stacks would be gathered with their next ones, which nobody needs."""
        if not self.stacked:
            around = self._around(HISTORY + driver.BURN_IN, driver.LENGTH, driver.TAIL)
            self.sequences = self._buffer(driver.SEQUENCES, sample_unit=around)
            every = self.torch.arange(self.held)
            self.sequences.update_priority(every, self.torch.ones(self.held))

    def sample(self) -> tuple[Any, Any, Any]:
        """Stacks are views of the frames around each transition, which networks take as they are."""
        batch = self.transitions.sample()
        if self.stacked:
            return batch["pixels"], batch["next", "pixels"], batch["index"]
        rows = batch.reshape(driver.BATCH, -1)
        self.returns = rows["next", "reward"][:, HISTORY : HISTORY + driver.N_STEPS] @ self.powers
        pixels = rows["pixels"]
        return pixels[:, : driver.STACK], pixels[:, -driver.STACK :], rows["anchor_index"][:, 0]

    def draw(self) -> Any:
        """Indices and weights."""
        return self.transitions.sampler.sample(self.storage, driver.BATCH)

    def update(self, names: Any, priority: Any) -> None:
        """Of the transitions that were drawn."""
        self.transitions.update_priority(names, self.torch.from_numpy(priority))

    def sample_sequences(self) -> tuple[Any, Any] | None:
        """Stacks of consecutive frames, copied: a network cannot join the axes of time and batch of such a view."""
        if self.stacked:
            return None
        rows = self.sequences.sample().reshape(driver.SEQUENCES, -1)
        stacks = rows["pixels"].unfold(1, driver.STACK, 1)  # [SEQUENCES, rows, SIZE, SIZE, STACK]
        return stacks.permute(1, 0, 4, 2, 3).contiguous(), rows["anchor_index"][:, 0]

    def update_sequences(self, names: Any, priority: Any) -> None:
        """Of the sequences that were drawn."""
        self.sequences.update_priority(names, self.torch.from_numpy(priority))

    def _around(self, before: int, length: int, after: int) -> Any:
        return self.data.Sequence(length=length, burn_in=before, bootstrap=after)

    def _buffer(self, batch: int, **options: Any) -> Any:
        sampler = self.data.PrioritizedSampler(self.held, alpha=driver.ALPHA, beta=driver.BETA)
        return self.data.TensorDictReplayBuffer(storage=self.storage, sampler=sampler, batch_size=batch, **options)


if __name__ == "__main__":
    driver.drive("torchrl", TorchRL, WORKLOADS)
