"""Snapshots: only what is used, bit for bit the same after coming back, refused where they do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.replay import snapshot
from offbeat.replay.streams import StreamStore
from offbeat.types import ArraySpec
from tests.replay.test_fifo import grow
from tests.replay.test_streams import twin_of
from tests.replay.twin import Twin, image_layout, vector_layout


def test_snapshots_of_other_streams_are_refused() -> None:
    store = StreamStore.allocate(vector_layout())
    store.append(twin_of(store, 5).block([0], 5))
    with pytest.raises(ValueError, match="saved streams: 3 of them, this run has 2"):
        StreamStore.allocate(vector_layout(num_streams=2)).load_state(store.state())
    extra = vector_layout(extras={"q": ArraySpec(())})
    with pytest.raises(ValueError, match=r"'extras/q' must be \[6\], got nothing"):
        StreamStore.allocate(extra).load_state(store.state())


def test_snapshots_hold_only_the_used_part() -> None:
    store = StreamStore.allocate(image_layout(capacity=1000))
    assert len(store.state()["reward"]) == 0
    twin = twin_of(store, 10)
    store.append(twin.block([1], 5))
    store.append(twin.block([1], 5))
    saved = store.state()
    assert len(saved["reward"]) == 11
    assert sum(values.nbytes for values in saved.values()) < store.layout.nbytes() / 20


@pytest.mark.parametrize("rows", [1, 22, 23, 24, 29, 30, 90])
def test_a_snapshot_of_a_snapshot_is_the_same(rows: int) -> None:
    """Also after both went on, whatever old rows left in the memory of one of them."""
    layout = image_layout()
    store, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(rows))
    for _ in range(rows):
        grow(store, twin, 1, 1)
    again = StreamStore.allocate(layout)
    snapshot.load(again, snapshot.save(store))
    for _ in range(rows % 7 + 1):
        one, other = snapshot.save(store), snapshot.save(again)
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)
        twin.step(1)
        block = twin.block([1], 1)
        for target in (store, again):
            target.add_produced(np.array([1]))
            target.append(block)
