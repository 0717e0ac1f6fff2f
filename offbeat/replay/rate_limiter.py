"""Rate control: how many rows are trained on per row that arrives, within a tolerance, or as it comes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from offbeat.replay.streams import NO_LIMIT, StreamStore
from offbeat.types import ArrayDict


class RateLimiter:
    """Holds the learner back where it would train on a row too often, and writers where they run too far ahead.

    With D = (rows appended - ``min_rows``) x ``samples_per_insert`` - rows sampled, a batch may be drawn while that
    leaves D >= 0, and writers may append while D <= ``tolerance``. With ``samples_per_insert=0`` both run freely.

    Args:
        store: the streams.
        samples_per_insert: rows trained on per row appended, >= 0.
        tolerance: how far writers may be ahead, in trained rows; 0: two batches and what a round of blocks gives.
        min_rows: rows that must be stored before the first batch.
        batch_rows: rows that a batch trains on.
        hold_writers: whether writers wait; not in deterministic runs, whose learner never falls behind.
        drawn: rows that each of several learners has drawn, [n] int64 in memory that all see, and which one this is;
            all together count. Each writes its own, so none is lost. Those who look at the same moment may draw a batch
            each where one was due, which the next ones wait for. None: one learner.
    """

    def __init__(
        self,
        store: StreamStore,
        samples_per_insert: float,
        tolerance: int,
        min_rows: int,
        batch_rows: int,
        hold_writers: bool = True,
        drawn: tuple[np.ndarray, int] | None = None,
    ) -> None:
        layout = store.layout
        round_rows = layout.num_streams * layout.block
        # Below that a batch could need rows that writers may not append, since they append whole blocks.
        least = batch_rows + int(np.ceil(round_rows * samples_per_insert))
        if samples_per_insert and tolerance and tolerance < least:
            raise ValueError(
                f"tolerance={tolerance} of the rate control is too narrow: a batch of {batch_rows} rows and a round of "
                f"{round_rows} appended rows need {least}"
            )
        self.samples_per_insert, self.min_rows, self.batch_rows = samples_per_insert, min_rows, batch_rows
        self.tolerance = tolerance or 2 * least
        self._drawn, self._own = drawn or (np.zeros(1, np.int64), 0)
        self._store, self._hold = store, hold_writers and samples_per_insert > 0
        self.release()

    @property
    def sampled(self) -> int:
        """Rows drawn so far, by all learners."""
        return int(self._drawn.sum())

    def may_sample(self) -> bool:
        """Whether a batch may be drawn now."""
        appended = int(self._store.head.sum())
        if appended < self.min_rows:
            return False
        if not self.samples_per_insert:
            return True
        if (appended - self.min_rows) * self.samples_per_insert - self.sampled >= self.batch_rows:
            return True
        if len(self._drawn) > 1 and self._hold:
            self.release()  # two that counted at the same moment may have told writers the lower limit last
        return False

    def missing(self) -> str:
        """What has to come before a batch may be drawn; empty if one may."""
        appended = int(self._store.head.sum())
        if appended < self.min_rows:
            return f"{self.min_rows} rows before the first batch; {appended} have come{held(self._store)}"
        if self.may_sample():
            return ""
        rows = self.min_rows + math.ceil((self.sampled + self.batch_rows) / self.samples_per_insert)
        return (
            f"rate control: {rows} rows at replay.samples_per_insert={self.samples_per_insert:g}; {appended} have come "
            f"and {self.sampled} were drawn{held(self._store)}"
        )

    def count(self, rows: int) -> None:
        """A batch of so many rows was drawn."""
        self._drawn[self._own] += rows
        if self._hold:
            self.release()

    def release(self) -> None:
        """Tell writers how far they may go."""
        limit = NO_LIMIT
        if self._hold:
            rows = self.min_rows + (self.sampled + self.tolerance) / self.samples_per_insert
            limit = -(-int(rows) // self._store.layout.num_streams)
        self._store.arrays["pace"][0] = limit

    def state(self) -> ArrayDict:
        """The counter."""
        return {"sampled": np.array([self.sampled])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved counter."""
        self._drawn[self._own] += int(state["sampled"][0]) - self.sampled
        self.release()


def ratio_of(samples_per_insert: float, hold_writers: bool) -> float:
    """The ratio to keep: where no clock decides how often a learner without one trains, each row once."""
    return samples_per_insert or (0.0 if hold_writers else 1.0)


def held(store: StreamStore) -> str:
    """Text: in how many streams writers have no room for a block; empty if in none."""
    streams = store.layout.num_streams
    count = int((store.room(np.arange(streams)) < store.layout.block).sum())
    return f", and actors are held back in {count} of {streams} streams" if count else ""
