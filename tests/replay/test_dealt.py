"""Columns that one process draws and others read: marks, stand-ins for what was overwritten, transitions counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from offbeat.replay.columns import columns_of
from offbeat.replay.dealt import Dealt, dealt_columns, read_dealt
from offbeat.replay.mixture import Mixture
from tests.runtime.test_batches import FIFO, MIXED, Streams


def drawn(streams: Streams) -> tuple[Mixture, Any, Dealt]:
    """A draw of the streams' mixture, with its columns."""
    parts = streams.mixture.draw()
    assert parts is not None
    return streams.mixture, parts, dealt_columns(parts)


@pytest.mark.parametrize("replay", [FIFO, MIXED])
def test_shares_together_are_the_batch_that_the_mixture_copies(replay: Any) -> None:
    streams = Streams(replay)
    streams.grow(3)
    mixture, parts, dealt = drawn(streams)
    whole = mixture.copy(parts)
    assert whole is not None
    pacing = [index for index, sampler in enumerate(mixture.samplers) if sampler.paces]
    shares = [read_dealt(streams.store, dealt[np.array(at)], True, pacing) for at in ([1], [0])]
    assert [dropped for _, dropped in shares] == [0, 0]
    columns = columns_of(whole)
    for name, values in columns.items():
        pair = torch.cat([columns_of(shares[1][0])[name], columns_of(shares[0][0])[name]])
        torch.testing.assert_close(pair, values, rtol=0, atol=0, msg=name)
    fresh = np.array([batch.fresh for batch, _ in shares])  # type: ignore[union-attr]
    assert fresh.sum(0).tolist() == list(whole.fresh)  # type: ignore[union-attr]
    assert Dealt.of(whole).replayed.tolist() == dealt.replayed.tolist()


def test_a_share_may_hold_nothing() -> None:
    streams = Streams()
    streams.grow(2)
    _, _, dealt = drawn(streams)
    batch, dropped = read_dealt(streams.store, dealt[np.zeros(0, np.int64)], True, [0])
    assert (len(batch.stream), batch.rows, batch.fresh, dropped) == (0, 0, (0, 0), 0)  # type: ignore[union-attr]


def test_what_was_overwritten_is_stood_in_for_by_another_column_of_its_sampler() -> None:
    streams = Streams(MIXED)
    streams.grow(2)
    gone, there = np.array([0, 0, 1, 0]), np.array([40, 5, 5, 0])  # row 40 is not there yet
    dealt = Dealt(np.array([1, 0, 1, 0]), gone, there, np.array([True, False, True, False]), np.float32([1, 2, 3, 4]))
    batch, dropped = read_dealt(streams.store, dealt, True, [0])
    assert dropped == 1
    assert batch.row.tolist() == [5, 5, 5, 0] and batch.stream.tolist() == [1, 0, 1, 0]
    assert batch.weight is not None and batch.weight.tolist() == [3, 2, 3, 4]
    with pytest.raises(RuntimeError, match=r"items \(stream, row\) \[\(0, 40\)\] .* use a larger replay.capacity"):
        read_dealt(streams.store, Dealt(np.array([0]), *(values[:1] for values in (gone, there)), np.array([False])),
                   True, [0])  # fmt: skip
    with pytest.raises(RuntimeError, match="overwritten before they were copied"):
        read_dealt(streams.store, dealt[np.array([0])], True, [0])
