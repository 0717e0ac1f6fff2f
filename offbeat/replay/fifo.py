"""First in, first out: every row is handed out exactly once, in order, and writers are held back until it was.

Unroll j of a stream is its rows [jT, (j + 1)T) with the observation of row (j + 1)T. The cursor lies in the store's
shared arrays, so that ``StreamStore.room`` shows writers in other processes how far they may go.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from offbeat.replay.rate_limiter import held
from offbeat.replay.sampler import Place, Sampler, SamplerConfig, Selection
from offbeat.replay.streams import StreamStore

DRAWS = ("unroll",)


@dataclass(frozen=True)
class Config(SamplerConfig):
    """Each row once, in order, holding actors back."""

    paces: ClassVar[bool] = True
    """Its sampler holds actors back."""

    kind: Literal["fifo"] = "fifo"
    """Which sampler."""
    max_pending: int = 2
    """Unrolls per stream that actors may be ahead of the learner: bounds the policy lag."""


def make(config: Config, place: Place) -> Fifo:
    """The sampler that ``config`` describes. ValueError where its batches could never fill."""
    streams, count = place.store.layout.num_streams, place.count
    if count > streams:
        raise ValueError(
            f"a batch takes {count} unrolls from the fifo, at most one per stream, but there are {streams} "
            f"environments; raise actor.envs_per_worker or actor.workers, or lower learner.batch_size"
        )
    if config.max_pending == 1 and streams % count:
        raise ValueError(
            f"max_pending=1 makes actors wait once each of {streams} streams has an unroll, but batches of {count} "
            f"leave {streams % count} of them over, for which the learner would wait for ever; use max_pending=2, or "
            "a batch that divides the streams"
        )
    return Fifo(place.store, place.cursor, place.items.length, config.max_pending, place.index)


class Fifo(Sampler):
    """Cursor number ``cursor`` over all streams. One Fifo per cursor; it belongs to one process.

    Writers may be ``max_pending`` unrolls ahead of what was released, and never overwrite what was not.
    """

    paces = True

    def __init__(self, store: StreamStore, cursor: int, length: int, max_pending: int, source: int = 0) -> None:
        layout = store.layout
        if not 0 <= cursor < layout.num_cursors:
            raise ValueError(f"fifo cursor {cursor} is none of the {layout.num_cursors} of these streams")
        if max_pending < 1 or length < 1:
            raise ValueError(f"fifo with max_pending={max_pending}, length={length}; both must be at least 1")
        kept = layout.items.burn_in if layout.items.kind == "unroll" else 0  # rows before an unroll are read too
        lead = min(max_pending * length, layout.capacity - layout.history() - kept)
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

    def ready(self, count: int) -> bool:
        """Whether so many streams have a complete unroll that was not handed out."""
        return int(self._complete().sum()) >= count

    def missing(self, n: int) -> str:
        """What has to come before ``n`` unrolls can be handed out; empty if that is nothing."""
        ready, streams = int(self._complete().sum()), self._store.layout.num_streams
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

    def skip_older(self, version: int | None) -> tuple[int, int]:
        """Leave out the next unrolls while their newest row was acted with weights older than ``version``."""
        skipped, newest = 0, -1
        while version != 0 and len(waiting := self.peek()):
            at = self._store.locate(waiting.stream, waiting.row + self.length - 1)
            acted = self._store.take("param_version", at)
            old = acted < version if version is not None else np.ones(len(acted), bool)
            if not old.any():
                break
            self.drop(waiting[old])
            skipped += int(old.sum())
            newest = int(acted[old].max())
        return skipped, newest

    def drop(self, selection: Selection) -> None:
        """Skip unrolls that ``peek`` showed, without their being copied."""
        self._take(selection)
        self.copied(selection)
        self.skip(selection)

    def stats(self) -> dict[str, float]:
        """Unrolls that wait."""
        return {f"pending_unrolls_{self._source}": self.pending()}

    def copied(self, selection: Selection) -> None:
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

    def back(self, selection: Selection) -> None:
        """Unrolls that loading the streams counted as skipped are still at hand: they are handed out once more."""
        self._skipped[selection.stream] -= self.length
        self._in_flight[selection.stream] += self.length

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
