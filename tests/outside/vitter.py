"""A sampler from somebody else's package: a reservoir of copied unrolls, each ever made as likely to be in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from offbeat.replay.columns import columns_of, from_columns
from offbeat.replay.items import read_items
from offbeat.replay.sampler import Place, Sampler, SamplerConfig, Selection
from offbeat.replay.slots import SlotStore
from offbeat.types import Batch, Unroll

DRAWS = ("unroll",)


@dataclass(frozen=True)
class Config(SamplerConfig):
    """Its options."""

    slots: int = 64
    """Unrolls that are kept."""


@dataclass
class Kept(Selection):
    """Where the unrolls lie."""

    slot: np.ndarray  # [n] int64
    stamp: np.ndarray  # [n] int64


def make(config: Config, place: Place) -> Reservoir:
    """The sampler that ``config`` describes."""
    return Reservoir(config.slots, place)


class Reservoir(Sampler):
    """Algorithm R (Vitter 1985) over the unrolls of all streams."""

    def __init__(self, size: int, place: Place) -> None:
        self._place, self._slots = place, SlotStore(size)
        self._next = np.zeros(place.store.layout.num_streams, np.int64)
        self._offered = 0
        self.told = 0.0

    def ready(self, count: int) -> bool:
        """Whether there is an unroll."""
        self._take_in()
        return len(self._slots) > 0

    def missing(self, count: int) -> str:
        """The first unroll."""
        return "" if len(self._slots) else "an unroll in the reservoir"

    def select(self, count: int) -> Kept | None:
        """Any of those that are kept, with replacement."""
        used = np.flatnonzero(self._slots.stamp)
        slot = self._place.rng.choice(used, count)
        names, _ = self._slots.get(slot, self._slots.stamp[slot])
        source = np.full(count, self._place.index)
        return Kept(names["stream"].numpy(), names["row"].numpy(), source, slot, self._slots.stamp[slot])

    def read(self, selection: Kept) -> tuple[Batch, np.ndarray]:
        """Out of the slots."""
        columns, ok = self._slots.get(selection.slot, selection.stamp)
        return from_columns(Unroll, columns), ok

    def feedback(self, stream: np.ndarray, row: np.ndarray, found: Mapping[str, np.ndarray]) -> None:
        """Count it."""
        self.told += len(stream)

    def stats(self) -> dict[str, float]:
        """How full it is."""
        return {"reservoir": float(len(self._slots)), "offered": float(self._offered)}

    def state(self) -> dict[str, np.ndarray]:
        """All of it."""
        rng = np.frombuffer(json.dumps(self._place.rng.bit_generator.state).encode(), np.uint8).copy()
        saved = {f"slots/{name}": value for name, value in self._slots.state().items()}
        return saved | {"next": self._next.copy(), "offered": np.array([self._offered]), "rng": rng}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """All of it back."""
        head = "slots/"
        self._slots.load_state({name.removeprefix(head): v for name, v in state.items() if name.startswith(head)})
        self._next, self._offered = np.array(state["next"]), int(state["offered"][0])
        self._place.rng.bit_generator.state = json.loads(np.asarray(state["rng"], np.uint8).tobytes())

    def _take_in(self) -> None:
        store, length = self._place.store, self._place.items.length
        everyone = np.arange(len(self._next))
        while len(due := everyone[store.heads(everyone) - self._next >= length]):
            source = np.full(len(due), self._place.index)
            batch, ok = read_items(store, self._place.items, due, self._next[due], last=self._place.last, source=source)
            self._next[due] += length
            for column in np.flatnonzero(ok):
                self._offer({name: value[[column]] for name, value in columns_of(batch).items()})

    def _offer(self, column: dict[str, torch.Tensor]) -> None:
        size = self._slots.num_slots
        slot = self._offered if self._offered < size else int(self._place.rng.integers(self._offered + 1))
        self._offered += 1
        if slot < size:
            self._slots.put(np.array([slot]), column)
