"""A circular buffer of batches: the newest N, each trained on up to K times, in any order.

Source: Luo et al. 2020, "IMPACT: Importance Weighted Asynchronous Architectures with Clipped Target Networks". New rows
come by a fifo's cursor, so each is taken once, in order; actors wait for that, not for the rows to be trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from offbeat.replay import fifo
from offbeat.replay.columns import columns_of
from offbeat.replay.copies import Copies, Kept, copy_nbytes
from offbeat.replay.items import read_items
from offbeat.replay.layout import StreamLayout
from offbeat.replay.sampler import Place, Sampler, SamplerConfig, Selection
from offbeat.types import ArrayDict, Batch

DRAWS = ("unroll",)


@dataclass(frozen=True)
class Config(SamplerConfig):
    """Batches of new rows, each used several times, the newest few at hand (IMPACT, Luo et al. 2020)."""

    paces: ClassVar[bool] = True
    """Its sampler holds actors back until their rows are copied."""
    reuses: ClassVar[bool] = True
    """What it has copied it hands out more than once."""

    kind: Literal["circular"] = "circular"
    """Which sampler."""
    batches: int = 4
    """N, batches that are kept. Source: Luo et al. 2020 have 4 for discrete and 16 for continuous actions."""
    uses: int = 2
    """K, times that each is drawn at most. Source: Luo et al. 2020 have 2 for discrete and 20 for continuous actions
    (32 in HalfCheetah)."""
    max_pending: int = 2
    """Unrolls per stream that actors may be ahead of what was copied."""

    def nbytes(self, layout: StreamLayout) -> int:
        """Bytes of its copies: of at most one unroll per stream in each batch."""
        return self.batches * layout.num_streams * copy_nbytes(layout)


def make(config: Config, place: Place) -> Sampler:
    """The sampler that ``config`` describes. ValueError where its batches could never fill."""
    new = fifo.make(fifo.Config(max_pending=config.max_pending), place)
    return Circular(place, new, config.batches, config.uses)


class Circular(Sampler):
    """Keeps up to ``batches`` batches of ``place.count`` unrolls, each drawn up to ``uses`` times.

    A draw takes in at most one new batch, if one is complete; where there is no room for it, the oldest goes. Of those
    that are left any is as likely as any other. A batch that goes before it was ever drawn counts as skipped.
    """

    paces = True

    def __init__(self, place: Place, new: fifo.Fifo, batches: int, uses: int) -> None:
        if batches < 1 or uses < 1:
            raise ValueError(f"circular with batches={batches}, uses={uses}; both must be at least 1")
        self._place, self._rng, self._new = place, place.rng, new
        self._count, self._most = place.count, uses
        self._copies = Copies(place, batches * max(1, place.count))
        self._taken = np.zeros(batches, np.int64)
        """[N] which batch lies there, numbered from 1; 0: none."""
        self._uses = np.zeros(batches, np.int64)
        """[N] how often it was drawn."""
        self.taken = self.drawn = self.unused = 0
        """Batches that were taken in; draws; batches that went without one."""

    def ready(self, count: int) -> bool:
        """Whether a batch is there, or a new one complete."""
        return bool(self._live().any()) or self._new.ready(count)

    def missing(self, count: int) -> str:
        """What has to come before a batch can be drawn; empty if that is nothing."""
        return "" if self._live().any() else self._new.missing(count)

    def select(self, count: int) -> Kept | None:
        """The ``count`` unrolls of one batch; None if there is none."""
        if count != self._count:
            raise ValueError(f"count: expected {self._count}, the unrolls of a batch here, got {count}")
        self._take_in()
        live = np.flatnonzero(self._live())
        if not len(live):
            return None
        batch = int(live[self._rng.integers(len(live))])
        self._uses[batch] += 1
        self.drawn += 1
        return self._copies.choose(self._slots(batch))

    def read(self, selection: Kept) -> tuple[Batch, np.ndarray]:
        """What was selected, out of the copies."""
        return self._copies.read(selection)

    def replayed(self, selection: Kept) -> np.ndarray:
        """Whether the batch was drawn before: [n] bool."""
        again: np.ndarray = self._uses[selection.slot // self._count] > 1
        return again

    def copied(self, selection: Selection) -> None:
        """A batch was read: where that was its last use it goes."""
        for batch in np.flatnonzero((self._taken > 0) & (self._uses >= self._most)):
            self._drop(int(batch))

    def done(self, selection: Selection) -> None:
        """New unrolls were trained on."""
        self._new.done(selection)

    def skip(self, selection: Selection) -> None:
        """New unrolls will not be trained on."""
        self._new.skip(selection)

    def skip_older(self, version: int | None) -> tuple[int, int]:
        """Leave out new unrolls whose newest row was acted with weights older than ``version``, and batches with one.

        None: new unrolls alone, all of them. How many unrolls that leaves out, and the newest version among them.
        """
        skipped, newest = self._new.skip_older(version)
        for batch in np.flatnonzero(self._live()) if version else ():
            acted = self._copies.slots.take("param_version", self._slots(int(batch)))[:, -1]
            if int(acted.min()) < (version or 0):
                self._drop(int(batch))
                skipped += self._count
                newest = max(newest, int(acted.max()))
        return skipped, newest

    def stats(self) -> dict[str, float]:
        """Unrolls that wait to be taken in, batches at hand, draws of each so far, and batches that went undrawn."""
        tail = f"_{self._place.index}"
        return self._new.stats() | {
            f"circular_batches{tail}": float(self._live().sum()),
            f"circular_uses{tail}": self.drawn / max(1, self.taken),
            f"circular_unused{tail}": float(self.unused),
        }

    def tallies(self) -> ArrayDict:
        """Batches taken in, draws, and batches that went without one."""
        return {"counts": np.array([self.taken, self.drawn, self.unused])}

    def load_tallies(self, tallies: Mapping[str, np.ndarray]) -> None:
        """Begin empty: what was at hand is lost, and what of it was new has been counted as skipped."""
        self.taken, self.drawn, self.unused = (int(count) for count in tallies["counts"])

    def state(self) -> ArrayDict:
        """Copies, their books, and the generator's state."""
        rng = np.frombuffer(json.dumps(self._rng.bit_generator.state).encode(), np.uint8).copy()
        counts = np.array([self.taken, self.drawn, self.unused])
        books = {"taken": self._taken.copy(), "uses": self._uses.copy(), "counts": counts, "rng": rng}
        return books | self._copies.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``. The streams, which were loaded before, count as skipped what had been handed out:
        batches that lie here undrawn will be trained on after all.
        """
        self._copies.load_state(state)
        self._taken[:], self._uses[:] = state["taken"], state["uses"]
        self.taken, self.drawn, self.unused = (int(count) for count in state["counts"])
        self._rng.bit_generator.state = json.loads(np.asarray(state["rng"], np.uint8).tobytes())
        for batch in np.flatnonzero((self._taken > 0) & (self._uses == 0)):
            self._new.back(self._copies.choose(self._slots(int(batch))))

    def _live(self) -> np.ndarray:
        """[N] bool: may be drawn."""
        live: np.ndarray = (self._taken > 0) & (self._uses < self._most)
        return live

    def _slots(self, batch: int) -> np.ndarray:
        """Where the unrolls of a batch lie, [count] int64."""
        return batch * self._count + np.arange(self._count)

    def _take_in(self) -> None:
        """Copy one new batch, if there is one, and let its rows be overwritten."""
        selection = self._new.select(self._count)
        if selection is None:
            return
        place = self._place
        unrolls, ok = read_items(
            place.store, place.items, selection.stream, selection.row, last=place.last, source=selection.source
        )
        if not ok.all():
            gone = list(zip(selection.stream[~ok].tolist(), selection.row[~ok].tolist()))
            raise RuntimeError(f"circular: unrolls (stream, row) {gone} were overwritten or have no core state")
        at = int(self._taken.argmin())  # an empty place, else the oldest batch
        if self._taken[at]:
            self._drop(at)
        self._copies.put(self._slots(at), columns_of(unrolls))
        self._new.copied(selection)
        self.taken += 1
        self._taken[at], self._uses[at] = self.taken, 0

    def _drop(self, batch: int) -> None:
        """Let a batch go; one that was never drawn counts as skipped."""
        slots = self._slots(batch)
        if not self._uses[batch]:
            self._new.skip(self._copies.choose(slots))
            self.unused += 1
        self._copies.slots.remove(slots, self._copies.slots.stamp[slots])
        self._taken[batch] = 0
