"""The ports that roles hold. A role talks to the rest of the run through these and nothing else; engines provide them.

Ports move blocks, never single rows. Every method that may wait takes a timeout and raises ``Stopped`` when the run ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from offbeat.types import ActOutput, ArrayDict, CoreState, Inputs, Unroll


class Stopped(Exception):
    """Raised by a waiting port when the run is asked to stop."""


@dataclass
class StreamBlock:
    """Consecutive rows of some streams, complete, and the observation that follows the last (the *open row*).

    Arrays are [n, L, ...]: n streams, L rows each. ``open_row`` holds observation, ``first`` and ``valid`` of the row
    after them: [n, ...]. ``core_state`` holds states to keep: for entry i the state before row ``core_row[i]`` (offset
    in the block) of ``streams[core_stream[i]]``.
    """

    streams: np.ndarray  # [n] int64
    columns: ArrayDict  # name -> [n, L, ...]
    open_row: ArrayDict  # name -> [n, ...]
    core_stream: np.ndarray  # [m] int64, index into ``streams``
    core_row: np.ndarray  # [m] int64, 0 <= offset < L
    core_state: ArrayDict  # name -> [m, ...]


class StreamWriter(Protocol):
    """The writing end of the streams that one actor owns."""

    def append(self, block: StreamBlock) -> None:
        """Append; waits while a fifo still needs the rows that would be overwritten (back-pressure)."""

    def produced(self, streams: np.ndarray) -> None:
        """Count one produced row for each of these streams, also if the block that holds it is never appended."""

    def attach(self, streams: np.ndarray) -> ArrayDict | None:
        """Take over streams. None if they are empty, else the open rows (name -> [n, ...]) that an earlier writer left."""


class BatchSource(Protocol):
    """Where a learner's batches come from."""

    def next(self, timeout_s: float) -> Unroll | None:
        """The next assembled batch on the learner's device; None if there was none within the time."""

    def done(self, batch: Unroll) -> None:
        """The batch was trained on (ledger)."""


class ParamPublisher(Protocol):
    """The learner's end of the weights."""

    def publish(self, flat: torch.Tensor, version: int) -> bool:
        """Copy the flat weight vector [P] float32 into a free slot; False (and counted) if none is free."""


class ParamReader(Protocol):
    """A reader's end of the weights."""

    def version(self) -> int:
        """The newest published version; 0 before the first update."""

    def pull(self, flat: torch.Tensor) -> int:
        """Copy the newest weights into ``flat`` [P] and return their version; never torn."""


class PrioritySink(Protocol):
    """Where new priorities of sampled items go."""

    def update(self, stream: np.ndarray, row: np.ndarray, priority: np.ndarray) -> None:
        """New priorities [B] of items named by stream [B] and row [B]."""


class Policy(Protocol):
    """Who chooses actions for an actor: its own network, or an inference server."""

    def act(self, env_ids: np.ndarray, inputs: Inputs) -> ActOutput:
        """Actions for these environments (T = 1). The recurrent state lives behind this port, one per environment."""

    def core_state(self, env_ids: np.ndarray) -> CoreState:
        """The state *before* the next ``act``, of these environments: name -> [n, ...]."""

    def refresh(self) -> int:
        """Take newer weights if there are any; the version that acts from now on."""


class MetricSink(Protocol):
    """Where numbers go."""

    def write(self, kind: str, values: dict[str, float]) -> None:
        """One record, e.g. kind ``episode`` with return and length."""


class StopSignal(Protocol):
    """Whether the run is over."""

    def is_set(self) -> bool:
        """True once the run should end at the next boundary."""
