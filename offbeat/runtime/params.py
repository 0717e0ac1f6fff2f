"""Versioned weights in shared memory: one publisher, any number of copying readers, nobody ever sees a torn vector.

The flat vector lives in a few slots. The publisher writes into the slot after the newest, so a reader that copies the
newest slot is disturbed only when it takes longer than ``slots - 1`` publications; it sees that by the slot's
version and copies again.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from offbeat.runtime.ports import Point, WeightTarget
from offbeat.runtime.shm import SharedArrays
from offbeat.types import ArraySpec

SLOTS = 3
"""Slots of the store: one that is newest, one that may still be read, one that is written."""


class ParamStore:
    """The weights [P] float32 of a run. ``arrays``: memory as ``param_arrays`` describes it, shared or private.

    ``guard``: a lock shared by all stores over the same arrays, for machines that reorder stores; see ``shm``.
    """

    def __init__(self, arrays: dict[str, np.ndarray], guard: AbstractContextManager[Any] | None = None) -> None:
        self._guard = guard if guard is not None else nullcontext()
        self._slot, self._version, self._newest = arrays["slot"], arrays["version"], arrays["newest"]
        self._steps, self._counts = arrays["steps"], arrays["counts"]

    @property
    def retries(self) -> int:
        """How often readers had to copy again."""
        return int(self._counts[0])

    def version(self) -> int:
        """The newest published version; -1 before the first."""
        return int(self._newest[0]) // SLOTS - 1

    def publish(self, flat: torch.Tensor, version: int, agent_steps: int = 0, frames: int = 0) -> bool:
        """Make ``flat`` [P] the newest weights, which are from this ``Point``. ``version`` must grow. Always True:
        readers copy, so a slot is always free.
        """
        if version <= self.version():
            raise ValueError(f"version={version}: must be greater than the published {self.version()}")
        slot = (int(self._newest[0]) % SLOTS + 1) % SLOTS
        with self._guard:
            self._version[slot] = -1  # a reader that is still copying this slot sees that it changed
        self._slot[slot] = flat.detach().cpu().numpy()
        self._steps[slot] = agent_steps, frames
        with self._guard:
            self._version[slot] = version
            self._newest[0] = (version + 1) * SLOTS + slot
        return True

    def newest(self) -> tuple[torch.Tensor, Point]:
        """A copy of the newest weights [P], and where they are from."""
        flat = torch.empty(self._slot.shape[1])
        return flat, self.pull(flat)

    def pull(self, flat: WeightTarget) -> Point:
        """Copy the newest weights into ``flat`` [P] (any device); where they are from."""
        if self.version() < 0:
            raise RuntimeError("no weights have been published yet")
        while True:
            with self._guard:
                version, slot = divmod(int(self._newest[0]), SLOTS)
                version -= 1
                whole = bool(self._version[slot] == version)
            if whole:
                flat.copy_(torch.from_numpy(self._slot[slot]))
                steps, frames = self._steps[slot].tolist()
                with self._guard:
                    whole = bool(self._version[slot] == version)
                if whole:
                    return Point(version, steps, frames)
            self._counts[0] += 1


def param_arrays(size: int) -> dict[str, ArraySpec]:
    """The arrays that a store of ``size`` weights needs."""
    return {
        "slot": ArraySpec((SLOTS, size), "float32"),
        "version": ArraySpec((SLOTS,), "int64"),
        "steps": ArraySpec((SLOTS, 2), "int64"),
        "newest": ArraySpec((1,), "int64"),
        "counts": ArraySpec((1,), "int64"),
    }


class SharedParams:
    """A ``ParamStore`` whose memory travels to child processes at spawn."""

    def __init__(self, size: int, guard: AbstractContextManager[Any] | None = None) -> None:
        self._memory, self._guard = SharedArrays(param_arrays(size)), guard
        self.store = ParamStore(self._memory.arrays, guard)

    def close(self) -> None:
        """Give the memory back."""
        del self.store
        self._memory.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"memory": self._memory, "guard": self._guard}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._memory, self._guard = state["memory"], state["guard"]
        self.store = ParamStore(self._memory.arrays, self._guard)
