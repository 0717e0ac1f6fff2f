"""The writing end of the streams: waits for room, holds still when paused, says that there is something to read."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from offbeat.replay.fifo import Fifo
from offbeat.replay.streams import StreamStore
from offbeat.runtime.ports import Stopped
from offbeat.runtime.shm import Bell, Wait
from offbeat.runtime.writer import StoreWriter
from tests.replay.twin import Twin, vector_layout

LENGTH = 5
STREAMS = np.arange(3)


class Streams:
    """A store of three streams with a fifo that lets writers be one unroll ahead, and blocks for it."""

    def __init__(self) -> None:
        layout = vector_layout(num_cursors=1, capacity=30)
        self.store = StreamStore.allocate(layout)
        self.fifo = Fifo(self.store, 0, LENGTH, 1)
        self.twin = Twin(layout, np.random.default_rng(0))

    def block(self, streams: list[int]):  # type: ignore[no-untyped-def]
        """The next five rows of these streams."""
        for stream in streams:
            for _ in range(LENGTH):
                self.twin.step(stream)
        return self.twin.block(streams, LENGTH)

    def read(self) -> None:
        """The fifo hands out what is there and lets go of it."""
        selection = self.fifo.peek()
        self.fifo.drop(selection)


class Writing(threading.Thread):
    """One append in another thread."""

    def __init__(self, writer: StoreWriter, block) -> None:  # type: ignore[no-untyped-def]
        super().__init__(daemon=True)
        self.writer, self.block = writer, block
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Append; keep what was raised."""
        try:
            self.writer.append(self.block)
        except BaseException as error:
            self.error = error


def test_appends_and_rings_the_reader() -> None:
    streams, bell = Streams(), Bell()
    writer = StoreWriter(streams.store, None, readers=[bell])
    assert not bell.wait(0)
    writer.append(streams.block([0, 2]))
    assert streams.store.head.tolist() == [LENGTH, 0, LENGTH]
    assert bell.wait(0)


def test_without_anybody_to_make_room_a_full_fifo_is_an_error() -> None:
    streams = Streams()
    writer = StoreWriter(streams.store, None)
    writer.append(streams.block([0, 1, 2]))
    with pytest.raises(RuntimeError, match="no room for 5 rows and nobody to make some"):
        writer.append(streams.block([1]))
    assert streams.store.head.tolist() == [LENGTH] * 3


def test_waits_until_every_stream_of_the_block_has_room() -> None:
    streams, bell = Streams(), Bell()
    wait = Wait(bell, lambda: False)
    writer = StoreWriter(streams.store, wait)
    writer.append(streams.block([1]))
    writing = Writing(writer, streams.block([0, 1]))
    writing.join(0.05)
    assert writing.is_alive(), "stream 1 has no room, though stream 0 has"
    assert streams.store.head.tolist() == [0, LENGTH, 0]
    streams.read()
    bell.ring()
    writing.join(30)
    assert writing.error is None
    assert streams.store.head.tolist() == [LENGTH, 2 * LENGTH, 0]
    assert wait.seconds["room"] > 0


def test_holds_still_while_paused() -> None:
    streams, bell, paused = Streams(), Bell(), [True]
    writer = StoreWriter(streams.store, Wait(bell, lambda: False), lambda: paused[0])
    writing = Writing(writer, streams.block([0]))
    writing.join(0.05)
    assert writing.is_alive()
    assert not streams.store.reserved.any()
    paused[0] = False
    bell.ring()
    writing.join(30)
    assert streams.store.head.tolist() == [LENGTH, 0, 0]


def test_the_end_of_the_run_ends_the_wait_and_appends_nothing() -> None:
    streams, bell, stopped = Streams(), Bell(), [False]
    writer = StoreWriter(streams.store, Wait(bell, lambda: stopped[0]))
    writer.append(streams.block([0]))
    writing = Writing(writer, streams.block([0]))
    writing.join(0.05)
    stopped[0] = True
    bell.ring()
    writing.join(30)
    assert isinstance(writing.error, Stopped)
    assert streams.store.head.tolist() == [LENGTH, 0, 0]


def test_counts_and_takes_over_streams() -> None:
    streams = Streams()
    writer = StoreWriter(streams.store, None)
    assert writer.attach(STREAMS) is None
    for _ in range(LENGTH + 2):
        writer.produced(np.array([0, 2]))
    writer.append(streams.block([0, 2]))
    left = writer.attach(np.array([0, 2]))
    assert left is not None
    np.testing.assert_array_equal(left["observation/observation"], [
        streams.twin.streams[stream].appended_open["observation/observation"] for stream in (0, 2)  # type: ignore[index]
    ])  # fmt: skip
    assert streams.store.lost.tolist() == [2, 0, 2]
    assert streams.store.produced.tolist() == [LENGTH + 3, 0, LENGTH + 3]
