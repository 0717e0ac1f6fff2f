"""Slots against a dict, under random operations; unrolls in and out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from offbeat.replay.columns import columns_of, from_columns
from offbeat.replay.slots import SlotStore
from offbeat.replay.streams import StreamStore
from offbeat.types import Unroll
from tests.replay.twin import Twin, image_layout


def contents(rng: np.random.Generator, n: int) -> dict[str, torch.Tensor]:
    return {"a": torch.from_numpy(rng.normal(size=(n, 2, 3))), "b": torch.from_numpy(rng.integers(0, 9, n))}


def test_random_operations_match_a_dict() -> None:
    rng = np.random.default_rng(0)
    store = SlotStore(6)
    held: dict[int, tuple[int, dict[str, torch.Tensor]]] = {}  # slot -> stamp, content
    named: list[tuple[int, int]] = []  # every (slot, stamp) there ever was
    for turn in range(400):
        slots = rng.permutation(6)[: rng.integers(1, 5)]
        new = contents(rng, len(slots))
        if rng.random() < 0.4:
            stamps = store.put(slots, new)
            for i, (slot, stamp) in enumerate(zip(slots.tolist(), stamps.tolist())):
                assert (slot, stamp) not in named
                held[slot] = (stamp, {name: value[i] for name, value in new.items()})
                named.append((slot, stamp))
        elif named:
            pick = dict(named[i] for i in rng.integers(len(named), size=3))
            slot, stamp = np.array(list(pick.keys())), np.array(list(pick.values()))
            alive = [held.get(s, (0, {}))[0] == t for s, t in pick.items()]
            got, ok = store.get(slot, stamp)
            assert ok.tolist() == alive
            for i in np.flatnonzero(ok):
                for name, value in held[int(slot[i])][1].items():
                    assert torch.equal(got[name][i], value)
            if rng.random() < 0.5:
                new = contents(rng, len(slot))
                assert store.update(slot, stamp, {"b": new["b"]}).tolist() == alive
                for i in np.flatnonzero(ok):
                    held[int(slot[i])][1]["b"] = new["b"][i]
            elif rng.random() < 0.3:
                assert store.remove(slot, stamp).tolist() == alive
                for i in np.flatnonzero(ok):
                    del held[int(slot[i])]
        assert len(store) == len(held)
        if turn % 50 == 49:
            saved, store = store.state(), SlotStore(6)
            store.load_state(saved)


def test_mistakes_are_refused() -> None:
    store, rng = SlotStore(4), np.random.default_rng(0)
    stamp = store.put(np.array([0, 1]), contents(rng, 2))
    with pytest.raises(ValueError, match=r"slots \[2, 2\] must be different"):
        store.put(np.array([2, 2]), contents(rng, 2))
    with pytest.raises(ValueError, match=r"unknown \[\], missing \['b'\]"):
        store.put(np.array([2]), {"a": contents(rng, 1)["a"]})
    with pytest.raises(ValueError, match=r"slot column 'b' must be torch.int64 \[\], got torch.float32 \[\]"):
        store.update(np.array([0]), stamp[:1], {"b": torch.zeros(1)})
    with pytest.raises(ValueError, match="saved slots: 4, this store has 5"):
        SlotStore(5).load_state(store.state())
    with pytest.raises(ValueError, match="num_slots=0"):
        SlotStore(0)
    assert not store.holds(np.array([3]), np.array([0])).any()


def test_unrolls_survive_the_way_through_slots() -> None:
    layout = image_layout()
    streams, twin = StreamStore.allocate(layout), Twin(layout, np.random.default_rng(0))
    for s in range(3):
        for _ in range(10):
            twin.step(s)
        streams.append(twin.block([s], 5))
        streams.append(twin.block([s], 5))
    batch, ok = streams.read_unrolls(np.arange(3), np.full(3, 5), 4, last=True)
    assert ok.all()
    slots = SlotStore(8)
    where = np.array([5, 0, 3])
    stamp = slots.put(where, columns_of(batch))
    got, fine = slots.get(where[::-1].copy(), stamp[::-1].copy())
    assert fine.all()
    again = from_columns(Unroll, got)
    assert again.stream.tolist() == [2, 1, 0]
    assert again.inputs.observation["observation"].is_contiguous()
    flip = torch.tensor([2, 1, 0])
    for name, value in columns_of(batch).items():
        assert torch.equal(columns_of(again)[name], value[flip]), name
