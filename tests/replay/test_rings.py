"""The rings by themselves: what readers see of arrays that somebody else writes, and that they cannot write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from offbeat.replay import readers
from offbeat.replay.rings import Rings
from offbeat.replay.streams import StreamStore
from tests.replay.twin import Twin, dict_layout, image_layout


@pytest.mark.parametrize("make", [image_layout, dict_layout])
def test_readers_over_the_rings_alone_read_what_the_store_reads(make: Any) -> None:
    layout = make()
    store = StreamStore.allocate(layout)
    rings, twin = Rings(layout, store.arrays), Twin(layout, np.random.default_rng(0))
    for _ in range(9):
        for stream in range(layout.num_streams):
            for _ in range(layout.block):
                twin.step(stream)
            store.append(twin.block([stream], layout.block))
    heads = rings.heads(np.arange(layout.num_streams))
    assert heads.tolist() == [9 * layout.block] * layout.num_streams
    stream, row = np.arange(layout.num_streams), heads - 12
    mine, ok = readers.read_unrolls(rings, stream, row, 5, last=True, source=None)
    theirs, fine = store.read_unrolls(stream, row, 5, last=True)
    assert ok.tolist() == fine.tolist()
    for name in ("reward", "action", "valid", "discount"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    assert not hasattr(rings, "append")


def test_what_was_overwritten_meanwhile_is_counted() -> None:
    layout = image_layout()
    store = StreamStore.allocate(layout)
    rings = Rings(layout, store.arrays)
    store.arrays["reserved"][:] = layout.capacity + layout.block + np.array([0, 3, 9])
    low, ok = np.array([2, 2, 2]), np.array([True, True, False])
    assert rings.verify(np.arange(3), low, ok).tolist() == [True, False, False]
    assert (rings.dropped, store.dropped) == (1, 0), "each reader counts its own, and nothing that it did not want"


def test_rings_that_are_only_imagined_take_no_memory() -> None:
    layout = image_layout(capacity=10**9)
    rings = Rings.imagine(layout)
    assert isinstance(rings, Rings) and not isinstance(rings, StreamStore)
    assert rings.stored.tolist() == rings.expired.tolist() == [0, 0, 0]
    assert sum(array.base is None for array in rings.arrays.values()) < len(rings.arrays)
