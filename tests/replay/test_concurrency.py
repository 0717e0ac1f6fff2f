"""Writers and readers in different processes over one mapped file: no torn row gets through, all are counted."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.replay.fifo import Fifo
from offbeat.replay.items import ItemSpec
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.replay.mixture import Mixture
from offbeat.replay.prioritised import Prioritised
from offbeat.replay.rate_limiter import RateLimiter
from offbeat.replay.streams import StreamStore
from offbeat.types import ArraySpec, Sequence, Transition, Unroll
from tests.replay.twin import image_layout

SPAWN = multiprocessing.get_context("spawn")
EPISODE = 7  # rows, the last with valid=False


def layout_of(**changes: Any) -> StreamLayout:
    """Frames large enough that copying them takes time."""
    fields: dict[str, Any] = {
        "observation": {"observation": ArraySpec((1, 40, 40), "int32")},
        "extras": {"q": ArraySpec((), "float64")},
        "core_state": {"h": ArraySpec((64,), "float64")},
        "num_streams": 2,
        "capacity": 24,
        "block": 8,
        "state_grid": 4,
        "state_period": 0,
    }
    return image_layout(**(fields | changes))


def mapped(layout: StreamLayout, path: Path, guard: Any = None) -> StreamStore:
    """A store over the file ``path``, made if it is not there."""
    specs, offset, arrays = layout.arrays(), 0, {}
    size = sum(-(-spec.nbytes // 64) * 64 for spec in specs.values())
    if not path.exists():
        path.write_bytes(b"\0" * size)
    memory = np.memmap(path, np.uint8, "r+")
    for name, spec in specs.items():
        arrays[name] = memory[offset : offset + spec.nbytes].view(spec.dtype).reshape(spec.shape)
        offset += -(-spec.nbytes // 64) * 64
    return StreamStore(layout, arrays, guard)


def mark(stream: np.ndarray, row: np.ndarray) -> np.ndarray:
    """A number that names a row; every array of the row holds nothing else."""
    return stream * 1_000_000 + row


def make_block(store: StreamStore, streams: np.ndarray, length: int) -> StreamBlock:
    """The next rows of ``streams``, each array filled with the row's mark."""
    row = store.head[streams][:, None] + np.arange(length + 1)
    number = mark(streams[:, None], row)
    columns = {}
    for name, spec in store.layout.columns().items():
        wide = number.reshape(*number.shape, *(1,) * len(spec.shape))
        columns[name] = np.broadcast_to(wide, (*number.shape, *spec.shape)).astype(spec.dtype)
    columns["first"], columns["valid"] = row % EPISODE == 0, row % EPISODE != EPISODE - 1
    open_row = {name: columns[name][:, length] for name in ("observation/observation", "first", "valid")}
    due, offset = np.nonzero(store.layout.state_due(row[:, :length], row[:, :length] % EPISODE))
    states = {"h": np.repeat(number[due, offset][:, None], 64, 1).astype(np.float64)} if len(due) else {}
    states = states or {"h": np.zeros((0, 64))}
    return StreamBlock(streams, {k: v[:, :length] for k, v in columns.items()}, open_row, due, offset, states)


def check_unroll(unroll: Unroll, ok: np.ndarray, length: int) -> None:
    """Every ok column holds the marks of its rows and nothing else, stacks included."""
    for b in np.flatnonzero(ok):
        stream, start = int(unroll.stream[b]), int(unroll.row[b])
        row = start + np.arange(length + 1)
        number = mark(np.array(stream), row)
        frames = unroll.inputs.observation["observation"][:, b].numpy()
        for back in range(4):
            frame = frames[:, 3 - back].reshape(length + 1, -1)
            want = np.where(row % EPISODE >= back, number - back, 0)
            assert (frame == want[:, None]).all()
        for values in (unroll.action, unroll.extras["q"], unroll.param_version):
            assert (values[:, b].numpy() == number[:-1]).all()
        assert (unroll.valid[:, b].numpy() == (row % EPISODE != EPISODE - 1)).all()
        before = np.where(row % EPISODE > 0, number - 1, 0)
        assert (unroll.inputs.last_action[:, b].numpy() == before).all()
        kept = start % 4 == 0
        assert (unroll.core_state["h"][b].numpy() == (number[0] if kept else 0)).all()


