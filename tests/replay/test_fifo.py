"""Fifo: each row once, in order, whatever the interleaving; writers are held back; every row is accounted for."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.fifo import Fifo, Selection
from offbeat.replay.streams import NO_LIMIT, StreamStore
from offbeat.types import ItemSpec
from tests.replay.twin import Twin, TwinReader, image_layout, vector_layout


def grow(store: StreamStore, twin: Twin, s: int, length: int) -> None:
    """Append ``length`` rows to stream ``s``."""
    while len(twin.streams[s].hand) < length:
        twin.step(s)
        store.add_produced(np.array([s]))
    store.append(twin.block([s], length))


@pytest.mark.parametrize(("length", "max_pending", "block"), [(5, 2, 5), (4, 3, 2), (3, 1, 3), (2, 4, 6), (5, 3, 3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_each_row_once_and_in_order(length: int, max_pending: int, block: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    capacity = (max_pending + 1) * length + 3
    layout = image_layout(capacity=capacity, block=block, num_cursors=1, state_grid=length, state_period=0)
    store, twin = StreamStore.allocate(layout), Twin(layout, rng)
    fifo = Fifo(store, 0, length, max_pending)
    everyone = np.arange(3)
    waiting: list[Selection] = []
    seen: dict[int, list[int]] = {s: [] for s in range(3)}
    most = 0
    for _ in range(600):
        room = store.room(everyone)
        assert (store.head + room <= store.arrays["cursor/row"][0] + max_pending * length).all()
        s = int(rng.integers(3))
        if rng.random() < 0.6 and room[s] >= block:
            grow(store, twin, s, int(rng.integers(1, block + 1)) if length == 4 else block)
        elif rng.random() < 0.7:
            wanted = int(rng.integers(1, 4))
            ready = [s for s in range(3) if int(store.head[s]) >= len(seen[s]) + length]
            assert [fifo.ready(n) for n in range(len(ready) + 2)] == [True] * (len(ready) + 1) + [False]
            selection = fifo.select(wanted)
            assert (selection is None) == (len(ready) < wanted)
            if selection is not None:
                best = sorted((len(seen[s]), s) for s in ready)[:wanted]
                assert list(zip(selection.row.tolist(), selection.stream.tolist())) == best
                unroll, ok = store.read_unrolls(selection.stream, selection.row, length, last=True)
                assert ok.all(), "a row was overwritten before it was handed out"
                for b, (stream, row) in enumerate(zip(selection.stream, selection.row)):
                    want = TwinReader(twin, True).unroll(int(stream), int(row), length)
                    assert want is not None
                    assert unroll.action[:, b].tolist() == [twin_row["action"] for twin_row in want[:-1]]
                    seen[int(stream)] += range(int(row), int(row) + length)
                fifo.copied(selection)
                waiting.append(selection)
        elif waiting:
            (fifo.done if rng.random() < 0.8 else fifo.skip)(waiting.pop(0))
        most = max(most, len(waiting))
        store.check_ledger()
    counts = store.ledger()
    assert counts["produced"] == sum(counts[f"fifo0/{name}"] for name in ("trained", "pending", "skipped", "lost"))
    assert counts["fifo0/trained"] > 0
    assert counts["fifo0/skipped"] > 0
    assert most > 1
    assert (store.head > 2 * layout.ring).all()
    for rows in seen.values():
        assert rows == list(range(len(rows)))


def test_writers_wait_at_exactly_max_pending_unrolls() -> None:
    layout = vector_layout(capacity=40, block=5, num_cursors=1, state_grid=5)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    one = np.array([0])
    assert store.room(one).tolist() == [0]  # no reader yet: nothing may be written that it could miss
    fifo = Fifo(store, 0, 5, 3)
    assert store.room(one).tolist() == [15]
    for left in (10, 5, 0):
        grow(store, twin, 0, 5)
        assert store.room(one).tolist() == [left]
    selection = fifo.select(1)
    assert selection is not None
    assert store.room(one).tolist() == [0]
    fifo.copied(selection)
    assert store.room(one).tolist() == [5]


def test_room_also_protects_the_history_of_rows_not_yet_handed_out() -> None:
    layout = image_layout(capacity=12, block=5, num_cursors=1)  # 3 rows of history, 9 to be ahead
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0), end=0.0)
    fifo = Fifo(store, 0, 5, 100)
    for _ in range(30):
        for s in range(3):
            while store.room(np.array([s]))[0] >= 5:
                grow(store, twin, s, 5)
        selection = fifo.select(3)
        assert selection is not None
        assert store.read_unrolls(selection.stream, selection.row, 5, last=True)[1].all()
        fifo.copied(selection)
        fifo.done(selection)


def test_room_also_protects_the_rows_before_an_unroll_that_are_read_with_it() -> None:
    items = ItemSpec("unroll", length=5, burn_in=10)
    layout = vector_layout(capacity=20, block=5, num_cursors=1, state_grid=5, items=items)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    fifo = Fifo(store, 0, 5, max_pending=4)
    for _ in range(12):
        for s in range(3):
            while store.room(np.array([s]))[0] >= 5:
                grow(store, twin, s, 5)
        selection = fifo.select(3)
        assert selection is not None
        before = store.read_before(selection.stream, selection.row, 10, last=True)
        assert before.valid.any(0).all(), "none was overwritten"
        fifo.copied(selection)
        fifo.done(selection)
    assert (store.head > layout.capacity).all()


def test_streams_without_cursors_have_no_limit() -> None:
    store = StreamStore.allocate(vector_layout())
    assert store.room(np.arange(3)).tolist() == [NO_LIMIT] * 3


def test_two_cursors_each_see_every_row_and_the_slower_one_holds_writers() -> None:
    layout = vector_layout(capacity=40, block=5, num_cursors=2, state_grid=5)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    fast, slow = Fifo(store, 0, 5, 2), Fifo(store, 1, 5, 3)
    for _ in range(2):
        grow(store, twin, 0, 5)
        selection = fast.select(1)
        assert selection is not None
        fast.copied(selection)
        fast.done(selection)
    assert store.room(np.array([0])).tolist() == [5]
    assert (fast.pending(), slow.pending()) == (0, 2 / 3)
    store.check_ledger()


def test_mistakes_are_refused() -> None:
    layout = vector_layout(capacity=40, block=5, num_cursors=1, state_grid=5)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    fifo = Fifo(store, 0, 5, 2)
    grow(store, twin, 0, 5)
    grow(store, twin, 0, 5)
    one, two = fifo.select(1), fifo.select(1)
    assert one is not None
    assert two is not None
    with pytest.raises(RuntimeError, match="out of order"):
        fifo.copied(two)
    fifo.done(one)
    fifo.done(two)
    with pytest.raises(RuntimeError, match="fewer unrolls out"):
        fifo.done(two)
    with pytest.raises(ValueError, match="cursor 1 is none of the 1"):
        Fifo(store, 1, 5, 2)
    with pytest.raises(ValueError, match="use a larger capacity or max_pending"):
        Fifo(store, 0, 2, 2)


def test_a_broken_ledger_is_found() -> None:
    layout = vector_layout(capacity=40, block=5, num_cursors=1, state_grid=5)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    fifo = Fifo(store, 0, 5, 2)
    grow(store, twin, 1, 5)
    fifo.select(1)
    store.check_ledger()
    for name in ("cursor/trained", "cursor/in_flight", "cursor/taken", "cursor/skipped"):
        store.arrays[name][0, 1] += 1
        with pytest.raises(RuntimeError, match="stream 1 does not close"):
            store.check_ledger()
        store.arrays[name][0, 1] -= 1
    for name in ("produced", "lost", "head", "reserved"):
        store.arrays[name][1] += -1 if name == "produced" else 1
        with pytest.raises(RuntimeError, match="stream 1 does not close"):
            store.check_ledger()
        store.arrays[name][1] -= -1 if name == "produced" else 1


def test_a_snapshot_with_unrolls_out_counts_them_as_skipped() -> None:
    layout = vector_layout(capacity=40, block=5, num_cursors=1, state_grid=5)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    fifo = Fifo(store, 0, 5, 2)
    grow(store, twin, 0, 5)
    grow(store, twin, 0, 5)
    assert fifo.select(1) is not None
    again = StreamStore.allocate(layout)
    again.load_state(store.state())
    resumed = Fifo(again, 0, 5, 2)
    again.check_ledger()
    counts = again.ledger()
    assert (counts["fifo0/skipped"], counts["fifo0/pending"], counts["produced"]) == (5, 5, 10)
    selection = resumed.select(1)
    assert selection is not None
    assert selection.row.tolist() == [5]
