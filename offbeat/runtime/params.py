"""Versioned weights in shared memory: one publisher, any number of readers, nobody ever sees a torn vector.

The flat vector lives in a few slots. The publisher writes into one that is not the newest. A *copying* reader checks
the slot's version again after it has copied, and copies again if it has moved: it is disturbed only when it takes
longer than ``SLOTS - 1`` publications. A reader that uses weights *in place* pins their slot, which the publisher then
leaves alone; where every slot is pinned it publishes nothing, counts that, and tries again with the next weights.

Pin and version are two flags that two processes set and then look at each other's: the reader pins and then looks
whether the version still stands, the publisher takes the version away and then looks for pins. At least one of them
sees the other, provided that each one's store comes before its load. Processors of every kind may turn those two round,
also x86-64, so a fence stands between them.
"""

from __future__ import annotations

import threading
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
    ``reader``: which of the readers that pin slots this one is; None: it pins none.
    """

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        guard: AbstractContextManager[Any] | None = None,
        reader: int | None = None,
    ) -> None:
        self._arrays, self._given = arrays, guard
        self._guard = guard if guard is not None else nullcontext()
        self._fence = guard if guard is not None else threading.Lock()  # taking any lock orders a store before a load
        self._slot, self._version, self._newest = arrays["slot"], arrays["version"], arrays["newest"]
        self._steps, self._counts, self._pins = arrays["steps"], arrays["counts"], arrays["pins"]
        self._reader = reader
        if reader is not None:
            self._pins[reader] = 0  # of an incarnation that was killed

    def reader(self, index: int) -> ParamStore:
        """The same weights for the reader ``index``, which may pin slots; it starts without a pin."""
        return ParamStore(self._arrays, self._given, index)

    @property
    def retries(self) -> int:
        """How often readers had to copy again."""
        return int(self._counts[0])

    def version(self) -> int:
        """The newest published version; -1 before the first."""
        return int(self._newest[0]) // SLOTS - 1

    def publish(self, flat: torch.Tensor, version: int, agent_steps: int = 0, frames: int = 0) -> bool:
        """Make ``flat`` [P] the newest weights, which are from this ``Point``. ``version`` must grow.

        False if readers have pinned every slot but the newest: nothing is published then.
        """
        if version <= self.version():
            raise ValueError(f"version={version}: must be greater than the published {self.version()}")
        slot = self._free_slot()
        if slot is None:
            return False
        self._slot[slot] = flat.detach().cpu().numpy()
        self._steps[slot] = agent_steps, frames
        with self._guard:  # the weights are all there before anybody is told of them
            self._version[slot] = version
            self._newest[0] = (version + 1) * SLOTS + slot
        return True

    def _free_slot(self) -> int | None:
        """A slot that nobody uses in place, not the newest; readers that are still copying it see that it changed."""
        newest = int(self._newest[0]) % SLOTS
        for slot in ((newest + step) % SLOTS for step in range(1, SLOTS)):
            with self._fence:
                self._version[slot] = -1
            with self._fence:  # not before the version is gone for everybody
                pinned = self._pins[:, slot].any()
            if not pinned:
                return slot
        return None

    def newest(self) -> tuple[torch.Tensor, Point]:
        """A copy of the newest weights [P], and where they are from."""
        flat = torch.empty(self._slot.shape[1])
        return flat, self.pull(flat)

    def pull(self, flat: WeightTarget) -> Point:
        """Copy the newest weights into ``flat`` [P] (any device); where they are from."""
        while True:
            version, slot, whole = self._look()
            if whole:
                flat.copy_(torch.from_numpy(self._slot[slot]))
                steps, frames = self._steps[slot].tolist()
                with self._guard:  # not before the copy is made
                    whole = bool(self._version[slot] == version)
                if whole:
                    return Point(version, steps, frames)
            self._counts[0] += 1

    def pin(self) -> tuple[torch.Tensor, Point]:
        """The newest weights [P] where they lie, and where they are from. They stay until the next ``pin`` or
        ``release``, and are not to be written to.
        """
        if self._reader is None:
            raise RuntimeError("this reader of the weights only copies; ask for one with an index")
        while True:
            self.release()
            version, slot, _ = self._look()
            with self._fence:
                self._pins[self._reader, slot] = 1
            with self._fence:  # not before everybody can see the pin
                stands = bool(self._version[slot] == version)
            if stands:
                return torch.from_numpy(self._slot[slot]), Point(version, *self._steps[slot].tolist())
            self._counts[0] += 1

    def release(self) -> None:
        """Give back what is pinned; harmless without a pin."""
        if self._reader is not None:
            with self._guard:  # not before the last use of the weights
                self._pins[self._reader] = 0

    def _look(self) -> tuple[int, int, bool]:
        """The newest version, its slot, and whether the weights there are whole."""
        with self._guard:
            version, slot = divmod(int(self._newest[0]), SLOTS)
            whole = bool(self._version[slot] == version - 1)
        if not version:
            raise RuntimeError("no weights have been published yet")
        return version - 1, slot, whole


def param_arrays(size: int, readers: int = 1) -> dict[str, ArraySpec]:
    """The arrays that a store of ``size`` weights needs, of which so many ``readers`` may pin slots."""
    return {
        "slot": ArraySpec((SLOTS, size), "float32"),
        "version": ArraySpec((SLOTS,), "int64"),
        "steps": ArraySpec((SLOTS, 2), "int64"),
        "newest": ArraySpec((1,), "int64"),
        "counts": ArraySpec((1,), "int64"),
        "pins": ArraySpec((readers, SLOTS), "int64"),
    }


class SharedParams:
    """A ``ParamStore`` whose memory travels to child processes at spawn."""

    def __init__(self, size: int, guard: AbstractContextManager[Any] | None = None, readers: int = 1) -> None:
        self._memory, self._guard = SharedArrays(param_arrays(size, readers)), guard
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
