"""Columns of a batch that one process has drawn and others read: each its share, from the same streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from offbeat.replay.columns import columns_of
from offbeat.replay.items import read_items
from offbeat.replay.sampler import Sampler, Selection
from offbeat.replay.streams import StreamStore
from offbeat.types import Batch, Unroll


@dataclass(frozen=True)
class Dealt:
    """Columns of a batch: where they lie, and what the mixture marks them with."""

    source: np.ndarray  # [B] int64, index of the sampler that chose them
    stream: np.ndarray  # [B] int64
    row: np.ndarray  # [B] int64
    replayed: np.ndarray  # [B] bool
    weight: np.ndarray | None = None  # [B] float32, importance weights over the whole batch; None: all are 1

    @classmethod
    def of(cls, batch: Batch) -> Dealt:
        """Those of a batch that was read; where it does not say, none is replayed."""
        source, stream, row = (values.cpu().numpy() for values in (batch.source, batch.stream, batch.row))
        new = np.zeros(len(row), bool) if batch.replayed is None else batch.replayed.cpu().numpy()
        return cls(source, stream, row, new)

    def __len__(self) -> int:
        """B."""
        return len(self.row)

    def __getitem__(self, at: np.ndarray) -> Dealt:
        """The columns ``at`` [n] int64."""
        weight = None if self.weight is None else self.weight[at]
        return Dealt(self.source[at], self.stream[at], self.row[at], self.replayed[at], weight)


def dealt_columns(parts: Sequence[tuple[Sampler, Selection]]) -> Dealt:
    """The columns of what each sampler of a mixture chose, in the batch's order."""
    source, stream, row = (np.concatenate([getattr(part, n) for _, part in parts]) for n in ("source", "stream", "row"))
    replayed, weight, weighted, at = np.zeros(len(row), bool), np.ones(len(row), np.float32), False, 0
    for sampler, part in parts:
        end = at + len(part.row)
        again, own = sampler.replayed(part), sampler.weights(part)
        replayed[at:end] = (not sampler.paces) if again is None else again
        if own is not None:
            weight[at:end], weighted = own, True
        at = end
    return Dealt(source, stream, row, replayed, weight if weighted else None)


def read_dealt(store: StreamStore, dealt: Dealt, last: bool, pacing: Sequence[int]) -> tuple[Batch, int]:
    """These columns as a batch, and how many had been overwritten meanwhile: another of the batch stands for each.

    ``pacing``: indices of the samplers that take each row once. RuntimeError where a column of theirs was overwritten,
    or none is left.
    """
    batch, ok = read_items(
        store, store.layout.items, dealt.stream, dealt.row, last=last, source=np.asarray(dealt.source)
    )
    batch.replayed = torch.from_numpy(dealt.replayed.copy())
    if dealt.weight is not None:
        batch.weight = torch.from_numpy(dealt.weight.copy())
    broken = np.flatnonzero(~ok)
    if len(broken):
        _stand_in(batch, dealt, ok, broken, pacing)
    if pacing and isinstance(batch, Unroll):
        new = np.flatnonzero(dealt.source == pacing[0])
        batch.fresh = transitions(batch, torch.from_numpy(new))
    return batch, len(broken)


def _stand_in(batch: Batch, dealt: Dealt, ok: np.ndarray, broken: np.ndarray, pacing: Sequence[int]) -> None:
    """Put readable columns in the place of the ``broken`` ones [n]."""
    if np.isin(dealt.source[broken], pacing).any() or not ok.any():
        gone = list(zip(dealt.stream[broken].tolist(), dealt.row[broken].tolist()))
        raise RuntimeError(
            f"items (stream, row) {gone} of a batch that several learners share were overwritten before they were "
            "copied; use a larger replay.capacity or window"
        )
    # One of its own sampler where there is one: shares of the batch stay as they are.
    fine = np.flatnonzero(ok)
    same = [fine[dealt.source[fine] == dealt.source[b]] for b in broken]
    chosen = [int(own[i % len(own)]) if len(own) else int(fine[i % len(fine)]) for i, own in enumerate(same)]
    index = torch.tensor(chosen)
    taken = {name: values[index].clone() for name, values in columns_of(batch).items()}
    for name, values in columns_of(batch).items():
        values[torch.from_numpy(broken)] = taken[name]


def transitions(batch: Unroll, columns: torch.Tensor) -> tuple[int, int]:
    """How many rows of these columns [n] int64 are transitions, and how many environment steps those took."""
    valid = batch.valid[:-1, columns]
    rows = int(valid.sum())
    return rows, rows if batch.elapsed is None else int(batch.elapsed[:, columns][valid].sum())
