"""Batches of every kind as columns, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay.columns import columns_of, from_columns, join_columns, paste_columns
from offbeat.replay.items import read_items
from offbeat.replay.streams import StreamStore
from offbeat.types import Batch, ItemSpec, Sequence, Transition, Unroll
from tests.replay.episodes import Episodes, item_layout

KINDS = {
    Unroll: ItemSpec("unroll", length=3),
    Transition: ItemSpec(n=2),
    Sequence: ItemSpec("sequence", n=2, length=4, burn_in=2, period=4),
}


def read(items: ItemSpec, seed: int, count: int = 5) -> Batch:
    """Items of one long episode in each of two streams, all with weights."""
    store = StreamStore.allocate(item_layout(items, num_streams=2))
    episodes = Episodes(store, lambda: 100)
    for _ in range(8):
        episodes.round()
    rng = np.random.default_rng(seed)
    row = rng.integers(1, 4, count) * 4
    batch, ok = read_items(store, items, rng.integers(0, 2, count), row, last=True, source=np.arange(count) % 3)
    assert ok.all()
    batch.weight = torch.rand(count)
    batch.replayed = torch.arange(count) % 2 == 0
    return batch


def same(one: Any, other: Any) -> bool:
    """Whether two batches are equal, tensor by tensor, and lie alike in memory."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if hasattr(one, "__dataclass_fields__"):
        return type(one) is type(other) and same(vars(one), vars(other))
    return bool(one == other)


@pytest.mark.parametrize("kind", list(KINDS))
def test_batches_come_back_whole(kind: type[Any]) -> None:
    batch = read(KINDS[kind], seed=0)
    assert type(batch) is kind
    columns = columns_of(batch)
    assert {len(value) for value in columns.values()} == {5}
    assert {"weight", "replayed", "source", "inputs/observation/observation", "inputs/last_action"} <= columns.keys()
    others = {"burn_in": 2} if kind is Sequence else {}
    assert same(from_columns(kind, columns, **others), batch)
    assert ("mask" in columns) == (kind is Sequence)


def test_the_rows_before_an_unroll_come_along() -> None:
    items = ItemSpec("unroll", length=3, burn_in=4)
    batch = read(items, seed=0)
    assert isinstance(batch, Unroll)
    assert batch.before is not None
    assert batch.before.inputs.shape == (5, 5)
    columns = columns_of(batch)
    assert {len(value) for value in columns.values()} == {5}
    assert same(from_columns(Unroll, columns), batch)
    other = read(items, seed=2, count=3)
    joined = columns_of(join_columns([batch, other]))
    for name, value in columns.items():
        assert torch.equal(joined[name], torch.cat([value, columns_of(other)[name]])), name


@pytest.mark.parametrize("kind", list(KINDS))
def test_joined_and_pasted_columns_are_those_of_their_batches(kind: type[Any]) -> None:
    one, other = read(KINDS[kind], seed=1), read(KINDS[kind], seed=2, count=3)
    joined = join_columns([one, other])
    parts = columns_of(joined)
    for name, value in columns_of(one).items():
        assert torch.equal(parts[name], torch.cat([value, columns_of(other)[name]])), name
    assert getattr(joined, "burn_in", 0) == getattr(one, "burn_in", 0)
    paste_columns(one, other, torch.tensor([4, 0, 2]))
    for name, value in columns_of(one).items():
        assert torch.equal(value[[4, 0, 2]], columns_of(other)[name]), name


def test_batches_with_other_columns_do_not_join() -> None:
    one, other = read(KINDS[Transition], seed=1), read(KINDS[Transition], seed=2)
    other.weight = None
    with pytest.raises(ValueError, match=r"columns \['weight'\] are in some of the batches only"):
        join_columns([one, other])
