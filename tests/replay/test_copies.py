"""Copied unrolls come back bit by bit, stacks rebuilt; newcomers are each seen once, or counted as missed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from offbeat.replay.columns import columns_of
from offbeat.replay.copies import SEEN, Copies, Newcomers, copy_nbytes
from offbeat.replay.items import read_items
from offbeat.replay.layout import StreamLayout
from offbeat.replay.sampler import Place
from offbeat.replay.streams import StreamStore
from offbeat.types import UNROLL
from tests.replay.test_fifo import grow
from tests.replay.twin import LAYOUTS, Twin, TwinReader, image_layout, vector_layout


def place_of(layout: StreamLayout, length: int = 5, burn_in: int = 0) -> Place:
    """A sampler's place over empty streams."""
    layout = replace(layout, items=replace(UNROLL, length=length, burn_in=burn_in))
    return Place(StreamStore.allocate(layout), 3, 2, True, np.random.default_rng(0))


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("burn_in", [0, 5])
def test_copies_come_back_as_they_were(kind: str, burn_in: int) -> None:
    place = place_of(LAYOUTS[kind](capacity=45), burn_in=burn_in)
    store, twin, rng = (
        place.store,
        Twin(place.store.layout, np.random.default_rng(1), end=0.3),
        np.random.default_rng(2),
    )
    copies, wanted = Copies(place, 12), {}
    for _ in range(24):
        for s in range(3):
            grow(store, twin, s, 5)
        if store.head[0] < 20:
            continue
        stream = rng.integers(3, size=6)
        row = np.array([rng.integers(max(0, store.head[s] - 30), store.head[s] - 4) for s in stream])
        batch, ok = read_items(store, place.items, stream, row, last=True, source=np.full(6, 3))
        columns = {name: value[torch.from_numpy(ok)] for name, value in columns_of(batch).items()}
        slot = rng.choice(12, int(ok.sum()), replace=False)
        copies.put(slot, columns)
        wanted |= {int(s): {name: value[i].clone() for name, value in columns.items()} for i, s in enumerate(slot)}
        asked = rng.choice(list(wanted), 5)
        kept = copies.choose(asked)
        assert kept.source.tolist() == [3] * 5
        read, ok = copies.read(kept)
        assert ok.all()
        for name, value in columns_of(read).items():
            for b, s in enumerate(asked):
                assert torch.equal(value[b], wanted[int(s)][name]), name
        assert kept.row.tolist() == [int(wanted[int(s)]["row"]) for s in asked]
    assert len(copies) == len(wanted) == 12


def test_of_a_stack_only_the_newest_frames_are_kept() -> None:
    place = place_of(image_layout())
    twin = Twin(place.store.layout, np.random.default_rng(0))
    grow(place.store, twin, 0, 5)
    batch, _ = read_items(
        place.store, place.items, np.zeros(1, np.int64), np.zeros(1, np.int64), last=True, source=np.zeros(1, np.int64)
    )
    copies = Copies(place, 2)
    copies.put(np.zeros(1, np.int64), columns_of(batch))
    assert copies.slots.take(SEEN + "observation", np.array([0])).shape == (1, 3 + 6, 1, 2, 3)
    kept = sum(value.nbytes for name, value in copies.state().items() if "columns" in name)
    assert kept <= copy_nbytes(place.store.layout) <= 1.3 * kept


def test_what_was_replaced_since_it_was_chosen_is_not_ok() -> None:
    place = place_of(vector_layout(core_state={}))
    twin = Twin(place.store.layout, np.random.default_rng(0))
    for _ in range(3):
        grow(place.store, twin, 0, 5)
    copies, zeros = Copies(place, 2), np.zeros(2, np.int64)
    batch, _ = read_items(place.store, place.items, zeros, np.array([0, 5]), last=True, source=zeros)
    copies.put(np.array([0, 1]), columns_of(batch))
    kept = copies.choose(np.array([1, 0, 1]))
    assert kept.row.tolist() == [5, 0, 5]
    copies.put(np.array([1]), {name: value[:1] for name, value in columns_of(batch).items()})
    assert copies.read(kept)[1].tolist() == [False, True, False]
    assert copies.read(kept[np.array([1])])[0].row.tolist() == [0]


@pytest.mark.parametrize("kind", ["image", "vector"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_newcomers_are_each_seen_once_or_missed(kind: str, seed: int) -> None:
    place = place_of(LAYOUTS[kind](), length=5 if kind == "image" else 4)
    length, store, rng = place.items.length, place.store, np.random.default_rng(seed)
    twin = Twin(store.layout, np.random.default_rng(seed))
    newcomers = Newcomers(place)
    seen: list[tuple[int, int]] = []
    for _ in range(60):
        for _ in range(int(rng.integers(1, 12))):
            grow(store, twin, int(rng.integers(3)), int(rng.integers(1, 6)))
        if rng.random() < 0.3:
            other = Newcomers(place)
            other.load_state(newcomers.state())
            newcomers = other
        expected = []
        for s in range(3):
            last = max([row for stream, row in seen if stream == s], default=-length)
            oldest = max(0, int(store.head[s]) - store.layout.capacity)
            rows = range(0, int(store.head[s]) - length + 1, length)
            reader = TwinReader(twin, True)
            expected += [(s, t) for t in rows if t > last and t >= oldest and reader.unroll(s, t, length) is not None]
        got = []
        for columns in newcomers.take():
            names = list(zip(columns["stream"].tolist(), columns["row"].tolist(), strict=True))
            assert len({s for s, _ in names}) == len(names)
            got += names
        assert sorted(got) == sorted(expected)
        assert [row for s, row in got if s == 0] == sorted(row for s, row in got if s == 0)
        seen += got
        assert len(seen) + newcomers.missed == sum(int(head) // length for head in store.head)
    assert newcomers.missed > 0 and len(seen) > 100 and len(set(seen)) == len(seen)
