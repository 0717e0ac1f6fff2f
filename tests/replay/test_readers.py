"""Readers against the naive twin, for every start there is, under random operations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.replay.readers import prepare
from offbeat.replay.streams import StreamStore
from offbeat.types import Inputs, Unroll
from tests.replay.twin import LAYOUTS, Row, Twin, TwinReader


def same(got: torch.Tensor, want: Any, what: str) -> None:
    """Exactly equal, shape included."""
    want = np.asarray(want)
    assert tuple(got.shape) == want.shape, what
    assert np.array_equal(got.numpy(), want), f"{what}: {got.numpy()} is not {want}"


def starts(store: StreamStore) -> tuple[np.ndarray, np.ndarray]:
    """Every start from before the window to beyond the head."""
    pairs = [
        (s, t)
        for s in range(store.layout.num_streams)
        for t in range(int(store.head[s]) - store.layout.ring - 3, int(store.head[s]) + 3)
    ]
    stream, row = np.array(pairs, np.int64).T
    return stream.copy(), row.copy()


def check_inputs(inputs: Inputs, b: int, rows: list[Row], last: bool, what: str) -> None:
    """Column ``b`` of what a network reads, all rows."""
    for key in rows[0]["seen"]:
        same(inputs.observation[key][:, b], [row["seen"][key] for row in rows], f"{what}: {key}")
    same(inputs.first[:, b], [row["first"] for row in rows], f"{what}: first")
    assert (inputs.last_action is not None) == last
    if last:
        same(inputs.last_action[:, b], [row["last_action"] for row in rows], f"{what}: last_action")
        same(inputs.last_reward[:, b], [row["last_reward"] for row in rows], f"{what}: last_reward")


def check_rows(unroll: Unroll, b: int, rows: list[Row], what: str) -> None:
    """Column ``b`` of actions and outcomes of the first rows."""
    for name in ("action", "param_version", "elapsed", "reward", "discount", "terminated", "truncated"):
        same(getattr(unroll, name)[: len(rows), b], [row[name] for row in rows], f"{what}: {name}")
    for name, value in unroll.extras.items():
        same(value[: len(rows), b], [row[f"extras/{name}"] for row in rows], f"{what}: {name}")


def check_unrolls(store: StreamStore, reader: TwinReader, length: int, last: bool) -> int:
    stream, row = starts(store)
    source = np.arange(len(row))
    unroll, ok = store.read_unrolls(stream, row, length, last=last, source=source)
    assert unroll.inputs.shape == (length + 1, len(row))
    np.testing.assert_array_equal(ok, store.readable(stream, row, length, last=last))
    for b, (s, t) in enumerate(zip(stream, row)):
        want = reader.unroll(s, t, length)
        assert ok[b] == (want is not None), f"stream {s} row {t} head {store.head[s]}"
        if want is None:
            continue
        assert (unroll.stream[b], unroll.row[b], unroll.source[b]) == (s, t, b)
        for name, state in reader.core(s, t).items():
            same(unroll.core_state[name][b], state, f"{s} {t} {name}")
        check_inputs(unroll.inputs, b, want, last, f"{s} {t}")
        same(unroll.valid[:, b], [twin_row["valid"] for twin_row in want], "valid")
        check_rows(unroll, b, want[:length], f"{s} {t}")
    return int(ok.sum())


def check_before(store: StreamStore, reader: TwinReader, burn_in: int, last: bool) -> int:
    stream, row = starts(store)
    keep = row >= 0
    stream, row = stream[keep], row[keep]
    before = store.read_before(stream, row, burn_in, last=last)
    assert before.inputs.shape == (burn_in + 1, len(row))
    known = before.valid.any(0)
    seen = 0
    for b, (s, t) in enumerate(zip(stream, row)):
        if t > store.head[s]:
            continue  # nobody asks
        want = reader.unroll(s, max(t - burn_in, 0), min(t, burn_in))
        if want is None:
            assert not known[b], f"stream {s} row {t} head {store.head[s]}"
        elif known[b]:
            padded = max(burn_in - t, 0)
            want = [want[0]] * padded + want
            check_rows(before, b, want[:burn_in], f"{s} {t}")
            for key in want[0]["seen"]:
                same(before.inputs.observation[key][:, b], [twin_row["seen"][key] for twin_row in want], key)
            assert before.inputs.first[:padded, b].all()
            same(before.inputs.first[padded:, b], [twin_row["first"] for twin_row in want[padded:]], "first")
            for name, state in reader.core(s, max(t - burn_in, 0)).items():
                same(before.core_state[name][b], state, f"{s} {t} {name}")
            seen += 1
    return seen


def check_transitions(store: StreamStore, reader: TwinReader, n: int, last: bool) -> int:
    stream, row = starts(store)
    got, ok = store.read_transitions(stream, row, n, last=last)
    for b, (s, t) in enumerate(zip(stream, row)):
        want = reader.transition(s, t, n)
        assert ok[b] == (want is not None), f"stream {s} row {t} head {store.head[s]}"
        if want is None:
            continue
        first, total, product, steps, then = want
        what = f"{s} {t} n={n}"
        check_inputs(got.inputs, b, [first], last, what)
        check_inputs(got.next_inputs, b, [then], last, f"{what} next")
        np.testing.assert_allclose(got.reward[b], total, rtol=1e-5, atol=1e-6, err_msg=what)
        np.testing.assert_allclose(got.discount[b], product, rtol=1e-5, err_msg=what)
        assert got.steps[b] == steps
        same(got.action[b], first["action"], what)
        same(got.param_version[b], first["param_version"], what)
        same(got.elapsed[b], first["elapsed"], what)
        for name, value in got.extras.items():
            same(value[b], first[f"extras/{name}"], what)
    return int(ok.sum())


def check_sequences(
    store: StreamStore, reader: TwinReader, parts: tuple[int, int, int], last: bool, rng: np.random.Generator
) -> tuple[int, int]:
    stream, row = starts(store)
    burn_in, length, _ = parts
    total = sum(parts)
    lead = np.zeros(len(row), np.int64)  # where an episode starts, some of the burn-in may be padding
    for b, (s, t) in enumerate(zip(stream, row)):
        if (start := reader.row(s, t)) is not None and start["first"]:
            lead[b] = rng.integers(0, burn_in + 1)
    padding = lead if lead.any() or rng.random() < 0.5 else None
    got, ok = store.read_sequences(stream, row, *parts, last=last, padding=padding)
    assert got.burn_in == burn_in
    for b, (s, t) in enumerate(zip(stream, row)):
        pad = int(lead[b])
        want = reader.sequence(s, t, total - pad)
        assert ok[b] == (want is not None), f"stream {s} row {t} head {store.head[s]}"
        if want is None:
            continue
        what = f"{s} {t} padded by {pad}"
        rows, real = want
        end = pad + real - 1 if not rows[-1]["valid"] else total + 1  # offset of the final observation
        rows = [rows[0] | {"first": False, "valid": False}] * pad + rows
        assert (got.stream[b], got.row[b]) == (s, t)
        for name, state in reader.core(s, t).items():
            same(got.core_state[name][b], state, f"{what} {name}")
        assert not any(twin_row["first"] for twin_row in rows[end:])
        check_inputs(got.inputs, b, rows, last, what)
        assert not pad or (got.inputs.first[pad, b] and not got.inputs.first[:pad, b].any())
        same(got.valid[:, b], [twin_row["valid"] for twin_row in rows], "valid")
        nothing = {"reward": 0, "discount": 0, "terminated": False, "truncated": False}
        check_rows(got, b, [twin_row | nothing for twin_row in rows[:pad]] + rows[pad : min(end, total)], what)
        for name in nothing:
            assert not getattr(got, name)[end:, b].any(), name
        trained = range(max(burn_in, pad), min(burn_in + length, end))
        same(got.mask[:, b], [i in trained for i in range(total)], "mask")
    return int(ok.sum()), int((ok & (lead > 0)).sum())


def operate(store: StreamStore, twin: Twin, rng: np.random.Generator) -> None:
    """One random operation on both."""
    layout = twin.layout
    streams = rng.permutation(layout.num_streams)[: rng.integers(1, layout.num_streams + 1)].tolist()
    if rng.random() < 0.06:
        for s in streams:
            left = store.attach(np.array([s]))
            assert (left is None) == (twin.streams[s].appended_open is None)
            twin.die(s)
            if left is not None:
                assert left["first"][0] == twin.streams[s].hand[0]["first"]
        return
    length = int(rng.integers(1, layout.block + 1))
    for s in streams:
        while len(twin.streams[s].hand) < length + rng.integers(0, 2):
            twin.step(s)
            store.add_produced(np.array([s]))
    store.append(twin.block(streams, length))


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.parametrize("padding", ["zero", "repeat"])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_start_reads_like_the_twin(name: str, padding: str, seed: int) -> None:
    rng = np.random.default_rng([seed, *name.encode()])
    layout: StreamLayout = LAYOUTS[name](stack_padding=padding)
    store, twin = StreamStore.allocate(layout), Twin(layout, rng, end=(0.15, 0.4)[seed])
    read, known = np.zeros(4, int), 0
    for turn in range(60):
        operate(store, twin, rng)
        assert [len(stream.rows) for stream in twin.streams] == store.head.tolist()
        store.check_ledger()
        if turn % 4 == 3:
            last = bool(rng.random() < 0.5)
            reader = TwinReader(twin, last)
            read += (
                check_unrolls(store, reader, int(rng.integers(1, 8)), last),
                check_transitions(store, reader, int(rng.integers(1, 6)), last),
                *check_sequences(
                    store, reader, (int(rng.integers(0, 3)), int(rng.integers(1, 5)), turn % 3), last, rng
                ),
            )
            known += check_before(store, reader, int(rng.integers(1, 8)), last)
        if turn % 20 == 10:
            fresh = StreamStore.allocate(layout)
            fresh.load_state(store.state())
            store = fresh
    assert (read[:3] > 50).all()
    assert read[3] > 10  # padded
    assert known > 50
    assert store.lost.sum() == sum(stream.lost for stream in twin.streams)
    assert (store.head > layout.capacity).all()
    counts = store.ledger()
    assert counts["produced"] == counts["stored"] + counts["expired"] + counts["lost"] + counts["in_hand"]
    assert counts["non_transitions"] == sum(not row["valid"] for stream in twin.streams for row in stream.rows)


def test_one_hand_made_episode() -> None:
    """Rewards 1, 2, 3; truncated: three valid rows, then the final observation. gamma = 0.9."""
    layout = LAYOUTS["vector"](core_state={}, num_streams=1, block=6)
    store = StreamStore.allocate(layout)
    columns = {name: spec.zeros(1, 5) for name, spec in layout.columns().items()}
    columns["observation/observation"][0, :, 0] = np.arange(5)
    columns["reward"][0] = [1, 2, 3, 0, 5]
    columns["discount"][0] = 0.9
    columns["truncated"][0, 2] = True
    columns["first"][0] = [True, False, False, False, True]
    columns["valid"][0] = [True, True, True, False, True]
    none = np.zeros(0, np.int64)
    open_row = {"observation/observation": np.full((1, 3), 9.0, np.float32)}
    open_row |= {"first": np.array([False]), "valid": np.array([True])}
    store.append(StreamBlock(np.array([0]), columns, open_row, none, none, {}))
    rows = np.arange(5)
    got, ok = store.read_transitions(np.zeros(5, np.int64), rows, 2, last=False)
    assert ok.tolist() == [True, True, True, False, False]  # a final observation; an action with one step so far
    np.testing.assert_allclose(got.reward[:3], [1 + 0.9 * 2, 2 + 0.9 * 3, 3])
    np.testing.assert_allclose(got.discount[:3], [0.81, 0.81, 0.9])
    assert got.steps[:3].tolist() == [2, 2, 1]
    assert got.next_inputs.observation["observation"][0, :3, 0].tolist() == [2, 3, 3]
    sequence, fine = store.read_sequences(np.zeros(1, np.int64), np.array([1]), 1, 3, 0, last=True)
    assert fine.all()
    assert sequence.mask[:, 0].tolist() == [False, True, False, False]
    assert sequence.inputs.observation["observation"][:, 0, 0].tolist() == [1, 2, 3, 3, 3]
    assert sequence.inputs.last_reward[:, 0].tolist() == [1, 2, 3, 3, 3]
    assert sequence.reward[:, 0].tolist() == [2, 3, 0, 0]


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_preparing_reads_nothing(name: str) -> None:
    store = StreamStore.allocate(LAYOUTS[name]())
    before = store.state()
    prepare(store)
    assert all(np.array_equal(value, before[key]) for key, value in store.state().items())
