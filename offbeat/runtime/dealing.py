"""The items of each batch, dealt to learners that step together: the first draws, each copies and trains on its share.

A few rounds of what was drawn lie in shared memory. A round is written over once every learner has copied its share of
the one that was there; only then are writers of the streams let on, too.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from offbeat.replay.dealt import Dealt
from offbeat.runtime.shm import Bell, SharedArrays
from offbeat.types import ArraySpec

ROUNDS = 64
"""Batches that may be dealt and not yet copied by all."""


def dealing_arrays(batch: int, learners: int) -> dict[str, ArraySpec]:
    """The arrays for batches of ``batch`` items among so many learners."""
    numbers = {name: ArraySpec((ROUNDS, batch), "int64") for name in ("source", "stream", "row", "owner")}
    return numbers | {
        "replayed": ArraySpec((ROUNDS, batch), "bool"),
        "weight": ArraySpec((ROUNDS, batch), "float32"),
        "weighted": ArraySpec((ROUNDS,), "bool"),
        "dealt": ArraySpec((1,), "int64"),
        "copied": ArraySpec((learners,), "int64"),
    }


@dataclass(frozen=True)
class Deal:
    """One batch, and who has which of its columns."""

    columns: Dealt
    owner: np.ndarray  # [B] int64, a learner

    def share(self, learner: int) -> Dealt:
        """The columns of one learner, in their order."""
        return self.columns[np.flatnonzero(self.owner == learner)]

    def together(self) -> Dealt:
        """All columns, one learner's after the other's: as what learners find out comes in."""
        return self.columns[np.argsort(self.owner, kind="stable")]


def owners(stream: np.ndarray, learners: int, consecutive: bool) -> np.ndarray:
    """Who has which column [B]: by ``stream`` [B] where a learner keeps something for each, else by turns."""
    return stream % learners if consecutive else np.arange(len(stream)) % learners


class Dealing:
    """One learner's end.

    Args:
        memory: as ``dealing_arrays`` describes it.
        learner: which this is.
        guard: a lock for machines that reorder stores; see ``shm``.
    """

    def __init__(self, memory: SharedArrays, learner: int, guard: AbstractContextManager[Any] | None = None) -> None:
        self._arrays, self.learner = memory, learner
        self._guard = guard if guard is not None else nullcontext()
        self._dealt, self._copied = memory["dealt"], memory["copied"]

    @property
    def learners(self) -> int:
        """How many there are."""
        return len(self._copied)

    def dealt(self) -> int:
        """Batches dealt so far."""
        with self._guard:
            return int(self._dealt[0])

    def has_room(self) -> bool:
        """Whether another batch may be dealt."""
        with self._guard:
            return int(self._dealt[0] - self._copied.min()) < ROUNDS

    def deal(self, deal: Deal) -> int:
        """Deal the next batch, by the first learner, where there is room; its number, 0 for the first."""
        number, columns = int(self._dealt[0]), deal.columns
        at = number % ROUNDS
        for name in ("source", "stream", "row", "replayed"):
            self._arrays[name][at] = getattr(columns, name)
        self._arrays["owner"][at] = deal.owner
        self._arrays["weighted"][at] = columns.weight is not None
        if columns.weight is not None:
            self._arrays["weight"][at] = columns.weight
        with self._guard:  # all of it is there before anybody is told
            self._dealt[0] = number + 1
        return number

    def read(self, number: int) -> Deal:
        """A batch that was dealt and that this learner has not said to have copied."""
        at = number % ROUNDS
        source, stream, row, replayed = (self._arrays[n][at].copy() for n in ("source", "stream", "row", "replayed"))
        weight = self._arrays["weight"][at].copy() if self._arrays["weighted"][at] else None
        return Deal(Dealt(source, stream, row, replayed, weight), self._arrays["owner"][at].copy())

    def copied(self, number: int) -> None:
        """This learner has copied its share of all batches up to this one."""
        with self._guard:
            self._copied[self.learner] = number + 1

    def copied_by_all(self, number: int) -> bool:
        """Whether every learner has copied its share of this batch."""
        with self._guard:
            return bool(self._copied.min() > number)


class SharedDealing:
    """The memory, and the bell that the first learner waits on for others' copies. Travels to processes at spawn."""

    def __init__(self, batch: int, learners: int, guard: AbstractContextManager[Any] | None) -> None:
        self.memory, self._guard, self.bells = SharedArrays(dealing_arrays(batch, learners)), guard, [Bell()]

    def end(self, learner: int) -> Dealing:
        """The end of one learner."""
        return Dealing(self.memory, learner, self._guard)

    def clear(self) -> None:
        """All learners are gone; others begin with the first batch."""
        for name in ("dealt", "copied"):
            self.memory[name][:] = 0

    def close(self) -> None:
        """Give memory and bell back."""
        self.memory.close()
        self.bells[0].close()
