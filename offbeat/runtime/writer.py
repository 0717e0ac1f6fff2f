"""The writing end of the streams over shared memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from offbeat.replay.layout import StreamBlock
from offbeat.replay.streams import StreamStore
from offbeat.runtime.shm import Bell, Wait
from offbeat.types import ArrayDict


class StoreWriter:
    """Appends blocks to a store, waiting for room; one per actor.

    Args:
        store: the streams.
        wait: how to wait; None: never (a full fifo is an error then).
        paused: whether writers must hold still.
        reader: rung after each append.
    """

    def __init__(
        self,
        store: StreamStore,
        wait: Wait | None,
        paused: Callable[[], bool] | None = None,
        reader: Bell | None = None,
    ) -> None:
        self._store, self._wait, self._reader = store, wait, reader
        self._paused = paused or (lambda: False)

    def append(self, block: StreamBlock) -> None:
        """Append; waits while a fifo still needs the rows that would be overwritten."""
        length = block.columns["reward"].shape[1]

        def room() -> bool:
            return not self._paused() and bool((self._store.room(block.streams) >= length).all())

        if not room():
            if self._wait is None:
                raise RuntimeError(
                    f"no room for {length} rows and nobody to make some: batch_size does not divide the streams"
                )
            self._wait.until("room", room)
        self._store.append(block)
        if self._reader is not None:
            self._reader.ring()

    def produced(self, streams: np.ndarray) -> None:
        """Count one produced row for each of these streams."""
        self._store.add_produced(streams)

    def attach(self, streams: np.ndarray) -> ArrayDict | None:
        """Take over streams; the open rows of an earlier writer if there are any."""
        return self._store.attach(streams)
