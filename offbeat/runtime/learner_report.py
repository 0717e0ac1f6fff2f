"""What a learner tells of itself: sums since its last record, and about twice a second a record of them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.ports import MetricSink

REPORT_S = 0.5
"""The learner reports about so often. Unit: seconds."""


class LearnerReport:
    """The numbers of the updates since the last record.

    Attributes:
        sums: of each metric over those updates.
        wait_s, train_s: time spent waiting for batches, and training on them. Unit: seconds.
    """

    def __init__(self, clock: Clock = WALL) -> None:
        self.sums: dict[str, Tensor] = {}
        self.wait_s = self.train_s = 0.0
        self._clock, self._reported = clock, clock.now()
        self._summed = 0
        self._lags: list[float] = []
        self._sources: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One update more, and what it gave: name -> []."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self._summed += 1

    def seen(self, lag: float, sources: dict[str, float]) -> None:
        """A batch was trained on or skipped. ``lag``: its policy lag; ``sources``: the samplers' numbers now."""
        self._lags.append(lag)
        self._sources = sources

    def write(self, metrics: MetricSink, counted: Mapping[str, float], force: bool = False) -> None:
        """Send a record if one is due, or with ``force`` if there is anything new. ``counted``: what goes with it."""
        now = self._clock.now()
        if not (self._summed and self._lags) or (now - self._reported < REPORT_S and not force):
            return
        values = {name: float(total) / self._summed for name, total in self.sums.items()} | dict(counted)
        values |= {
            "policy_lag": sum(self._lags) / len(self._lags),
            "wait_s": self.wait_s,
            "train_s": self.train_s,
        }
        metrics.write("learner", self._sources | values)
        self.sums, self._summed, self._lags, self._reported = {}, 0, [], now
        self.wait_s = self.train_s = 0.0
