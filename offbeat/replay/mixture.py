"""Mixtures: batches with fixed shares from several samplers over the same streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SamplerConfig:
    """One sampler of a mixture."""

    kind: Literal["fifo", "uniform"] = "fifo"
    """``fifo``: each row once, in order, holding actors back; ``uniform``: any unroll in the window, with replacement."""
    share: float = 1.0
    """Share of each batch. Shares sum to 1 and ``share * batch_size`` must be whole."""
    window: int = 0
    """Newest rows (all streams together) that may be drawn; 0: all that are kept. Unit: agent steps. Not for fifo."""
    min_rows: int = 0
    """Rows that must be stored before the first batch. Unit: agent steps. Not for fifo."""
    max_pending: int = 2
    """Unrolls per stream that actors may be ahead of the learner (fifo): bounds the policy lag."""


@dataclass(frozen=True)
class ReplayConfig:
    """What is kept and how batches are drawn from it."""

    capacity: int = 0
    """Rows kept, all streams together; 0: just what the fifo needs. Unit: agent steps."""
    samplers: tuple[SamplerConfig, ...] = (SamplerConfig(),)
    """Samplers that share each batch."""
