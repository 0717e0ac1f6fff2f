"""A learner beside an environment that never waits: it learns when it is asked, and takes as long as it is told to."""

from __future__ import annotations

from typing import Any

from offbeat.runtime.clock import Clock
from offbeat.runtime.pacing import Durations
from offbeat.runtime.ports import Batches, Waiter
from offbeat.runtime.realtime import Realtime
from offbeat.types import Batch

SOON_S = 0.02
"""A batch that is being assembled is waited for so long before an update is given up. Unit: seconds."""


class PacedBatches:
    """Batches of ``inner`` one at a time. In the sequential modes each is asked for by the inference process, which
    goes on when the learner is done with it, or when there is none. An update takes as long as ``durations`` says, at
    least.

    Everything else is ``inner``'s.
    """

    def __init__(self, inner: Batches, realtime: Realtime, wait: Waiter, clock: Clock, durations: Durations) -> None:
        self._inner, self._realtime, self._wait, self._clock = inner, realtime, wait, clock
        self._turns = realtime.shared["turns"]
        self._takes_turns = realtime.config.takes_turns
        self._durations, self._started = durations, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def next(self, timeout_s: float) -> Batch | None:
        """The next batch; None if nobody has asked for one within the time, or there is none."""
        if self._takes_turns:
            if not self._wait.until("its turn", lambda: bool(self._turns[0] > self._turns[1]), timeout_s):
                return None
            self._started = self._clock.now()
            batch = self._inner.next(SOON_S)
            if batch is None:
                self._answer()
            return batch
        batch = self._inner.next(timeout_s)
        self._started = self._clock.now()
        return batch

    def done(self, batch: Batch) -> None:
        """The batch was trained on."""
        self._inner.done(batch)
        self._over()

    def skip(self, batch: Batch) -> None:
        """The batch was not trained on after all."""
        self._inner.skip(batch)
        self._over()

    def _over(self) -> None:
        left = self._started + self._durations.next() - self._clock.now()
        if left > 0:
            self._wait.until("the end of an update", lambda: False, left)
        self._answer()

    def _answer(self) -> None:
        if self._takes_turns:
            self._turns[1] = self._turns[0]
            self._realtime.ring()
