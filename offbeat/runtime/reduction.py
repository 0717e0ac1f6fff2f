"""Learners that step together: each gives the gradient of its share, all take the sum, added up in a fixed order.

There are two sets of places, used by turns. Who gives again has taken the sum of the round before, and so had everybody
given then; whoever still adds up that round does so in the other set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offbeat.runtime.ports import GIVEN, Together
from offbeat.runtime.shm import Bell, SharedArrays, Wait
from offbeat.types import ArraySpec

MOST_FOUND = 4
"""Kinds of feedback for samplers that a loss may give."""


def reduction_arrays(size: int, batch: int, learners: int, dtype: str = "float32") -> dict[str, ArraySpec]:
    """The arrays for gradients [P], P = ``size``, of so many learners that share batches of ``batch`` columns."""
    return {
        "gradient": ArraySpec((2, learners, size), dtype),
        "numbers": ArraySpec((2, learners, len(GIVEN)), "float64"),
        "found": ArraySpec((2, learners, MOST_FOUND, batch), "float64"),
        "columns": ArraySpec((2, learners), "int64"),
        "given": ArraySpec((learners,), "int64"),
        "counts": ArraySpec((2, 2), "int64"),
        "counted": ArraySpec((1,), "int64"),
    }


class ReductionStore:
    """One learner's end; see ``offbeat.runtime.ports.Reduction``.

    Args:
        memory: as ``reduction_arrays`` describes it.
        bells: one for each learner.
        learner: which of them this is.
        wait: how it sleeps, on its own bell; None: never.
        guard: a lock for machines that reorder stores; see ``shm``.
    """

    def __init__(
        self,
        memory: SharedArrays,
        bells: Sequence[Bell],
        learner: int,
        wait: Wait | None = None,
        guard: AbstractContextManager[Any] | None = None,
    ) -> None:
        self._arrays, self.wait, self._learner, self._round = memory, wait, learner, 0
        self._guard = guard if guard is not None else nullcontext()
        self._given, self._counted = memory["given"], memory["counted"]
        self._others = [bell for index, bell in enumerate(bells) if index != learner]

    def give(self, gradient: Tensor, numbers: Mapping[str, float], found: Mapping[str, Tensor]) -> None:
        """What this learner has collected for the next round: see the port."""
        half, mine = self._round & 1, self._learner
        torch.from_numpy(self._arrays["gradient"][half, mine]).copy_(gradient)
        self._arrays["numbers"][half, mine] = [numbers[name] for name in GIVEN]
        if len(found) > MOST_FOUND:
            raise ValueError(f"feedback: expected at most {MOST_FOUND} kinds, got {len(found)}: {sorted(found)}")
        columns = 0
        for place, name in enumerate(sorted(found)):
            values = found[name].detach().double().cpu().numpy()
            columns = len(values)
            self._arrays["found"][half, mine, place, :columns] = values
        self._arrays["columns"][half, mine] = columns
        with self._guard:  # all of it is there before anybody is told
            self._given[mine] = self._round + 1
        self._ring()

    def together(self, names: Sequence[str], timeout_s: float) -> Together | None:
        """What all have given; None if one has not within the time: see the port."""
        if not self._until("other learners", self._all_given, timeout_s):
            return None
        half = self._round & 1
        rows = torch.from_numpy(self._arrays["gradient"][half])
        gradient = rows[0].clone()
        for row in rows[1:]:
            gradient += row
        numbers = self._arrays["numbers"][half]
        columns, found = self._arrays["columns"][half], self._arrays["found"][half]
        each = {
            name: torch.from_numpy(np.concatenate([mine[place, :n] for mine, n in zip(found, columns, strict=True)]))
            for place, name in enumerate(sorted(names))
        }
        self._round += 1
        return Together(gradient, {name: numbers[:, i].tolist() for i, name in enumerate(GIVEN)}, each)

    def count(self, steps: int, frames: int) -> None:
        """By the first learner: where the run is after the round that was taken last."""
        self._arrays["counts"][self._round & 1] = steps, frames
        with self._guard:
            self._counted[0] = self._round
        self._ring()

    def counts(self) -> tuple[int, int]:
        """What the first learner has said of the round that was taken last, once it has."""
        self._until("the first learner", self._is_counted)
        steps, frames = self._arrays["counts"][self._round & 1].tolist()
        return steps, frames

    def _all_given(self) -> bool:
        with self._guard:
            return bool(self._given.min() > self._round)

    def _is_counted(self) -> bool:
        with self._guard:
            return bool(self._counted[0] >= self._round)

    def _until(self, name: str, ready: Any, timeout_s: float = float("inf")) -> bool:
        if self.wait is None:
            return bool(ready())
        return self.wait.until(name, ready, timeout_s)

    def _ring(self) -> None:
        for bell in self._others:
            bell.ring()


class SharedReduction:
    """The memory and its learners' bells. Travels to processes at spawn."""

    def __init__(
        self,
        size: int,
        batch: int,
        learners: int,
        guard: AbstractContextManager[Any] | None,
        dtype: str = "float32",
    ) -> None:
        self.memory, self._guard = SharedArrays(reduction_arrays(size, batch, learners, dtype)), guard
        self.bells = [Bell() for _ in range(learners)]

    def end(self, learner: int, wait: Wait | None = None) -> ReductionStore:
        """The end of one learner; one that waits does so on ``bells[learner]``."""
        return ReductionStore(self.memory, self.bells, learner, wait, self._guard)

    def clear(self) -> None:
        """All learners are gone; others begin with the first round."""
        for name in ("given", "counted"):
            self.memory[name][:] = 0

    def close(self) -> None:
        """Give memory and bells back."""
        self.memory.close()
        for bell in self.bells:
            bell.close()
