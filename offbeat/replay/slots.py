"""The SlotStore: copies of unrolls in a fixed number of slots, for samplers whose keeping does not follow age."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from offbeat.types import ArrayDict, TensorDict


class SlotStore:
    """``num_slots`` slots of named columns. A slot's *stamp* changes with everything put into it; 0 means empty.

    Slot and stamp together name one content for ever: reading or updating what has been replaced meanwhile fails
    instead of touching the newcomer. Memory is taken at the first ``put``. One process; which slot to use is the
    sampler's choice.
    """

    def __init__(self, num_slots: int) -> None:
        if num_slots < 1:
            raise ValueError(f"num_slots={num_slots} must be at least 1")
        self.num_slots = num_slots
        self.stamp = np.zeros(num_slots, np.int64)
        self._columns: TensorDict = {}
        self._next = 1

    def __len__(self) -> int:
        """Slots in use."""
        return int((self.stamp > 0).sum())

    def put(self, slot: np.ndarray, columns: Mapping[str, Tensor]) -> np.ndarray:
        """Fill slots [n], all different, with columns (name -> [n, ...]); their new stamps [n]."""
        if len(np.unique(slot)) != len(slot):
            raise ValueError(f"slots {slot.tolist()} must be different")
        if not self._columns:
            self._columns = {
                name: torch.zeros((self.num_slots, *value.shape[1:]), dtype=value.dtype)
                for name, value in columns.items()
            }
        self._write(slot, columns, complete=True)
        stamp = np.arange(self._next, self._next + len(slot))
        self._next += len(slot)
        self.stamp[slot] = stamp
        return stamp

    def get(self, slot: np.ndarray, stamp: np.ndarray) -> tuple[TensorDict, np.ndarray]:
        """Copies of slots [n] (name -> [n, ...]), and whether each still holds what ``stamp`` names: ok [n] bool."""
        at = torch.from_numpy(slot)
        return {name: value[at] for name, value in self._columns.items()}, self.holds(slot, stamp)

    def take(self, name: str, slot: np.ndarray) -> Tensor:
        """A copy of one column of slots [n]: [n, ...]."""
        return self._columns[name][torch.from_numpy(slot)]

    def update(self, slot: np.ndarray, stamp: np.ndarray, columns: Mapping[str, Tensor]) -> np.ndarray:
        """Overwrite some columns of slots [n] that still hold what ``stamp`` [n] names; ok [n] bool says which did."""
        ok = self.holds(slot, stamp)
        keep = torch.from_numpy(ok)
        self._write(slot[ok], {name: value[keep] for name, value in columns.items()}, complete=False)
        return ok

    def remove(self, slot: np.ndarray, stamp: np.ndarray) -> np.ndarray:
        """Empty slots [n] that still hold what ``stamp`` [n] names; ok [n] bool says which did."""
        ok = self.holds(slot, stamp)
        self.stamp[slot[ok]] = 0
        return ok

    def holds(self, slot: np.ndarray, stamp: np.ndarray) -> np.ndarray:
        """Whether slots [n] hold what ``stamp`` [n] names: [n] bool."""
        ok: np.ndarray = (self.stamp[slot] == stamp) & (stamp > 0)
        return ok

    def state(self) -> ArrayDict:
        """Everything, as arrays; empty slots are left out."""
        used = np.flatnonzero(self.stamp)
        saved = {"stamp": self.stamp.copy(), "next": np.array([self._next])}
        at = torch.from_numpy(used)
        return saved | {f"columns/{name}": value[at].numpy() for name, value in self._columns.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a saved ``state`` of as many slots."""
        if len(state["stamp"]) != self.num_slots:
            raise ValueError(
                f"saved slots: {len(state['stamp'])}, this store has {self.num_slots}; use the same number"
            )
        self.stamp[:] = state["stamp"]
        self._next = int(state["next"][0])
        self._columns = {}
        at = torch.from_numpy(np.flatnonzero(self.stamp))
        for key, values in state.items():
            if key.startswith("columns/"):
                saved = torch.from_numpy(values)
                column = torch.zeros((self.num_slots, *saved.shape[1:]), dtype=saved.dtype)
                column[at] = saved
                self._columns[key.removeprefix("columns/")] = column

    def _write(self, slot: np.ndarray, columns: Mapping[str, Tensor], *, complete: bool) -> None:
        """Copy columns into slots. Raises ValueError where they are not those that the store holds."""
        unknown = columns.keys() - self._columns.keys()
        missing = self._columns.keys() - columns.keys() if complete else set()
        if unknown or missing:
            raise ValueError(f"slot columns: unknown {sorted(unknown)}, missing {sorted(missing)}")
        at = torch.from_numpy(slot)
        for name, value in columns.items():
            if value.shape[1:] != self._columns[name].shape[1:] or value.dtype != self._columns[name].dtype:
                need = self._columns[name]
                raise ValueError(
                    f"slot column {name!r} must be {need.dtype} {list(need.shape[1:])}, "
                    f"got {value.dtype} {list(value.shape[1:])}"
                )
            self._columns[name][at] = value
