"""Copies of unrolls, for samplers whose keeping does not follow age: taken in as they come, and given back as batches.

Frames are kept once here too: of a stacked observation each row's newest frame, and those that row 0 looks back on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from offbeat.replay.columns import columns_of, from_columns
from offbeat.replay.items import read_items
from offbeat.replay.layout import StreamLayout
from offbeat.replay.sampler import Place, Selection
from offbeat.replay.slots import SlotStore
from offbeat.types import ArrayDict, ArraySpec, TensorDict, Unroll

SEEN = "inputs/observation/"
"""Names of an unroll's observations begin with it."""


@dataclass
class Kept(Selection):
    """Copies that a sampler chose; where they lie."""

    slot: np.ndarray  # [n] int64
    stamp: np.ndarray  # [n] int64

    def __getitem__(self, index: np.ndarray) -> Kept:
        """The entries at ``index``."""
        return Kept(self.stream[index], self.row[index], self.source[index], self.slot[index], self.stamp[index])


class Copies:
    """Up to ``num_slots`` unrolls of the streams that ``place`` names. Which slot to use is the sampler's choice."""

    def __init__(self, place: Place, num_slots: int) -> None:
        self._layout, self._source = place.store.layout, place.index
        self.slots = SlotStore(num_slots)

    def __len__(self) -> int:
        """Unrolls that are kept."""
        return len(self.slots)

    def put(self, slot: np.ndarray, columns: TensorDict) -> None:
        """Keep unrolls, as ``columns_of`` gives them (name -> [n, ...]), in slots [n], all different."""
        kept = dict(columns)
        for key in self._layout.stacked:
            kept[SEEN + key] = self._frames(key, columns[SEEN + key])
        self.slots.put(slot, kept)

    def draw(self, count: int, rng: np.random.Generator) -> Kept:
        """``count`` of those that are kept, any as likely as any other, with replacement."""
        used = np.flatnonzero(self.slots.stamp)
        return self.choose(used[rng.integers(len(used), size=count)])

    def choose(self, slot: np.ndarray) -> Kept:
        """What lies in slots [n], which are in use."""
        stream, row = (self.slots.take(name, slot).numpy() for name in ("stream", "row"))
        return Kept(stream, row, np.full(len(slot), self._source, np.int64), slot, self.slots.stamp[slot].copy())

    def columns(self, selection: Kept) -> tuple[TensorDict, np.ndarray]:
        """The unrolls as ``columns_of`` would give them, and ok [n] bool, False: replaced since it was chosen."""
        columns, ok = self.slots.get(selection.slot, selection.stamp)
        for key in self._layout.stacked:
            columns[SEEN + key] = self._stacks(key, columns[SEEN + key], columns["inputs/first"])
        return columns, ok

    def read(self, selection: Kept) -> tuple[Unroll, np.ndarray]:
        """The unrolls as one batch, and ok [n] bool, False: replaced since it was chosen."""
        columns, ok = self.columns(selection)
        return from_columns(Unroll, columns), ok

    def state(self) -> ArrayDict:
        """All of it."""
        return {f"slots/{name}": value for name, value in self.slots.state().items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``, among whose names there may be others."""
        head = "slots/"
        self.slots.load_state({name.removeprefix(head): v for name, v in state.items() if name.startswith(head)})

    def _frames(self, key: str, stacks: Tensor) -> Tensor:
        """Stacks [n, T + 1, F C, ...] as frames [n, F - 1 + T + 1, C, ...], oldest first."""
        deep, channels = self._layout.frame_stack, self._layout.observation[key].shape[0]
        older = stacks[:, 0].reshape(len(stacks), deep, channels, *stacks.shape[3:])[:, :-1]
        return torch.cat([older, stacks[:, :, -channels:]], 1)

    def _stacks(self, key: str, frames: Tensor, first: Tensor) -> Tensor:
        """The stacks [n, T + 1, F C, ...] again. ``first`` [n, T + 1] bool: no stack reaches across an episode's start.

        Where row 0 looks back beyond its episode's start the frames are padded already.
        """
        deep, rows = self._layout.frame_stack, first.shape[1]
        row = torch.arange(rows)
        start = torch.where(first, row, -deep).cummax(1).values  # [n, T + 1]: of the episode, -F: before row 0
        source = row[:, None] - torch.arange(deep - 1, -1, -1)  # [T + 1, F]
        padding = source < start[:, :, None]
        source = torch.where(padding, start[:, :, None], source)
        at = torch.arange(len(frames))[:, None, None] * frames.shape[1] + source + deep - 1
        found = frames.flatten(0, 1).flatten(1).index_select(0, at.flatten())  # whole frames, which are copied at once
        if self._layout.stack_padding == "zero" and padding.any():
            found[padding.flatten()] = 0
        return found.reshape(*padding.shape, *frames.shape[2:]).flatten(2, 3)


def copy_nbytes(layout: StreamLayout) -> int:
    """Bytes of one copied unroll, generously."""
    rows = layout.items.length + 1
    deep = layout.frame_stack - 1
    bytes_ = sum(
        spec.nbytes * (rows + (deep if key in layout.stacked else 0)) for key, spec in layout.observation.items()
    )
    others = [spec for name, spec in layout.columns().items() if not name.startswith("observation/")]
    bytes_ += rows * sum(spec.nbytes for spec in [*others, layout.action, ArraySpec(())])  # also as last ones
    bytes_ += sum(spec.nbytes for spec in layout.core_state.values())
    if layout.items.burn_in:
        bytes_ += layout.items.burn_in * bytes_ // layout.items.length * layout.frame_stack
    return bytes_


class Newcomers:
    """Every unroll of the streams once, soon after it is complete: rows [jT, (j + 1)T) of each stream, j = 0, 1, ...

    No writer waits for it. What is overwritten before anybody asks, or has no core state, is missed and counted.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self.next = np.zeros(place.store.layout.num_streams, np.int64)
        """The row that each stream's next unroll begins with."""
        self.missed = 0
        """Unrolls that nobody saw."""

    def take(self) -> Iterator[TensorDict]:
        """Those that came since, as ``columns_of`` gives them: name -> [k, ...]; at most one of a stream at a time."""
        store, length, everyone = self._place.store, self._place.items.length, np.arange(len(self.next))
        while True:
            head = store.heads(everyone)
            oldest = -(-np.maximum(head - store.layout.capacity, 0) // length) * length
            gone = np.maximum(oldest - self.next, 0)
            self.missed += int(gone.sum()) // length
            self.next += gone
            due = everyone[head - self.next >= length]
            if not len(due):
                return
            source = np.full(len(due), self._place.index, np.int64)
            batch, ok = read_items(store, self._place.items, due, self.next[due], last=self._place.last, source=source)
            self.next[due] += length
            self.missed += int((~ok).sum())
            if ok.any():
                kept = torch.from_numpy(ok)
                yield {name: value[kept] for name, value in columns_of(batch).items()}

    def begin_again(self, missed: int) -> None:
        """Take the place of one that had ``missed`` so many: begin with the oldest unrolls that are still there."""
        store, length = self._place.store, self._place.items.length
        head = store.heads(np.arange(len(self.next)))
        self.next[:] = -(-np.maximum(head - store.layout.capacity, 0) // length) * length
        self.missed = missed

    def state(self) -> ArrayDict:
        """Where it is."""
        return {"next": self.next.copy(), "missed": np.array([self.missed])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``, among whose names there may be others."""
        self.next[:] = state["next"]
        self.missed = int(state["missed"][0])
