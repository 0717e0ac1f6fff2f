"""The master that asynchronous learners share: weights, statistics and counters in shared memory, whole at any moment.

There are two copies and a version, whose lowest bit names the copy that counts. A learner whose turn it is reads that
one, makes its step, writes the other one, and then moves the version on: one aligned store, so a learner that dies
anywhere before it has changed nothing. Readers without a turn look at the version again after they have copied: the
copy that they read is written to only after it has moved.

The turn is a lock of the file behind the memory, which the system gives back when its holder dies. Who waits for it
sleeps on a bell that whoever ends a turn rings; nobody rings for the dead, so a waiter also looks by itself twice a
second.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from offbeat.runtime.learner_report import COUNTERS
from offbeat.runtime.shm import Bell, SharedArrays, Wait
from offbeat.types import ArraySpec

MOST_STALE = 63
"""Staleness from here on is counted together."""
NUMBERS = ("steps", *COUNTERS)
"""Numbers of the master: steps of the optimiser, and the learner's counters."""


def master_arrays(size: int, vectors: int, learners: int) -> dict[str, ArraySpec]:
    """The arrays of a master of ``vectors`` vectors [P], P = ``size``, for so many learners."""
    return {
        "vectors": ArraySpec((2, vectors, size), "float32"),
        "numbers": ArraySpec((2, len(NUMBERS)), "int64"),
        "staleness": ArraySpec((2, MOST_STALE + 1), "int64"),
        "version": ArraySpec((1,), "int64"),
        "before": ArraySpec((2,), "int64"),
        "drawn": ArraySpec((learners,), "int64"),
    }


class MasterStore:
    """One learner's end of the master; see ``offbeat.runtime.ports.Master``.

    Args:
        memory: as ``master_arrays`` describes it.
        bells: one for each learner.
        learner: which of them this is.
        wait: how it sleeps, on its own bell; None: nobody else is there.
        guard: a lock for machines that reorder stores; see ``shm``.
    """

    def __init__(
        self,
        memory: SharedArrays,
        bells: Sequence[Bell] = (),
        learner: int = 0,
        wait: Wait | None = None,
        guard: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._lock, self.wait = memory.lock(), wait
        self._guard = guard if guard is not None else nullcontext()
        self._vectors, self._numbers, self._staleness = (memory[name] for name in ("vectors", "numbers", "staleness"))
        self._version = memory["version"]
        self._others = [bell for index, bell in enumerate(bells) if index != learner]

    def version(self) -> int:
        """How many changes there were; 0: it is empty."""
        with self._guard:
            return int(self._version[0])

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Nobody else changes it meanwhile."""
        if self.wait is None:
            taken = self._lock.try_acquire()
            assert taken, "nobody waits in rounds, where a learner is alone"
        else:
            self.wait.until("turn", self._lock.try_acquire)
        try:
            yield
        finally:
            self._lock.release()
            for bell in self._others:
                bell.ring()

    def read(self, vectors: Sequence[torch.Tensor]) -> tuple[int, dict[str, int]]:
        """Copy the first ``len(vectors)`` vectors [P] into these (any device); the version and the numbers with them.

        All are of one moment, also without a turn.
        """
        while True:
            version = self.version()
            copy = version & 1
            for mine, row in zip(vectors, self._vectors[copy]):
                mine.copy_(torch.from_numpy(row))
            numbers = dict(zip(NUMBERS, self._numbers[copy].tolist(), strict=True))
            if self.version() == version:
                return version, numbers

    def staleness(self) -> list[int]:
        """How many steps were made with a gradient that was 0, 1, 2, ... updates old."""
        while True:
            version = self.version()
            counts: list[int] = self._staleness[version & 1].tolist()
            if self.version() == version:
                return counts

    def set_staleness(self, counts: Sequence[int]) -> None:
        """Go on from these counts, before the first change."""
        self._staleness[:, : len(counts)] = list(counts)[: MOST_STALE + 1]

    def commit(self, vectors: Sequence[torch.Tensor], numbers: Mapping[str, int], stale: int | None) -> int:
        """In a turn: make all of this the newest at once; the new version.

        Args:
            vectors: all of them [P].
            numbers: all of ``NUMBERS``.
            stale: updates between taking and applying the gradient of this change; None: it was no step.
        """
        version = int(self._version[0])
        old, new = version & 1, 1 - (version & 1)
        for row, mine in zip(self._vectors[new], vectors, strict=True):
            torch.from_numpy(row).copy_(mine)
        self._numbers[new] = [numbers[name] for name in NUMBERS]
        self._staleness[new] = self._staleness[old]
        if stale is not None:
            self._staleness[new, min(stale, MOST_STALE)] += 1
        with self._guard:  # all of it is there before anybody is told
            self._version[0] = version + 1
        return version + 1


class SharedMaster:
    """The master's memory and its learners' bells. Travels to processes at spawn."""

    def __init__(self, size: int, vectors: int, learners: int, guard: AbstractContextManager[Any] | None) -> None:
        self.memory, self._guard = SharedArrays(master_arrays(size, vectors, learners)), guard
        self.bells = [Bell() for _ in range(learners)]

    def store(self, learner: int = 0, wait: Wait | None = None) -> MasterStore:
        """The end of one learner; one that waits does so on ``bells[learner]``."""
        return MasterStore(self.memory, self.bells, learner, wait, self._guard)

    @property
    def before(self) -> np.ndarray:
        """What is added to the streams' agent steps and frames to have those of the run, [2] int64."""
        return self.memory["before"]

    @property
    def drawn(self) -> np.ndarray:
        """Rows that each learner has drawn, [learners] int64: for rate control."""
        return self.memory["drawn"]

    def close(self) -> None:
        """Give memory and bells back."""
        self.memory.close()
        for bell in self.bells:
            bell.close()
