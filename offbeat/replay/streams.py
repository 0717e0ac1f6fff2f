"""The StreamStore: one ring of rows per environment, one writer each, any number of readers, absolute row numbers.

Row ``t`` of a stream is readable iff ``head - capacity <= t < head``, and of the *open row* ``head`` the observation,
``first`` and ``valid``. A writer raises ``reserved`` before it writes and ``head`` after; a reader copies, then looks
at ``reserved`` and drops what may have been overwritten. Several processes may hold stores over the same arrays.

Who saves the streams raises a pause and then looks at ``reserved``; a writer raises ``reserved`` and then looks at the
pause, and takes its reservation back where it is set. So one of the two always sees the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from offbeat.replay import readers, snapshot
from offbeat.replay.layout import StreamBlock
from offbeat.replay.rings import Rings
from offbeat.types import ArrayDict, Sequence, Transition, Unroll

NO_LIMIT = 2**62
"""Room of streams that nothing holds back. Unit: rows."""


class StreamStore(Rings):
    """All streams of a run: what is read of them, and what writers and samplers write down."""

    def append(self, block: StreamBlock, paused: Callable[[], bool] | None = None) -> bool:
        """Append complete rows and their open row. One writer per stream; no stream twice in a block.

        False, and nothing is changed, where ``paused()`` is true once the rows are reserved: try again later.

        A row after an episode's end must have ``valid=False``, the row after that ``first=True``. The first row must be
        the open row of the block before (an earlier writer's with ``valid=False``: see ``attach``). Does not wait: ask
        ``room``. Raises ValueError for anything else.
        """
        first, valid = self._check(block)
        streams, length = block.streams, first.shape[1] - 1
        head = self.head[streams]
        at = streams[:, None] * self.layout.ring + (head[:, None] + np.arange(length + 1)) % self.layout.ring
        age = self._ages(head, at[:, 0], first)
        # Reserved before the first byte is written: a reader that copies old rows of the ring meanwhile finds out in
        # ``verify``. With the fence, because the pause is looked at after it (see the top of this file).
        with self._fence:
            self.reserved[streams] = head + length
        if paused is not None and paused():
            with self._guard:
                self.reserved[streams] = head
            return False
        if self.layout.core_state:
            self._flat["core_slot"][at[:, :length]] = self._keep_states(block, head, length)
        self._flat["age"][at] = age
        for name, values in block.columns.items():
            self._flat[name][at[:, :length]] = values
        self._flat["discount"][at[:, :length][~valid[:, :length]]] = 0
        for name, values in block.open_row.items():
            self._flat[name][at[:, length]] = values
        self._count(streams, head, length, valid[:, :length], block.columns["elapsed"])
        # The head comes last: whoever sees it may read everything below. A writer that is killed before this line has
        # appended nothing, whatever it wrote; one that is killed after it has appended all.
        with self._guard:
            self.head[streams] = head + length
        return True

    def _count(
        self, streams: np.ndarray, head: np.ndarray, length: int, valid: np.ndarray, elapsed: np.ndarray
    ) -> None:
        """Prepare what will be true once the heads have moved on: transitions among the new rows, and their steps."""
        counted = self.arrays["counted"]
        now = (counted[streams, 1, 0] == head).astype(np.int64)  # both sets of an empty stream are zeros
        taken = np.stack([valid.sum(1), np.where(valid, elapsed, 0).sum(1)], 1)
        counted[streams, 1 - now, 0] = head + length
        counted[streams, 1 - now, 1:] = counted[streams, now, 1:] + taken

    def at_work(self) -> np.ndarray:
        """Streams that a writer has reserved rows of: it is in the middle of a block, or died there. [n] int64."""
        with self._fence:
            return np.flatnonzero(self.reserved != self.head)

    def add_produced(self, streams: np.ndarray) -> None:
        """Count one row made for each of ``streams`` [n]; rows never appended are lost once the writer is replaced."""
        self.produced[streams] += 1

    def open_rows(self, streams: np.ndarray) -> ArrayDict:
        """The row after the last appended one, of ``streams``: single frames, ``first``, ``valid``, all [n, ...]."""
        at = self.locate(streams, self.head[streams])
        return {name: self.take(name, at) for name in sorted(self.open_columns)}

    def attach(self, streams: np.ndarray) -> ArrayDict | None:
        """Take over ``streams`` [n] as their new writer. None if all are empty, else their open rows.

        What the earlier writer made and never appended is counted as lost. The open rows are counted as produced here:
        the first row that the new writer appends to each stream must be its open row with ``valid=False`` (zeros where
        a stream among them is empty).
        """
        self.settle(streams)
        if not self.head[streams].any():
            return None
        self.add_produced(streams)
        return self.open_rows(streams)

    def settle(self, streams: np.ndarray | None = None) -> None:
        """Count rows in hand of writers that are gone (None: of all streams) as lost."""
        streams = np.arange(self.layout.num_streams) if streams is None else streams
        self.reserved[streams] = self.head[streams]
        self.lost[streams] = self.produced[streams] - self.head[streams]

    def settle_cursors(self) -> None:
        """Count rows in hand of a learner that is gone as skipped: they were handed out and will not be trained on."""
        snapshot.settle_cursors(self)

    def room(self, streams: np.ndarray) -> np.ndarray:
        """Rows that may be appended to ``streams`` [n] now: no fifo's limit passed, nor rate control's. [n] int64."""
        limit = np.full(len(streams), int(self.arrays["pace"][0]) or NO_LIMIT, np.int64)
        if self.layout.num_cursors:
            cursors = self.arrays["cursor/row"][:, streams] + self.arrays["cursor/lead"][:, None]
            limit = np.minimum(limit, cursors.min(0))
        room: np.ndarray = np.maximum(limit - self.head[streams], 0)
        return room

    def read_unrolls(
        self, stream: np.ndarray, row: np.ndarray, length: int, *, last: bool, source: np.ndarray | None = None
    ) -> tuple[Unroll, np.ndarray]:
        """``length`` rows from ``row`` [B] of ``stream`` [B] and the observation after them; ok [B] False: don't use.

        ``last``: with last actions and rewards. ``source`` [B] int64 is handed through. Not ok where rows, the history
        that stacks need, or the core state are not or no longer there.
        """
        return readers.read_unrolls(self, stream, row, length, last=last, source=source)

    def read_before(self, stream: np.ndarray, row: np.ndarray, burn_in: int, *, last: bool) -> Unroll:
        """The ``burn_in`` rows before ``row`` [B] of ``stream`` [B]: see ``Unroll.before``."""
        return readers.read_before(self, stream, row, burn_in, last=last)

    def read_transitions(
        self, stream: np.ndarray, row: np.ndarray, n: int, *, last: bool, source: np.ndarray | None = None
    ) -> tuple[Transition, np.ndarray]:
        """Transitions of up to ``n`` steps from ``row`` [B] of ``stream`` [B]; ok [B] False: don't use.

        The sum stops at termination, and at an episode's cut, where the final observation is the next one. Not ok where
        ``row`` is no transition or its ``n`` steps are not complete yet.
        """
        return readers.read_transitions(self, stream, row, n, last=last, source=source)

    def read_sequences(
        self,
        stream: np.ndarray,
        row: np.ndarray,
        burn_in: int,
        length: int,
        tail: int,
        *,
        last: bool,
        source: np.ndarray | None = None,
        padding: np.ndarray | None = None,
    ) -> tuple[Sequence, np.ndarray]:
        """``burn_in + length + tail`` rows of one episode from ``row`` [B]; ok [B] False: don't use.

        Rows after the episode's end repeat its final observation (no reward, discount 0, ``valid`` and ``mask`` False).
        So do with ``row``, before it, the first ``padding`` [B] rows of the burn-in: the others begin at ``row``.
        """
        return readers.read_sequences(
            self, stream, row, burn_in, length, tail, last=last, source=source, padding=padding
        )

    def readable(self, stream: np.ndarray, row: np.ndarray, length: int, *, last: bool) -> np.ndarray:
        """Whether an unroll of ``length`` rows may start at ``row`` [B] of ``stream`` [B] right now: [B] bool."""
        inside, _ = readers.window(self, stream, row, last)
        inside &= (row + length <= self.heads(stream)) & readers.has_state(self, stream, row)
        return inside

    def ledger(self) -> dict[str, int]:
        """What became of every row, all streams together; per fifo cursor c the keys ``fifo<c>/...``. Unit: rows.

        produced = stored + expired + lost + in_hand, and produced = trained + pending + skipped + lost per cursor;
        ``non_transitions`` of the appended rows carry a final observation only, ``in_hand`` rows are not yet appended.
        """
        return snapshot.ledger(self)

    def check_ledger(self) -> None:
        """Raise RuntimeError, saying which count of which stream does not add up."""
        snapshot.check_ledger(self)

    def state(self) -> ArrayDict:
        """Everything needed to go on exactly from here: counters, used part of the rings.

        Writers are at rest, or held so that none begins another block: rows of a block in the making are left out.
        """
        return snapshot.save(self)

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go back to a saved ``state`` of the same layout; unrolls that were handed out then count as skipped."""
        snapshot.load(self, state)

    def _check(self, block: StreamBlock) -> tuple[np.ndarray, np.ndarray]:
        """Refuse a malformed block; ``first`` and ``valid`` [n, L + 1] with the open row."""
        for what, got, need in (
            ("columns", block.columns.keys(), self._columns.keys()),
            ("open row", block.open_row.keys(), self.open_columns),
        ):
            if got != need:
                raise ValueError(f"block's {what}: missing {sorted(need - got)}, unknown {sorted(got - need)}")
        first = np.concatenate([block.columns["first"], block.open_row["first"][:, None]], 1)
        valid = np.concatenate([block.columns["valid"], block.open_row["valid"][:, None]], 1)
        if not 1 <= first.shape[1] - 1 <= self.layout.block:
            raise ValueError(f"block of {first.shape[1] - 1} rows; allowed are 1 to {self.layout.block}")
        if (first[:, 1:] == valid[:, :-1]).any():
            n, row = np.argwhere(first[:, 1:] == valid[:, :-1])[0]
            raise ValueError(
                f"stream {block.streams[n]}: offset {row + 1} has first={first[n, row + 1]} after "
                f"valid={valid[n, row]}; an episode ends in one row with valid=False, and the next row starts another"
            )
        started = self.head[block.streams] > 0
        expected = self.take("first", self.locate(block.streams, self.head[block.streams]))
        if (started & (expected != first[:, 0])).any():
            wrong = block.streams[started & (expected != first[:, 0])]
            raise ValueError(f"streams {wrong.tolist()}: a block must begin with the open row of the one before it")
        return first, valid

    def _ages(self, head: np.ndarray, at: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Rows since the episode's first, [n, L + 1]; ``at`` [n] is where the old open row lies."""
        offset = np.arange(first.shape[1])
        start = np.maximum.accumulate(np.where(first, offset, -1), axis=1)
        before = np.where(head > 0, self._flat["age"][at], 0)
        return np.where(start >= 0, offset - start, before[:, None] + offset)

    def _keep_states(self, block: StreamBlock, head: np.ndarray, length: int) -> np.ndarray:
        """Write the block's core states; slot + 1 of each row's state [n, L], 0 where none is kept."""
        slots = np.zeros((len(head), length), np.int64)
        entry, offset = block.core_stream, block.core_row
        if len(entry):
            order = np.lexsort((offset, entry))
            entry, offset = entry[order], offset[order]
            number = np.arange(len(entry)) - np.searchsorted(entry, entry)  # 0, 1, ... within each stream
            streams = block.streams[entry]
            count = self.arrays["core_count"]
            slot = (count[streams] + number) % self.layout.kept_states
            np.add.at(count, streams, 1)
            where = streams * self.layout.kept_states + slot
            self._flat["core_row"][where] = -1  # readers of an old state see that it is going
            for name, values in block.core_state.items():
                self._flat[f"core/{name}"][where] = values[order]
            self._flat["core_row"][where] = head[entry] + offset  # last: the state is whole by now
            slots[entry, offset] = slot + 1
        return slots
