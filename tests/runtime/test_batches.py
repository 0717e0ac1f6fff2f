"""Batches of the learner: the mixture's own, in order, inline and worked ahead; what counts as a step learnt from."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture, ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.runtime.batches import StreamBatches
from offbeat.runtime.ports import Stopped
from offbeat.runtime.shm import Bell, Wait
from offbeat.types import ItemSpec
from tests.replay.twin import Twin, vector_layout

LENGTH = 5
CPU = torch.device("cpu")
FIFO = ReplayConfig(samplers=(sampler_config("fifo", max_pending=4),))
UNIFORM = ReplayConfig(samplers=(sampler_config("uniform"),))
MIXED = ReplayConfig(samplers=(sampler_config("fifo", share=0.5, max_pending=4), sampler_config("uniform", share=0.5)))


class Streams:
    """Two streams that hold random rows, and mixtures over them."""

    def __init__(self, replay: ReplayConfig = FIFO, seed: int = 0) -> None:
        fifos = sum(sampler.paces for sampler in replay.samplers)
        unrolls = ItemSpec("unroll", length=LENGTH)
        layout = vector_layout(
            num_streams=2, capacity=60, num_cursors=fifos, state_grid=LENGTH, state_period=0, items=unrolls
        )
        self.store = StreamStore.allocate(layout)
        self.mixture: Mixture = make_mixture(self.store, replay, 2, True, 0)
        self.twin = Twin(layout, np.random.default_rng(seed))

    def grow(self, blocks: int = 1) -> None:
        """So many blocks for both streams."""
        for _ in range(blocks):
            for stream in (0, 1):
                for _ in range(LENGTH):
                    self.twin.step(stream)
                self.store.add_produced(np.full(1, stream))
                self.store.produced[stream] += LENGTH - 1
            self.store.append(self.twin.block([0, 1], LENGTH))

    def counted(self, begin: int, end: int, streams: tuple[int, ...] = (0, 1)) -> np.ndarray:
        """Transitions among these rows, and the environment steps that they took, by the naive twin: [2]."""
        rows = [row for stream in streams for row in self.twin.streams[stream].rows[begin:end] if row["valid"]]
        return np.array([len(rows), sum(row["elapsed"] for row in rows)])

    def batches(self, **options: Any) -> StreamBatches:
        """Batches of the mixture."""
        return StreamBatches(self.mixture, self.store, CPU, **options)


def test_inline_gives_what_the_mixture_gives_and_none_at_once() -> None:
    streams, other = Streams(), Streams()
    batches = streams.batches()
    assert batches.next(1000.0) is None
    for one in (streams, other):
        one.grow(2)
    for row in (0, LENGTH):
        batch, expected = batches.next(0.0), other.mixture.sample()
        assert batch is not None
        assert expected is not None
        assert batch.row.tolist() == [row, row]
        assert torch.equal(batch.inputs.observation["observation"], expected.inputs.observation["observation"])
        assert torch.equal(batch.reward, expected.reward)
    assert batches.next(0.0) is None


def test_only_what_is_done_counts_as_trained_on() -> None:
    streams = Streams()
    streams.grow(2)
    batches = streams.batches(frame_skip=4)
    first, second = batches.next(0.0), batches.next(0.0)
    assert first is not None
    assert second is not None
    assert batches.steps() == 0
    batches.done(first)
    assert (batches.steps(), batches.frames()) == tuple(streams.counted(0, LENGTH) * (1, 4))
    ledger = streams.store.ledger()
    assert (ledger["fifo0/trained"], ledger["fifo0/pending"]) == (2 * LENGTH, 2 * LENGTH)
    batches.done(second)
    counted = streams.counted(0, 2 * LENGTH)
    assert (batches.steps(), batches.frames()) == tuple(counted * (1, 4))
    assert counted[0] < 4 * LENGTH < counted[1] * 4, "final observations are no steps, and steps took several frames"
    assert streams.store.ledger()["fifo0/trained"] == 4 * LENGTH


def test_what_was_not_trained_on_after_all_is_skipped_and_counts_nothing() -> None:
    streams = Streams(MIXED)
    streams.grow(2)
    batches = streams.batches()
    batch = batches.next(0.0)
    assert batch is not None
    batches.skip(batch)
    assert (batches.steps(), batches.frames()) == (0, 0)
    ledger = streams.store.ledger()
    assert (ledger["fifo0/trained"], ledger["fifo0/skipped"]) == (0, LENGTH)


def test_steps_of_a_mixture_count_the_fifo_rows_only() -> None:
    streams = Streams(MIXED)
    streams.grow(3)
    batches = streams.batches(before=(70, 280), frame_skip=4)
    batch = batches.next(0.0)
    assert batch is not None
    assert sorted(batch.source.tolist()) == [0, 1]
    assert batches.steps() == 70
    batches.done(batch)
    (stream,) = batch.stream[batch.source == 0].tolist()
    counted = streams.counted(0, LENGTH, (stream,))
    assert (batches.steps(), batches.frames()) == (70 + counted[0], 280 + 4 * counted[1])


def test_steps_without_a_fifo_count_appended_transitions_from_where_the_run_was() -> None:
    streams = Streams(UNIFORM)
    batches = streams.batches(frame_skip=4)
    streams.grow(2)
    counted = streams.counted(0, 2 * LENGTH)
    assert (batches.steps(), batches.frames()) == tuple(counted * (1, 4))
    batch = batches.next(0.0)
    assert batch is not None
    batches.done(batch)
    assert batches.steps() == counted[0], "learning from rows again makes no new steps"
    resumed = streams.batches(before=(1000, 4000), frame_skip=4)
    assert resumed.steps() == 1000
    streams.grow(1)
    more = streams.counted(2 * LENGTH, 3 * LENGTH)
    assert (resumed.steps(), resumed.frames()) == (1000 + more[0], 4000 + 4 * more[1])


def test_a_resumed_fifo_run_goes_on_counting() -> None:
    streams = Streams()
    streams.grow(1)
    batches = streams.batches(before=(300, 300))
    assert batches.steps() == 300
    batch = batches.next(0.0)
    assert batch is not None
    batches.done(batch)
    assert batches.steps() == 300 + streams.counted(0, LENGTH)[0]


def slow_copies(streams: Streams) -> None:
    """Copies of batches take random times, so that a later one may be done first."""
    draw, read = random.Random(0), streams.mixture._read

    def slow(parts: Any) -> Any:
        time.sleep(draw.random() / 100)
        return read(parts)

    streams.mixture._read = slow  # type: ignore[method-assign]


@pytest.mark.parametrize("assemblers", [1, 3])
def test_the_threads_give_the_same_batches_in_the_same_order(assemblers: int) -> None:
    streams, other = Streams(MIXED), Streams(MIXED)
    for one in (streams, other):
        one.grow(4)
    bell, writer = Bell(), Bell()
    slow_copies(streams)
    batches = streams.batches(wait=Wait(bell, lambda: False), writers=[writer], prefetch=2, assemblers=assemblers)
    try:
        for _ in range(8):
            batch = batches.next(30.0)
            assert batch is not None
            expected = other.mixture.sample()
            assert expected is not None
            for name in ("stream", "row", "source", "reward"):
                assert torch.equal(getattr(batch, name), getattr(expected, name))
            batches.done(batch)
        assert writer.wait(30.0), "writers hear that there is room"
        streams.grow(1)
        bell.ring()
        for _ in range(2):
            assert batches.next(30.0) is not None, "the thread goes on when new rows come"
        assert batches.next(0.05) is None
    finally:
        batches.close()


def test_samplers_with_copies_of_their_own_choose_read_and_release_at_once_whoever_asks() -> None:
    replay = ReplayConfig(samplers=(sampler_config("circular", batches=2, uses=2, max_pending=4),))
    streams, other = Streams(replay), Streams(replay)
    for one in (streams, other):
        one.grow(4)
        assert not one.mixture.splittable
    assert Streams(MIXED).mixture.splittable
    slow_copies(streams)
    batches = streams.batches(wait=Wait(Bell(), lambda: False), prefetch=2, assemblers=3)
    try:
        for _ in range(6):
            batch, expected = batches.next(30.0), other.mixture.sample()
            assert batch is not None
            assert expected is not None
            for name in ("stream", "row", "reward", "replayed"):
                assert torch.equal(getattr(batch, name), getattr(expected, name)), name
            assert batch.fresh == expected.fresh  # type: ignore[union-attr]
            batches.done(batch)
            other.mixture.done(expected)
    finally:
        batches.close()


def test_each_row_of_a_fifo_comes_once_and_in_order_while_a_writer_appends_and_several_threads_copy() -> None:
    streams, bell, blocks = Streams(), Bell(), 60
    slow_copies(streams)
    batches = streams.batches(wait=Wait(bell, lambda: False), prefetch=3, assemblers=3)

    def write() -> None:
        for _ in range(blocks):
            while (streams.store.room(np.arange(2)) < LENGTH).any():
                time.sleep(0.0005)
            streams.grow()
            bell.ring()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(blocks):
            batch = batches.next(30.0)
            assert batch is not None
            assert batch.row.tolist() == [number * LENGTH] * 2
            for b, stream in enumerate(batch.stream.tolist()):
                rows = streams.twin.streams[stream].rows[number * LENGTH : (number + 1) * LENGTH]
                assert batch.reward[:, b].tolist() == [row["reward"] for row in rows]
            batches.done(batch)
    finally:
        batches.close()
        writer.join()
    ledger = streams.store.ledger()
    assert (ledger["fifo0/trained"], ledger["fifo0/pending"]) == (2 * blocks * LENGTH, 0)


def test_what_a_checkpoint_finds_in_the_making_counts_as_skipped_when_a_run_goes_on() -> None:
    streams, bell, go = Streams(), Bell(), threading.Event()
    read = streams.mixture._read
    streams.mixture._read = lambda parts: (go.wait(30.0), read(parts))[1]  # type: ignore[method-assign]
    batches = streams.batches(wait=Wait(bell, lambda: False), prefetch=2, assemblers=3)
    try:
        streams.grow(4)
        bell.ring()
        while streams.store.arrays["cursor/taken"].sum() < 3 * 2 * LENGTH:
            time.sleep(0.001)
        saved, _ = batches.state()
        assert saved is not None
        go.set()
        for row in (0, LENGTH, 2 * LENGTH, 3 * LENGTH):
            batch = batches.next(30.0)
            assert batch is not None
            assert batch.row.tolist() == [row] * 2
    finally:
        go.set()
        batches.close()
    other = Streams()
    other.store.load_state(
        {name.removeprefix("streams/"): v for name, v in saved.items() if name.startswith("streams/")}
    )
    ledger = other.store.ledger()
    assert (ledger["fifo0/skipped"], ledger["fifo0/pending"]) == (3 * 2 * LENGTH, 2 * LENGTH)
    again = other.batches().next(0.0)
    assert again is not None
    assert again.row.tolist() == [3 * LENGTH] * 2


def test_batches_that_are_too_old_are_dropped_and_drawn_anew_but_not_those_of_a_fifo() -> None:
    replay = ReplayConfig(samplers=(sampler_config("uniform"),), samples_per_insert=1.0, tolerance=1000)
    streams, updates = Streams(replay), [0]
    options: dict[str, Any] = {"prefetch": 5, "max_age": 3, "updates": lambda: updates[0]}
    batches = streams.batches(wait=Wait(Bell(), lambda: False), **options)
    assert batches.ahead is not None
    try:
        streams.grow(4)  # rows for four batches
        while batches.stats()["queue"] < 3:
            time.sleep(0.001)
        updates[0] = 4
        first, second = batches.next(30.0), batches.next(30.0)
        assert first is not None
        assert second is not None
        assert batches.stats()["dropped_batches"] == 3
        assert batches.stats()["sampled_rows"] <= 4 * 2 * LENGTH
        seen = 2
        while batches.next(0.2) is not None:
            seen += 1
        assert seen == 4, "those that were dropped do not count as trained on"
    finally:
        batches.close()
    paced = Streams()
    rows: list[int] = []
    paced.grow(3)
    batches = paced.batches(wait=Wait(Bell(), lambda: False), **options | {"updates": lambda: 10 * len(rows)})
    try:
        for _ in range(3):
            batch = batches.next(30.0)
            assert batch is not None
            rows.append(int(batch.row[0]))
        assert rows == [0, LENGTH, 2 * LENGTH]
    finally:
        batches.close()


def test_an_error_of_the_thread_is_raised_by_next() -> None:
    streams = Streams()
    streams.grow(1)

    def broken(min_version: int = 0) -> None:
        raise ZeroDivisionError("broken sampler")

    streams.mixture.draw = broken  # type: ignore[method-assign, assignment]
    batches = streams.batches(wait=Wait(Bell(), lambda: False), prefetch=1)
    try:
        with pytest.raises(ZeroDivisionError, match="broken sampler"):
            batches.next(30.0)
    finally:
        batches.close()


def test_the_end_of_the_run_is_raised_by_next() -> None:
    bell, stopped = Bell(), [False]
    batches = Streams().batches(wait=Wait(bell, lambda: stopped[0]), prefetch=1)
    stopped[0] = True
    bell.ring()
    try:
        with pytest.raises(Stopped):
            batches.next(30.0)
    finally:
        batches.close()


def test_nothing_is_drawn_while_the_samplers_are_at_rest() -> None:
    streams, bell = Streams(), Bell()
    batches = streams.batches(wait=Wait(bell, lambda: False), prefetch=2)
    try:
        with batches.at_rest():
            streams.grow(2)
            bell.ring()
            assert batches.next(0.1) is None
            assert streams.store.arrays["cursor/taken"].sum() == 0
        assert batches.next(30.0) is not None
    finally:
        batches.close()


def test_unrolls_older_than_the_oldest_allowed_version_are_skipped() -> None:
    streams = Streams()
    streams.grow(3)
    streams.store.arrays["param_version"][:] = 5
    streams.store.arrays["param_version"][:, :LENGTH] = 4
    batches = streams.batches(oldest=lambda: 5)
    batch = batches.next(0.0)
    assert batch is not None
    assert batch.row.tolist() == [LENGTH, LENGTH]
    assert batches.stats()["skipped_unrolls"] == 2
    assert streams.store.ledger()["fifo0/skipped"] == LENGTH * batches.stats()["skipped_unrolls"]


def test_closing_ends_the_thread() -> None:
    before = {thread.ident for thread in threading.enumerate()}
    batches = Streams().batches(wait=Wait(Bell(), lambda: False), prefetch=1)
    (started,) = [thread for thread in threading.enumerate() if thread.ident not in before]
    batches.close()
    assert not started.is_alive()


def test_feedback_goes_to_the_samplers_that_chose_the_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = Streams(MIXED)
    batches = streams.batches()
    streams.grow(4)
    batch = batches.next(1.0)
    assert batch is not None
    got: list[Any] = []
    for number, sampler in enumerate(streams.mixture.samplers):
        monkeypatch.setattr(sampler, "feedback", lambda *told, number=number: got.append((number, *told)))
    batches.feedback(batch, {"priority": torch.tensor([0.5, 0.25])})
    assert [number for number, *_ in got] == batch.source.tolist() == [0, 1]
    for (_, stream, row, found), b in zip(got, range(2)):
        assert (stream.tolist(), row.tolist()) == ([int(batch.stream[b])], [int(batch.row[b])])
        assert found["priority"].tolist() == [[0.5, 0.25][b]]
