"""The rings of all streams as their readers see them: rows by absolute number, and whether they were overwritten."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Self

import numpy as np

from offbeat.replay.layout import COUNTERS, UNCOUNTED, StreamLayout


class Rings:
    """Rings over arrays (zeros at first) as ``StreamLayout.arrays`` describes them; ``StreamStore`` also writes them.

    ``guard`` is a lock shared by all stores over the same arrays, for machines that reorder stores (ARM); x86-64 needs
    none.
    """

    def __init__(
        self,
        layout: StreamLayout,
        arrays: dict[str, np.ndarray],
        guard: AbstractContextManager[object] | None = None,
    ) -> None:
        for name, spec in layout.arrays().items():
            if name not in arrays or arrays[name].shape != spec.shape or arrays[name].dtype != np.dtype(spec.dtype):
                got = f"{arrays[name].dtype}{list(arrays[name].shape)}" if name in arrays else "nothing"
                raise ValueError(f"streams: array {name!r} must be {spec.dtype}{list(spec.shape)}, got {got}")
        self.layout = layout
        self.arrays = arrays
        self.dropped = 0
        """Rows that this store's readers copied in vain because a writer had overwritten them."""
        self._guard = guard if guard is not None else nullcontext()
        # Orders a store before the loads that follow, which x86-64 does not do by itself: taking any lock does.
        self._fence = guard if guard is not None else threading.Lock()
        self._columns = layout.columns()
        self.open_columns = {name for name in self._columns if name.startswith("observation/")} | {"first", "valid"}
        self._flat = {
            name: array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
            for name, array in arrays.items()
            if name not in (*COUNTERS, *UNCOUNTED) and not name.startswith("cursor/")
        }

    @classmethod
    def allocate(cls, layout: StreamLayout) -> Self:
        """A store over private memory."""
        return cls(layout, {name: np.zeros(spec.shape, spec.dtype) for name, spec in layout.arrays().items()})

    @classmethod
    def imagine(cls, layout: StreamLayout) -> Self:
        """A store whose rows are all the same read-only one and take no memory: to try whether samplers fit."""
        arrays = {}
        for name, spec in layout.arrays().items():
            counts = name in (*COUNTERS, *UNCOUNTED) or name.startswith("cursor/")
            one = np.zeros((), spec.dtype)
            arrays[name] = np.zeros(spec.shape, spec.dtype) if counts else np.broadcast_to(one, spec.shape)
        return cls(layout, arrays)

    @property
    def head(self) -> np.ndarray:
        """Rows appended so far, [num_streams] int64."""
        return self.arrays["head"]

    @property
    def reserved(self) -> np.ndarray:
        """Rows appended or being written, [num_streams] int64."""
        return self.arrays["reserved"]

    @property
    def produced(self) -> np.ndarray:
        """Rows that actors made, appended or not, [num_streams] int64."""
        return self.arrays["produced"]

    @property
    def lost(self) -> np.ndarray:
        """Rows that died with their writer, [num_streams] int64."""
        return self.arrays["lost"]

    @property
    def stored(self) -> np.ndarray:
        """Rows that can be read now, [num_streams] int64."""
        stored: np.ndarray = np.minimum(self.head, self.layout.capacity)
        return stored

    @property
    def expired(self) -> np.ndarray:
        """Rows that were appended and can no longer be read, [num_streams] int64."""
        expired: np.ndarray = self.head - self.stored
        return expired

    def counted(self, head: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Appended transitions, i.e. agent steps, and the environment steps that they took: [num_streams] each.

        ``head`` [num_streams]: of the rows below these heads, which were the streams' own a moment ago; None: of all.
        """
        while True:
            at = self.heads(np.arange(self.layout.num_streams)) if head is None else head
            sets = self.arrays["counted"].copy()
            found = sets[:, :, 0] == at[:, None]
            if found.any(1).all():
                true = sets[np.arange(len(at)), found.argmax(1)]
                return true[:, 1], true[:, 2]
            if head is not None:
                raise ValueError("the streams have moved on from these heads")

    def heads(self, stream: np.ndarray) -> np.ndarray:
        """The heads of ``stream`` [B]; every row below them is completely written."""
        with self._guard:
            head: np.ndarray = self.head[stream]
        return head

    def locate(self, stream: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Where absolute rows lie in the flattened rings; shapes broadcast."""
        at: np.ndarray = stream * self.layout.ring + row % self.layout.ring
        return at

    def take(self, name: str, at: np.ndarray) -> np.ndarray:
        """A copy of an array's entries at the places ``at`` that ``locate`` gave: [*at.shape, ...]."""
        taken: np.ndarray = self._flat[name].take(at, axis=0, mode="clip")
        return taken

    def column(self, name: str) -> np.ndarray:
        """All rings of a column one after the other, [num_streams * ring, ...]; no copy."""
        return self._flat[name]

    def put(self, name: str, at: np.ndarray, values: np.ndarray) -> None:
        """Overwrite an array's entries at the places ``at``; for loading a snapshot."""
        self._flat[name][at] = values

    def verify(self, stream: np.ndarray, low: np.ndarray, ok: np.ndarray) -> np.ndarray:
        """``ok`` [B], False also where rows from ``low`` [B] may have been overwritten since; those are counted."""
        with self._guard:
            # The ring has capacity + block + 1 places, so a writer that has reserved up to row r has not yet come to
            # the place of any row above r - capacity - block - 1: those copies are what was there all the time.
            intact: np.ndarray = low >= self.reserved[stream] - self.layout.capacity - self.layout.block
        self.dropped += int((ok & ~intact).sum())
        intact &= ok
        return intact