def write_for_ever(layout: StreamLayout, path: Path, streams: list[int], seed: int, guard: Any) -> None:
    """A writer process: appends as fast as fifos allow until it is killed."""
    store, rng, mine = mapped(layout, path, guard), np.random.default_rng(seed), np.array(streams)
    store.attach(mine)
    while True:
        length = int(rng.integers(1, layout.block + 1)) if not layout.num_cursors else layout.block
        if store.room(mine).min() < length:
            time.sleep(0.0005)
            continue
        block = make_block(store, mine, length)
        for _ in range(length):
            store.add_produced(mine)
        store.append(block)


@contextlib.contextmanager
def writers(layout: StreamLayout, path: Path, owned: list[list[int]], guard: Any = None) -> Iterator[list[Any]]:
    """Writer processes, killed at the end."""
    made = [
        SPAWN.Process(target=write_for_ever, args=(layout, path, streams, seed, guard), daemon=True)
        for seed, streams in enumerate(owned)
    ]
    for process in made:
        process.start()
    try:
        yield made
    finally:
        for process in made:
            process.kill()
            process.join(20)


def wait_for(store: StreamStore, rows: int) -> None:
    """Until every stream has so many rows."""
    deadline = time.monotonic() + 60
    while store.head.min() < rows:
        assert time.monotonic() < deadline, f"writers stand still at {store.head}"
        time.sleep(0.002)


@pytest.mark.parametrize("guarded", [False, True])
def test_no_torn_row_gets_through_and_drops_are_counted(tmp_path: Path, guarded: bool) -> None:
    layout, path, length = layout_of(), tmp_path / "streams", 6
    guard = SPAWN.Lock() if guarded else None
    store, rng = mapped(layout, path, guard), np.random.default_rng(0)
    good = bad = 0
    with writers(layout, path, [[0], [1]], guard):
        wait_for(store, 2 * layout.capacity)
        deadline = time.monotonic() + 40
        while (good < 3000 or store.dropped < 20) and time.monotonic() < deadline:
            stream = rng.integers(0, 2, 8)
            row = store.head[stream] - layout.capacity + rng.integers(0, layout.capacity - length, 8)
            unroll, ok = store.read_unrolls(stream, row, length, last=True)
            check_unroll(unroll, ok, length)
            good, bad = good + int(ok.sum()), bad + int((~ok).sum())
    assert good >= 3000
    assert 20 <= store.dropped <= bad


@pytest.mark.parametrize("finished", [True, False])
def test_rows_overwritten_while_they_are_copied_are_dropped(finished: bool) -> None:
    """The same, without processes: a writer appends in the middle of a read, and may be at the next block already."""
    layout = layout_of(num_streams=1)
    store, stream = StreamStore.allocate(layout), np.zeros(3, np.int64)
    for _ in range(10):
        store.append(make_block(store, np.array([0]), 8))
    head = int(store.head[0])
    row = np.array([head - 24 + 4, head - 16, head - 8])
    copy, calls = store.take, []

    def slow(name: str, at: np.ndarray) -> np.ndarray:
        taken = copy(name, at)
        if name == "observation/observation" and not calls:
            calls.append(name)
            store.take = copy  # type: ignore[method-assign]
            for _ in range(2):
                store.append(make_block(store, np.array([0]), 8))
            store.head[0] -= 0 if finished else 8
        return taken

    store.take = slow  # type: ignore[method-assign]
    unroll, ok = store.read_unrolls(stream, row, 8, last=True)
    assert calls
    assert ok.tolist() == [False, False, True]
    assert store.dropped == 2
    check_unroll(unroll, ok, 8)


def test_a_block_being_written_touches_no_readable_row() -> None:
    """A writer that stops in the middle of an append, however long its block, leaves all readable rows as they were."""
    layout = layout_of(num_streams=1)
    for length in range(1, 9):
        store = StreamStore.allocate(layout)
        for _ in range(10):
            store.append(make_block(store, np.array([0]), 8))
        head = int(store.head[0])
        block = make_block(store, np.array([0]), length)
        published = store.head.copy()
        store.append(block)
        store.head[:] = published  # as if killed just before it published
        row = np.arange(head - 24 + 3, head - 4)
        row = row[(row % 4 == 0) | (row % EPISODE == 0)]
        unroll, ok = store.read_unrolls(np.zeros(len(row), np.int64), row, 4, last=True)
        assert ok.all()
        check_unroll(unroll, ok, 4)


