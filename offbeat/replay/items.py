"""What a learner trains on: the items of replay, and how they are read from the streams."""

from __future__ import annotations

import numpy as np
import torch

from offbeat.replay.streams import StreamStore
from offbeat.types import Batch, ItemSpec

__all__ = ["ItemSpec", "read_items"]


def read_items(
    store: StreamStore, items: ItemSpec, stream: np.ndarray, row: np.ndarray, *, last: bool, source: np.ndarray
) -> tuple[Batch, np.ndarray]:
    """The items (stream [B], row [B]) as one batch, and ok [B]; False: don't use. The batch names them by ``row``."""
    if items.kind == "unroll":
        unroll, ok = store.read_unrolls(stream, row, items.length, last=last, source=source)
        if items.burn_in:
            unroll.before = store.read_before(stream, row, items.burn_in, last=last)
        return unroll, ok
    if items.kind == "transition":
        return store.read_transitions(stream, row, items.n, last=last, source=source)
    age = store.take("age", store.locate(stream, row)).astype(np.int64)
    before = np.minimum(age, items.burn_in)
    sequence, ok = store.read_sequences(
        stream,
        row - before,
        items.burn_in,
        items.length,
        items.n,
        last=last,
        source=source,
        padding=items.burn_in - before,
    )
    sequence.row = torch.from_numpy(row.copy())
    return sequence, ok
