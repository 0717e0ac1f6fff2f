"""Staggering: when each of several inference processes starts and publishes, so that actions come evenly.

Source: Riemer et al. 2025, "Enabling Realtime Reinforcement Learning at Scale with Staggered Asynchronous Inference",
algorithms 1 (largest time) and 2 (mean time). Differs from the paper: slots are absolute. Action k is due at
``anchor + k T / N``, where the paper hands increments of waiting time around the cycle, whose rounding and lost updates
let processes in flight keep old deadlines and spacing collapse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import numpy as np

Estimator = Literal["max", "mean", "quantile"]
WINDOW = 512
"""Newest inference times that mean and quantile are taken over."""
ANCHOR, PERIOD = 0, 1


def stagger_arrays(workers: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """What a ``Stagger`` of so many workers keeps: name -> (shape, dtype), for memory that processes share."""
    return {
        "plan": ((2, 2), "float64"),  # anchor and period, twice: one is current, the other is written
        "current": ((1,), "int64"),
        "slot": ((workers,), "int64"),
        "there": ((workers,), "bool"),
        "times": ((WINDOW,), "float64"),
        "counts": ((3,), "int64"),  # inferences measured, slots skipped, anchors moved
    }


class Stagger:
    """The slots of ``workers`` inference processes. It has no clock: callers say what the time is.

    The order of calls for a worker: ``start_at`` (ask again on waking: it may have moved), ``finished``, ``publish_at``
    (the same), ``published``. Times are seconds of one clock.

    With ``max`` an action waits for its slot, and a worker that is later than its slot, because its inference took
    longer than any before, makes the period that long and its slot now: spacing stays even. With ``quantile`` an action
    waits for its slot too, and one that is late is published at once, without moving the others. With ``mean`` none
    waits: the mean spacing is the mean inference time over the number of workers, and its variance is larger.

    Args:
        workers: how many there are, N >= 1; numbered from 0.
        estimator: what the period T is made of: the largest inference time so far, or the mean or a quantile of the
            newest 512.
        initial_s: T before any inference was measured; > 0. Unit: seconds.
        start_s: when worker 0 starts first.
        storage: arrays as ``stagger_arrays`` describes them, shared or private, filled by the first ``Stagger`` over
            them; None: private ones.
        fresh: fill the storage; False: it is in use.
        guard: a lock for all who share the storage.
        quantile: of ``quantile``, in (0, 1].
        least_s: T is at least so long: N frames, say, where more actions than frames would be for nothing.
        grid_s: where T is ``least_s``, slots stay on the grid of ``start_s`` plus multiples of this; 0: there is none.
    """

    def __init__(
        self,
        workers: int,
        estimator: Estimator = "max",
        initial_s: float = 0.01,
        *,
        start_s: float = 0.0,
        storage: dict[str, np.ndarray] | None = None,
        fresh: bool = True,
        guard: AbstractContextManager[Any] | None = None,
        quantile: float = 0.9,
        least_s: float = 0.0,
        grid_s: float = 0.0,
    ) -> None:
        if workers < 1:
            raise ValueError(f"workers={workers} is out of range; allowed: 1 or above")
        if estimator not in (allowed := get_args(Estimator)):
            raise ValueError(f"estimator={estimator!r} is not allowed; choose one of: {', '.join(allowed)}")
        if not initial_s > 0:
            raise ValueError(f"initial_s={initial_s} is out of range; allowed: above 0")
        if not 0.0 < quantile <= 1.0:
            raise ValueError(f"quantile={quantile} is out of range; allowed: above 0, up to 1")
        if least_s < 0 or grid_s < 0:
            raise ValueError(f"least_s={least_s}, grid_s={grid_s}: allowed: 0 or above")
        self.workers, self.estimator, self.quantile = workers, estimator, quantile
        self.least_s, self.grid_s, self._start_s = least_s, grid_s, start_s
        self._guard = guard if guard is not None else nullcontext()
        arrays = storage or {name: np.zeros(*made) for name, made in stagger_arrays(workers).items()}
        self._plan, self._current, self._slot = arrays["plan"], arrays["current"], arrays["slot"]
        self._there, self._times, self._counts = arrays["there"], arrays["times"], arrays["counts"]
        if fresh:
            period = max(initial_s, least_s)
            self._slot[:], self._there[:], self._counts[:], self._current[0] = np.arange(workers), True, 0, 0
            self._plan[0] = start_s + period, period

    @property
    def period_s(self) -> float:
        """T: what an inference is taken to last. Slots lie ``period_s / count`` apart."""
        return float(self._plan[self._current[0], PERIOD])

    @property
    def count(self) -> int:
        """N: the workers that are there."""
        return int(np.count_nonzero(self._there))

    @property
    def spacing_s(self) -> float:
        """Between two slots."""
        return self.period_s / max(1, self.count)

    @property
    def skipped(self) -> int:
        """Slots that nobody published in because their worker was more than a whole period late."""
        return int(self._counts[1])

    def __contains__(self, worker: int) -> bool:
        return bool(self._there[worker])

    def start_at(self, worker: int) -> float:
        """When its next inference starts. KeyError for a worker that was removed."""
        return self._due(self._known(worker)) - self.period_s  # a single look: who waits for it asks again

    def finished(self, worker: int, started_s: float, now_s: float) -> float:
        """Its inference, begun at ``started_s``, has ended; when its action is to be published."""
        if now_s < started_s:
            raise ValueError(f"now_s={now_s} is before started_s={started_s}")
        with self._guard:
            worker = self._known(worker)
            due, before, took = self._due(worker), self.period_s, now_s - started_s
            self._times[self._counts[0] % WINDOW] = took
            self._counts[0] += 1
            period = self._estimate(before, took)
            late = now_s - due
            longer = took > before
            on_grid = self._on_grid(before) and not longer
            if self.estimator == "max" and 0 < late < period and not on_grid:
                self._anchor(worker, now_s, period)
                self._counts[2] += 1
            elif period != before:  # what the longer period explains of being late is no reason to hurry afterwards
                self._anchor(worker, due + min(max(late, 0.0), max(period - before, 0.0)), period)
            return self._publish_at(worker, now_s)

    def publish_at(self, worker: int, now_s: float) -> float:
        """When its action is to be published: not before ``now_s``."""
        return self._publish_at(self._known(worker), now_s)

    def published(self, worker: int, now_s: float) -> None:
        """Its action was published: on to its next slot. Those that it could not have met are skipped. Harmless for a
        worker that was removed meanwhile.
        """
        with self._guard:
            if not self._there[worker]:
                return
            worker, count, period = self._known(worker), self.count, self.period_s
            self._slot[worker] += count
            late = now_s - (self._due(worker) - period)
            missed = math.ceil(late / period - 1e-9) if late >= period else 0
            self._slot[worker] += missed * count
            self._counts[1] += missed

    def add(self, worker: int) -> None:
        """A worker came: its slot is behind those of all the others. Harmless for one that is there."""
        with self._guard:
            if not self._there[worker]:
                order = self._order()
                self._deal([*order, worker], self._due(order[0]) if order else self._plan[self._current[0], ANCHOR])

    def remove(self, worker: int) -> None:
        """A worker died: the others close up. Harmless for one that is not there."""
        with self._guard:
            if self._there[worker]:
                order = [other for other in self._order() if other != worker]
                first = self._due(order[0]) if order else self._due(worker)
                self._there[worker] = False
                if order:
                    self._deal(order, first)

    def overdue(self, now_s: float) -> dict[int, float]:
        """Workers whose slot has passed: worker -> for how long. Unit: seconds."""
        with self._guard:
            anchor, period = self._plan[self._current[0]]
            by = now_s - (anchor + self._slot * (period / max(1, self.count)))
            late = np.flatnonzero(self._there & (by > 0))
            late = late[np.argsort(self._slot[late], kind="stable")]
        return dict(zip(late.tolist(), by[late].tolist(), strict=True))

    def state(self) -> dict[str, np.ndarray]:
        """All of it, as arrays."""
        arrays = (self._plan, self._current, self._slot, self._there, self._times, self._counts)
        return {name: array.copy() for name, array in zip(stagger_arrays(1), arrays, strict=True)}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved ``state``."""
        arrays = (self._plan, self._current, self._slot, self._there, self._times, self._counts)
        for name, array in zip(stagger_arrays(1), arrays, strict=True):
            array[...] = state[name]

    def _known(self, worker: int) -> int:
        if not self._there[worker]:
            raise KeyError(f"worker {worker} is not there: it was removed")
        return worker

    def _due(self, worker: int) -> float:
        anchor, period = self._plan[self._current[0]]
        return float(anchor + self._slot[worker] * (period / max(1, self.count)))

    def _publish_at(self, worker: int, now_s: float) -> float:
        return now_s if self.estimator == "mean" else max(now_s, self._due(worker))

    def _estimate(self, before: float, took: float) -> float:
        """The period after an inference that took so long."""
        if self.estimator == "max":
            return max(before, took)
        times = self._times[: min(int(self._counts[0]), WINDOW)]
        found = times.mean() if self.estimator == "mean" else np.quantile(times, self.quantile)
        return max(float(found), self.least_s, 1e-9)

    def _on_grid(self, period: float) -> bool:
        return self.grid_s > 0 and period == self.least_s

    def _anchor(self, worker: int, due_s: float, period: float) -> None:
        """Make ``due_s`` the time of the worker's slot: a plan is replaced whole."""
        if self._on_grid(period):
            due_s = self._start_s + np.ceil((due_s - self._start_s) / self.grid_s - 1e-9) * self.grid_s
        other = 1 - self._current[0]
        self._plan[other] = due_s - self._slot[worker] * (period / max(1, self.count)), period
        self._current[0] = other

    def _order(self) -> list[int]:
        """Workers that are there, by their slots."""
        there = np.flatnonzero(self._there)
        order: list[int] = there[np.argsort(self._slot[there], kind="stable")].tolist()
        return order

    def _deal(self, order: list[int], first_s: float) -> None:
        """Give these workers, and no others, the slots from ``first_s`` on, in this order."""
        period = self.period_s
        self._there[order] = True
        self._slot[order] = np.arange(len(order))
        self._anchor(order[0], first_s, max(period, self.least_s))
