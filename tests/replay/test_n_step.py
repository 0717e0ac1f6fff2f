"""Sums over n steps, against the same sums of whole arrays: bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.n_step import take_steps
from offbeat.replay.streams import StreamStore
from tests.replay.test_readers import operate, starts
from tests.replay.twin import Twin, image_layout


def sums(store: StreamStore, stream: np.ndarray, row: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    """Reward, discount and steps, one step of all rows after the other."""
    at = store.locate(stream, row + np.arange(n + 1)[:, None])
    valid, reward, discount = (store.take(name, at) for name in ("valid", "reward", "discount"))
    total, product = np.zeros(len(row), np.float32), np.ones(len(row), np.float32)
    steps, going = np.zeros(len(row), np.int64), valid[0].copy()
    for i in range(n):
        total = np.where(going, total + product * reward[i], total)
        product = np.where(going, product * discount[i], product)
        steps += going
        going &= (discount[i] != 0) & valid[i + 1]
    return total, product, steps


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("end", [0.02, 0.3])
def test_the_bits_of_the_sums(n: int, end: float) -> None:
    rng = np.random.default_rng(n)
    layout = image_layout(core_state={}, state_grid=0, state_period=0)
    store, twin = StreamStore.allocate(layout), Twin(layout, rng, end)
    compared = 0
    for _ in range(40):
        operate(store, twin, rng)
        stream, row = starts(store)
        taken = take_steps(store, stream, row, n, layout.history(last=True))
        want = sums(store, stream, row, n)
        for got, expected in zip((taken.reward, taken.discount, taken.steps), want):
            assert got.dtype == expected.dtype
            assert np.array_equal(got[taken.ok], expected[taken.ok])
        compared += int(taken.ok.sum())
        assert np.array_equal(taken.row, [row, row + taken.steps])
        assert np.array_equal(taken.at, store.locate(stream, taken.row))
        assert np.array_equal(taken.age, store.take("age", taken.at))
        assert np.array_equal(taken.low, row - np.minimum(taken.age[0], layout.history(last=True)))
    assert compared > 100


def test_rows_of_any_kind_of_integer_and_stride() -> None:
    rng = np.random.default_rng(0)
    layout = image_layout(core_state={}, state_grid=0, state_period=0)
    store, twin = StreamStore.allocate(layout), Twin(layout, rng)
    for _ in range(10):
        operate(store, twin, rng)
    stream, row = starts(store)
    want = take_steps(store, stream, row, 3, 3)
    spread = np.stack([row, row], 1)[:, 0]
    got = take_steps(store, stream.astype(np.int32), spread, 3, 3)
    for name, values in vars(want).items():
        assert np.array_equal(getattr(got, name), values), name
