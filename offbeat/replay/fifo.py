"""First in, first out: every row is handed out exactly once, in order, and writers are held back until it was.

Unroll j of a stream is its rows [jT, (j + 1)T) with the observation of row (j + 1)T. The cursor lies in the store's
shared arrays, so that ``StreamStore.room`` shows writers in other processes how far they may go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offbeat.replay.rate_limiter import held
from offbeat.replay.streams import StreamStore


@dataclass
class Selection:
    """Unrolls that a sampler chose: ``row`` is the first row of each."""

    stream: np.ndarray  # [n] int64
    row: np.ndarray  # [n] int64
    source: np.ndarray  # [n] int64, index of the sampler in its mixture

    def __getitem__(self, index: np.ndarray) -> Selection:
        """The selection's entries at ``index``."""
        return Selection(self.stream[index], self.row[index], self.source[index])


class Fifo:
    """Cursor number ``cursor`` over all streams. One Fifo per cursor; it belongs to one process.

    Writers may be ``max_pending`` unrolls ahead of what was released, and never overwrite what was not.
    """

    def __init__(self, store: StreamStore, cursor: int, length: int, max_pending: int, source: int = 0) -> None:
        layout = store.layout
        if not 0 <= cursor < layout.num_cursors:
            raise ValueError(f"fifo cursor {cursor} is none of the {layout.num_cursors} of these streams")
        if max_pending < 1 or length < 1:
            raise ValueError(f"fifo with max_pending={max_pending}, length={length}; both must be at least 1")
        lead = min(max_pending * length, layout.capacity - layout.history())
        if lead < max(length, layout.block):
            raise ValueError(
                f"fifo: writers could be only {lead} rows ahead, but blocks have up to {layout.block} rows and unrolls "
                f"{length}; use a larger capacity or max_pending"
            )
        self.length = length
        self._store = store
        self._source = source
        self._row, self._taken, self._in_flight, self._trained, self._skipped = (
            store.arrays[name][cursor]
            for name in ("cursor/row", "cursor/taken", "cursor/in_flight", "cursor/trained", "cursor/skipped")
        )
        store.arrays["cursor/lead"][cursor] = lead

    def ready(self) -> int:
        """Unrolls that one batch can hold now: streams with a complete unroll that was not handed out."""
        return int(self._complete().sum())

    def missing(self, n: int) -> str:
        """What has to come before ``n`` unrolls can be handed out; empty if that is nothing."""
        ready, streams = self.ready(), self._store.layout.num_streams
        if ready >= n:
            return ""
        rows = int((self._store.head - self._taken).sum())
        return (
            f"a complete unroll of {self.length} rows in {n} of {streams} streams; {ready} have one, and {rows} rows "
            f"wait{held(self._store)}"
        )

    def select(self, n: int) -> Selection | None:
        """``n`` unrolls of different streams, furthest behind first, then by stream; None if there are too few."""
        waiting = self.peek()
        if len(waiting.row) < n:
            return None
        selection = waiting[np.argsort(waiting.row, kind="stable")[:n]]
        self._take(selection)
        return selection

    def peek(self) -> Selection:
        """The next complete unroll of every stream that has one, by stream, without handing it out."""
        streams = np.flatnonzero(self._complete())
        return Selection(streams, self._taken[streams], np.full(len(streams), self._source, np.int64))

    def drop(self, selection: Selection) -> None:
        """Skip unrolls that ``peek`` showed, without their being copied."""
        self._take(selection)
        self.release(selection)
        self.skip(selection)

    def release(self, selection: Selection) -> None:
        """The rows were copied: writers may overwrite them. Unrolls of one stream must be released in order."""
        if (self._row[selection.stream] != selection.row).any():
            wrong = selection[self._row[selection.stream] != selection.row]
            raise RuntimeError(
                f"fifo: rows {wrong.row.tolist()} of streams {wrong.stream.tolist()} released out of order"
            )
        self._row[selection.stream] += self.length

    def done(self, selection: Selection) -> None:
        """The unrolls were trained on."""
        self._close(selection, self._trained)

    def skip(self, selection: Selection) -> None:
        """The unrolls will not be trained on."""
        self._close(selection, self._skipped)

    def pending(self) -> float:
        """Mean number of complete unrolls per stream that wait to be handed out."""
        return float(((self._store.head - self._taken) // self.length).mean())

    def _complete(self) -> np.ndarray:
        """Which streams have a complete unroll to hand out, [num_streams] bool."""
        head = self._store.heads(np.arange(self._store.layout.num_streams))
        complete: np.ndarray = head - self._taken >= self.length
        return complete

    def _take(self, selection: Selection) -> None:
        """Hand out unrolls."""
        self._in_flight[selection.stream] += self.length
        self._taken[selection.stream] += self.length

    def _close(self, selection: Selection, counter: np.ndarray) -> None:
        """Move handed-out rows to ``counter``; a batch may hold unrolls of one stream only once."""
        if (self._in_flight[selection.stream] < self.length).any():
            raise RuntimeError(f"fifo: streams {selection.stream.tolist()} have fewer unrolls out than were given back")
        self._in_flight[selection.stream] -= self.length
        counter[selection.stream] += self.length
