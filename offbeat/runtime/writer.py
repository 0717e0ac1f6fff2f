"""The writing end of the streams over shared memory, and how writers are held while the streams are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from offbeat.replay.layout import StreamBlock
from offbeat.replay.streams import StreamStore
from offbeat.runtime.shm import Bell, Wait
from offbeat.types import ArrayDict

MOST_HELD = 256
"""Blocks of single streams that a writer keeps by itself, at most."""
HOLD_S = 5.0
"""Longest wait for writers to finish their blocks before the streams are saved. Unit: seconds."""


class StoreWriter:
    """Appends blocks to a store, waiting for room; one per actor.

    A block of only part of the actor's streams (environments that step in part) is held back rather than waited for
    while another stream of the actor has room: the learner may be waiting for just that one.

    Args:
        store: the streams.
        wait: how to wait; None: never (a full fifo is an error then).
        paused: whether writers must hold still.
        readers: rung after each append.
        owned: all streams of the actor; None: those of any block.
    """

    def __init__(
        self,
        store: StreamStore,
        wait: Wait | None,
        paused: Callable[[], bool] | None = None,
        readers: Sequence[Bell] = (),
        owned: np.ndarray | None = None,
    ) -> None:
        self._store, self._wait, self._readers, self._owned = store, wait, readers, owned
        self._paused = paused or (lambda: False)
        self._held: list[StreamBlock] = []

    def append(self, block: StreamBlock) -> None:
        """Append; waits while a fifo still needs the rows that would be overwritten."""
        if not self._held and self._fits(block) and self._put(block):
            return
        if self._wait is None:
            length = block.columns["reward"].shape[1]
            raise RuntimeError(
                f"no room for {length} rows and nobody to make some: batch_size does not divide the streams"
            )
        partial = self._owned is not None and len(block.streams) < len(self._owned)
        self._held += _split(block) if partial else [block]
        self._wait.until("room", self._may_go_on if partial else self._put_held)

    def offer(self, block: StreamBlock) -> None:
        """Append now, or with a later call where writers must hold still: never waits, never loses a row."""
        self._held += _split(block)
        self._put_held()

    def _fits(self, block: StreamBlock) -> bool:
        length = block.columns["reward"].shape[1]
        return not self._paused() and bool((self._store.room(block.streams) >= length).all())

    def _put(self, block: StreamBlock) -> bool:
        """Append; False, and nothing is changed, if a pause began meanwhile."""
        done = self._store.append(block, self._paused)
        for bell in self._readers:
            bell.ring()  # also when nothing was appended: who asked for the pause may have seen rows reserved
        return done

    def _put_held(self) -> bool:
        """Append what fits of the held blocks, in order; whether all did."""
        stuck: set[int] = set()
        for block in list(self._held):
            if stuck.isdisjoint(block.streams.tolist()) and self._fits(block) and self._put(block):
                self._held = [other for other in self._held if other is not block]
            else:
                stuck.update(block.streams.tolist())  # later blocks of these streams must not overtake this one
        return not self._held

    def _may_go_on(self) -> bool:
        """Append what fits; whether nothing is held any more, or another stream can be filled meanwhile."""
        if self._put_held():
            return True
        assert self._owned is not None, "blocks of part of the streams say of which"
        room = self._store.room(self._owned) >= self._store.layout.block
        return bool(room.any()) and not self._paused() and len(self._held) < MOST_HELD

    def produced(self, streams: np.ndarray) -> None:
        """Count one produced row for each of these streams."""
        self._store.add_produced(streams)

    def attach(self, streams: np.ndarray) -> ArrayDict | None:
        """Take over streams; the open rows of an earlier writer if there are any."""
        return self._store.attach(streams)


@contextmanager
def writers_held(store: StreamStore, pause: np.ndarray, wait: Wait | None, ring: Callable[[], None]) -> Iterator[str]:
    """Let no writer begin a block meanwhile; blocks that are being written are waited for. Gives a line to say, or "".

    Args:
        store: the streams.
        pause: what writers look at, [1].
        wait: how to wait; None: no writer is at work.
        ring: wakes the writers, at the end.

    A writer that was killed or stopped in the middle of a block does not finish it within ``HOLD_S``. The streams can
    be saved all the same: up to their heads, without that block.
    """
    pause[0] = 1
    try:
        late = ""
        if wait is not None and not wait.until("writers", lambda: not len(store.at_work()), HOLD_S):
            names = ", ".join(map(str, store.at_work()))
            late = f"streams {names} are saved without a block that their writer did not finish within {HOLD_S:g} s"
        yield late
    finally:
        pause[0] = 0
        ring()


def _split(block: StreamBlock) -> list[StreamBlock]:
    """One block per stream, with memory of its own."""
    parts = []
    for index in range(len(block.streams)):
        own = block.core_stream == index
        part = StreamBlock(
            streams=block.streams[index : index + 1].copy(),
            columns={name: values[index : index + 1].copy() for name, values in block.columns.items()},
            open_row={name: values[index : index + 1].copy() for name, values in block.open_row.items()},
            core_stream=np.zeros(int(own.sum()), np.int64),
            core_row=block.core_row[own],
            core_state={name: values[own] for name, values in block.core_state.items()},
        )
        parts.append(part)
    return parts
