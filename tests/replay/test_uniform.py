"""Uniform replay: frequencies, the window, rows that may not be drawn."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay.layout import StreamLayout
from offbeat.replay.streams import StreamStore
from offbeat.replay.uniform import Uniform
from tests.replay.test_fifo import grow
from tests.replay.twin import Twin, TwinReader, image_layout, vector_layout


def filled(layout: StreamLayout, rows: tuple[int, ...], seed: int = 0) -> tuple[StreamStore, Twin]:
    """Streams of ``rows`` rows each."""
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(seed))
    for s, count in enumerate(rows):
        for _ in range(count // layout.block):
            grow(store, twin, s, layout.block)
        if count % layout.block:
            grow(store, twin, s, count % layout.block)
    return store, twin


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("window", [0, 36])
def test_every_readable_start_is_equally_likely_and_no_other_is_drawn(recurrent: bool, window: int) -> None:
    layout = image_layout() if recurrent else image_layout(core_state={})
    store, twin = filled(layout, (61, 9, 30))
    reader, length, n = TwinReader(twin, True), 4, 20_000
    per_stream = -(-window // 3) or layout.capacity
    allowed = [
        (s, t)
        for s, head in enumerate((61, 9, 30))
        for t in range(max(0, head - per_stream), head)
        if reader.unroll(s, t, length) is not None
    ]
    sampler = Uniform(store, length, window, 0, np.random.default_rng(1), source=3)
    selection = sampler.select(n)
    assert selection is not None
    assert set(selection.source.tolist()) == {3}
    counts = dict.fromkeys(allowed, 0)
    for start in zip(selection.stream.tolist(), selection.row.tolist()):
        counts[start] += 1  # KeyError: drawn though it may not be
    expected = n / len(allowed)
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = len(allowed) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5


def test_nothing_is_drawn_before_min_rows_are_stored() -> None:
    store, twin = filled(vector_layout(core_state={}), (10, 0, 0))
    sampler = Uniform(store, 4, 0, 12, np.random.default_rng(0))
    assert not sampler.ready(1)
    assert sampler.select(1) is None
    grow(store, twin, 1, 2)
    assert sampler.ready(1)
    selection = sampler.select(8)
    assert selection is not None
    assert set(selection.stream.tolist()) == {0}  # stream 1 has no whole unroll


def test_only_starts_without_a_state_are_an_error() -> None:
    layout = vector_layout(state_period=15, num_streams=1)
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0), end=0.0)
    for _ in range(8):
        grow(store, twin, 0, 5)
    store.arrays["core_row"][:] = -1
    with pytest.raises(RuntimeError, match=r"no 2 readable unrolls of 4 rows; use a larger replay\.capacity or window"):
        Uniform(store, 4, 0, 0, np.random.default_rng(0)).select(2)


def test_draws_repeat_from_a_saved_state() -> None:
    store, _ = filled(image_layout(), (40, 40, 40))
    one = Uniform(store, 4, 0, 0, np.random.default_rng(1))
    other = Uniform(store, 4, 0, 0, np.random.default_rng(2))
    one.select(5)
    other.load_state(one.state())
    for _ in range(5):
        first, second = one.select(7), other.select(7)
        assert first is not None
        assert second is not None
        assert first.stream.tolist() == second.stream.tolist()
        assert first.row.tolist() == second.row.tolist()


def test_sizes_that_cannot_work_are_refused() -> None:
    store = StreamStore.allocate(image_layout())
    with pytest.raises(
        ValueError, match="a window of 12 rows is 4 rows per stream, an unroll with its history and state needs 10"
    ):
        Uniform(store, 5, 12, 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="window=70 is more than the 69 rows kept"):
        Uniform(store, 5, 70, 0, np.random.default_rng(0))
