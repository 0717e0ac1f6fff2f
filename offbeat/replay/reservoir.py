"""A reservoir: of all unrolls there ever were, each is as likely to be in it as any other.

Source: Rolnick et al. 2019, "Experience Replay for Continual Learning" (CLEAR), which keeps its replay so; by a random
key for each unroll, the smallest of which is let go (reservoir sampling by keys: Efraimidis & Spirakis 2006).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from offbeat.replay.copies import Copies, Kept, Newcomers, copy_nbytes
from offbeat.replay.layout import StreamLayout
from offbeat.replay.rate_limiter import held
from offbeat.replay.sampler import Place, Sampler, SamplerConfig
from offbeat.types import ArrayDict, Batch

DRAWS = ("unroll",)


@dataclass(frozen=True)
class Config(SamplerConfig):
    """Any of a reservoir of copied unrolls, with replacement (CLEAR, Rolnick et al. 2019)."""

    kind: Literal["reservoir"] = "reservoir"
    """Which sampler."""
    size: int = 0
    """Rows that it keeps, copied beside the streams; 0: as many as the streams keep. Unit: agent steps."""
    min_rows: int = 0
    """Rows that must be in it before the first batch. Unit: agent steps."""

    def nbytes(self, layout: StreamLayout) -> int:
        """Bytes of its copies, once it is full."""
        return slots_of(self.size, layout) * copy_nbytes(layout)


def make(config: Config, place: Place) -> Sampler:
    """The sampler that ``config`` describes. ValueError where sizes cannot work."""
    length = place.items.length
    slots = slots_of(config.size, place.store.layout)
    if slots < 1:
        raise ValueError(f"size={config.size} is less than an unroll of {length} rows; keep {length} or more")
    if config.min_rows > slots * length:
        raise ValueError(f"min_rows={config.min_rows} is more than the {slots * length} rows that it keeps (size)")
    return Reservoir(place, slots, config.min_rows)


def slots_of(size: int, layout: StreamLayout) -> int:
    """Unrolls among ``size`` rows; 0: among those that the streams keep."""
    return (size or layout.capacity * layout.num_streams) // layout.items.length


class Reservoir(Sampler):
    """``num_slots`` unrolls, any of which is drawn with replacement once ``min_rows`` rows are in it."""

    def __init__(self, place: Place, num_slots: int, min_rows: int = 0) -> None:
        self._place, self._rng, self.min_rows = place, place.rng, min_rows
        self._length = place.items.length
        self._newcomers, self._copies = Newcomers(place), Copies(place, num_slots)
        self._key = np.full(num_slots, -1.0)
        """[num_slots] float64 in [0, 1); -1: empty."""
        self.offered = 0
        """Unrolls that were seen."""

    def ready(self, count: int) -> bool:
        """Whether there is an unroll, and ``min_rows`` rows are in it."""
        self._take_in()
        return len(self._copies) > 0 and self._rows() >= self.min_rows

    def missing(self, count: int) -> str:
        """What has to come before anything can be drawn; empty if that is nothing."""
        rows, store = self._rows(), self._place.store
        if rows and rows >= self.min_rows:
            return ""
        return f"{max(self.min_rows, self._length)} rows in the reservoir; {rows} are{held(store)}"

    def select(self, count: int) -> Kept | None:
        """Any of those that are kept, with replacement; None while there are too few."""
        return self._copies.draw(count, self._rng) if self.ready(count) else None

    def read(self, selection: Kept) -> tuple[Batch, np.ndarray]:
        """What was selected, out of the copies."""
        return self._copies.read(selection)

    def stats(self) -> dict[str, float]:
        """Unrolls that are kept, that were seen, and that came too late to be seen."""
        source = self._place.index
        return {
            f"reservoir_unrolls_{source}": float(len(self._copies)),
            f"reservoir_seen_{source}": float(self.offered),
            f"reservoir_missed_{source}": float(self._newcomers.missed),
        }

    def tallies(self) -> ArrayDict:
        """What was seen, and missed."""
        return {"counts": np.array([self.offered, self._newcomers.missed])}

    def load_tallies(self, tallies: Mapping[str, np.ndarray]) -> None:
        """Fill anew, from the unrolls that the streams still have."""
        self.offered, missed = (int(count) for count in tallies["counts"])
        self._newcomers.begin_again(missed)

    def state(self) -> ArrayDict:
        """Copies, keys, what was seen, and the generator's state."""
        rng = np.frombuffer(json.dumps(self._rng.bit_generator.state).encode(), np.uint8).copy()
        own = {"key": self._key.copy(), "offered": np.array([self.offered]), "rng": rng}
        return own | self._newcomers.state() | self._copies.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``."""
        self._copies.load_state(state)
        self._newcomers.load_state(state)
        self._key[:], self.offered = state["key"], int(state["offered"][0])
        self._rng.bit_generator.state = json.loads(np.asarray(state["rng"], np.uint8).tobytes())

    def _rows(self) -> int:
        return len(self._copies) * self._length

    def _take_in(self) -> None:
        """Offer each new unroll: it gets a key, and the smallest key goes."""
        for columns in self._newcomers.take():
            taken: dict[int, int] = {}  # slot -> which newcomer; a later one may push out an earlier one
            keys = self._rng.random(len(columns["row"]))
            for index, key in enumerate(keys):
                slot = int(self._key.argmin())
                if key > self._key[slot]:
                    self._key[slot] = key
                    taken[slot] = index
            self.offered += len(keys)
            if taken:
                chosen = torch.tensor(list(taken.values()))
                self._copies.put(np.array(list(taken)), {name: value[chosen] for name, value in columns.items()})