def test_a_fifo_across_processes_loses_and_doubles_nothing(tmp_path: Path) -> None:
    layout = layout_of(num_streams=4, num_cursors=1, block=4, capacity=15)
    path, length = tmp_path / "streams", 4
    store = mapped(layout, path)
    fifo, expected = Fifo(store, 0, length, 2), np.zeros(4, np.int64)
    with writers(layout, path, [[0, 1], [2, 3]]):
        deadline = time.monotonic() + 60
        while expected.min() < 50 * length:
            assert time.monotonic() < deadline
            selection = fifo.select(3)
            if selection is None:
                time.sleep(0.0005)
                continue
            assert (selection.row == expected[selection.stream]).all()
            unroll, ok = store.read_unrolls(selection.stream, selection.row, length, last=True)
            assert ok.all()
            check_unroll(unroll, ok, length)
            fifo.copied(selection)
            fifo.done(selection)
            expected[selection.stream] += length
    assert store.dropped == 0
    store.reserved[:] = store.head  # what attaching does
    store.settle()
    store.check_ledger()
    assert store.ledger()["fifo0/trained"] == expected.sum()


def test_killed_writers_leave_streams_that_go_on(tmp_path: Path) -> None:
    layout, path = layout_of(), tmp_path / "streams"
    store = mapped(layout, path)
    everyone = np.arange(2)
    for life in range(2):
        before = store.head.copy()
        with writers(layout, path, [[0, 1]]) as processes:
            wait_for(store, int(before.max()) + 50)
            time.sleep(0.003 * life)
            os.kill(processes[0].pid, signal.SIGKILL)
            processes[0].join(20)
        left = store.attach(everyone)
        assert left is not None
        store.check_ledger()
        assert store.ledger()["in_hand"] == 2  # the open rows
        assert (left["observation/observation"] == mark(everyone, store.head)[:, None, None, None]).all()
        row = np.arange(int(store.head[0]) - 20, int(store.head[0]) - 4)
        row = row[(row % 4 == 0) | (row % EPISODE == 0)]
        unroll, ok = store.read_unrolls(np.zeros(len(row), np.int64), row, 4, last=True)
        assert ok.all()
        check_unroll(unroll, ok, 4)
    store.settle()
    assert (store.produced == store.head + store.lost).all()


ITEMS = (ItemSpec(n=3), ItemSpec("sequence", n=2, length=4, burn_in=2, period=4))


def check_stacks(observation: Any, stream: np.ndarray, row: np.ndarray) -> None:
    """Stacks [n, 4, ...] of these rows [n]."""
    for back in range(4):
        want = np.where(row % EPISODE >= back, mark(stream, row) - back, 0)
        assert (observation[:, 3 - back].reshape(len(row), -1).numpy() == want[:, None]).all()


def check_transitions(batch: Transition, n: int) -> None:
    """Every column holds the marks of its rows and nothing else."""
    stream, row = batch.stream.numpy(), batch.row.numpy()
    number, steps = mark(stream, row), np.minimum(n, EPISODE - 1 - row % EPISODE)
    steps[number == 0] = 1  # its mark is its discount too
    assert (batch.steps.numpy() == steps).all()
    check_stacks(batch.inputs.observation["observation"][0], stream, row)
    check_stacks(batch.next_inputs.observation["observation"][0], stream, row + steps)
    for values in (batch.action, batch.extras["q"], batch.param_version):
        assert (values.numpy() == number).all()
    total, product = np.zeros(len(row)), np.ones(len(row))
    for i in range(n):
        value = np.where(i < steps, (number + i).astype(np.float64), 1.0)
        total += np.where(i < steps, product * value, 0)
        product *= value
    np.testing.assert_allclose(batch.reward, total, rtol=1e-5)
    np.testing.assert_allclose(batch.discount, product, rtol=1e-5)


def check_sequences(batch: Sequence, items: ItemSpec) -> None:
    """The same for sequences; padding repeats their first row and their final observation."""
    stream, row, total = batch.stream.numpy(), batch.row.numpy(), items.burn_in + items.span
    start = row - np.minimum(row % EPISODE, items.burn_in)
    step = np.arange(total + 1)[:, None] - (items.burn_in - (row - start))
    end = EPISODE - 1 - start % EPISODE
    rows = start + step.clip(0).clip(max=end)
    padded = (step < 0) | (step >= end)
    number = mark(stream, rows)
    check_stacks(
        batch.inputs.observation["observation"].flatten(0, 1), np.broadcast_to(stream, rows.shape).ravel(), rows.ravel()
    )
    for values in (batch.action, batch.extras["q"], batch.param_version):
        assert (values.numpy() == number[:-1]).all()
    for values in (batch.reward, batch.discount):
        assert (values.numpy() == np.where(padded, 0, number)[:-1]).all()
    assert (batch.valid.numpy() == ~padded).all()
    assert (batch.inputs.first.numpy() == (step >= 0) & (rows % EPISODE == 0)).all()
    trained = (np.arange(total) >= items.burn_in) & (np.arange(total) < items.burn_in + items.length)
    assert (batch.mask.numpy() == (trained[:, None] & ~padded[:-1])).all()
    state = np.where(start % EPISODE > 0, mark(stream, start), 0)
    assert (batch.core_state["h"].numpy() == state[:, None]).all()


def living_items(sampler: Prioritised, store: StreamStore) -> set[int]:
    """The leaves that must have a weight, from the heads alone."""
    items, found = sampler.items, set()
    for s, head in enumerate(store.head.tolist()):
        for row in range(max(0, head - sampler.window + sampler.margin), head):
            step = row % EPISODE
            last = row + min(items.span, EPISODE - 1 - step)
            if step < EPISODE - 1 and step % items.period == 0 and last < head:
                found.add(int(store.locate(np.array(s), np.array(row))))
    return found


def test_prioritised_replay_beside_four_writers(tmp_path: Path) -> None:
    frames = {"observation": ArraySpec((1, 20, 20), "int32")}
    layout = layout_of(
        observation=frames, num_streams=8, capacity=120, state_grid=0, state_period=ITEMS[1].state_period
    )
    path, rng = tmp_path / "streams", np.random.default_rng(0)
    store = mapped(layout, path)
    stores = [StreamStore(replace(layout, items=items), store.arrays) for items in ITEMS]
    samplers = [
        Prioritised(one, one.layout.items, rng, alpha=0.6, beta=lambda: 0.4, last=True, source=0) for one in stores
    ]
    replays = [
        Mixture(one, [sampler], [8], True, RateLimiter(one, 0.0, 0, 1, 1)) for one, sampler in zip(stores, samplers)
    ]
    late: list[tuple[Mixture, Any]] = []
    with writers(layout, path, [[0, 1], [2, 3], [4, 5], [6, 7]]):
        wait_for(store, 2 * layout.capacity)
        start, deadline, batches = store.head.copy(), time.monotonic() + 40, 0
        while batches < 60 or min(sampler.dropped_updates for sampler in samplers) == 0:
            assert time.monotonic() < deadline, f"{batches} batches, {samplers[0].dropped_updates} dropped updates"
            for replay in replays:
                batch = replay.sample()
                if batch is None:
                    continue
                if isinstance(batch, Sequence):
                    check_sequences(batch, replay.items)
                else:
                    assert isinstance(batch, Transition)
                    check_transitions(batch, 3)
                batches += 1
                late.append((replay, batch))
                if len(late) > 20:
                    which, old = late.pop(0)
                    names = (old.source.numpy(), old.stream.numpy(), old.row.numpy())
                    which.feedback(*names, {"priority": rng.exponential(1, 8)})
        assert (store.head > start).all()
        # and writers in other processes stop where rate control says, and go on when it lets them
        limiter, before, deadline = RateLimiter(store, 1.0, 0, 1, 16), start, time.monotonic() + 20
        while (store.head > before).any():
            assert time.monotonic() < deadline, "nothing holds writers back"
            before = store.head.copy()
            time.sleep(0.05)
        limiter.count(8 * int(before.max()))
        while store.head.max() < store.arrays["pace"][0]:
            assert time.monotonic() < deadline, f"writers stand still at {store.head}"
            time.sleep(0.01)
        assert (store.head <= store.arrays["pace"][0]).all()
    store.settle()
    store.check_ledger()
    counts = store.ledger()
    assert counts["produced"] == counts["stored"] + counts["expired"] + counts["lost"]
    for sampler in samplers:
        sampler.sync()
        assert set(np.flatnonzero(sampler.tree.leaves).tolist()) == living_items(sampler, store) != set()
