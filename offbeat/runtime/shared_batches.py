"""Batches of learners that step together: the first draws them all, and each copies and gets its share."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal

import torch

from offbeat.replay.dealt import dealt_columns, read_dealt
from offbeat.replay.mixture import Mixture
from offbeat.replay.readers import prepare
from offbeat.replay.streams import StreamStore
from offbeat.runtime.assembly import Assembly, Drawn
from offbeat.runtime.batches import StreamBatches, moved
from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.dealing import Deal, Dealing, owners
from offbeat.runtime.prefetching import make_prefetching
from offbeat.runtime.shm import Bell, Wait
from offbeat.types import ArrayDict, Batch, TensorDict


class LeadingBatches(StreamBatches):
    """The first learner's: it draws whole batches, deals them out, and keeps the samplers' books of them.

    Args:
        mixture: draws; ``splittable``.
        dealing: its end of what is dealt.
        copies: how it waits for others' copies.
        others: bells of the other learners.
        options: as ``StreamBatches`` has them.
    """

    def __init__(
        self,
        mixture: Mixture,
        *arguments: Any,
        dealing: Dealing,
        copies: Wait | None,
        others: list[Bell],
        **options: Any,
    ) -> None:
        self._dealing, self._copies, self._others = dealing, copies, others
        self._pacing = [index for index, sampler in enumerate(mixture.samplers) if sampler.paces]
        self._deals: deque[Deal] = deque()
        self._newest: Deal | None = None
        super().__init__(mixture, *arguments, **options)  # last: its threads begin to draw at once

    def draw(self, timeout_s: float) -> Drawn | None:
        """Choose the items of the next batch, once there is room, and deal them out."""
        if not self._until("copies", self._dealing.has_room, timeout_s):
            return None
        drawn = super().draw(timeout_s)
        if drawn is None:
            return None
        with self._lock:
            columns = dealt_columns(drawn.parts)
        deal = Deal(columns, owners(columns.stream, self._dealing.learners, self.mixture.items.consecutive))
        number = self._dealing.deal(deal)
        for bell in self._others:
            bell.ring()
        self._deals.append(deal)
        return Drawn((drawn.parts, number, deal), drawn.begun_s, drawn.updates)

    def copy(self, drawn: Drawn) -> Batch | None:
        """Copy this learner's share."""
        batch, dropped = read_dealt(
            self._store, drawn.parts[2].share(self._dealing.learner), self.mixture.last, self._pacing
        )
        with self._lock:
            self.mixture.dropped += dropped
        return batch

    def release(self, drawn: Drawn) -> None:
        """Writers may overwrite what every learner has copied."""
        parts, number, _ = drawn.parts
        self._dealing.copied(number)
        self._until("copies", lambda: self._dealing.copied_by_all(number))
        super().release(Drawn(parts, drawn.begun_s, drawn.updates))

    def _until(self, name: str, ready: Any, timeout_s: float = float("inf")) -> bool:
        if self._copies is None:
            return bool(ready())
        return self._copies.until(name, ready, timeout_s)

    def drop(self) -> bool:
        """What was dealt is trained on."""
        return False

    def done(self, batch: Batch) -> None:
        """The batch was trained on, all its shares; ``batch.fresh`` is of all."""
        self._newest = self._deals.popleft()
        if self.mixture.paced:
            with self._lock:
                self.mixture.done(self._newest.columns)
            steps, frames = self._counted
            fresh = getattr(batch, "fresh", (0, 0))
            self._counted = steps + fresh[0], frames + fresh[1] * self._skip

    def skip(self, batch: Batch) -> None:
        """The batch was not trained on after all, by nobody."""
        self._newest = self._deals.popleft()
        if self.mixture.paced:
            with self._lock:
                self.mixture.skip(self._newest.columns)

    def feedback(self, batch: Batch, found: TensorDict) -> None:
        """What all have found out about the batch that was trained on last: name -> [B], learner by learner."""
        assert self._newest is not None, "feedback is about a batch that was trained on"
        columns = self._newest.together()
        values = {name: value.float().cpu().numpy() for name, value in found.items()}
        with self._lock:
            self.mixture.feedback(columns.source, columns.stream, columns.row, values)


class FollowingBatches:
    """The other learners': their shares of what the first one draws, copied ahead of need as its own are.

    Args:
        store: the streams.
        device: where batches go.
        dealing: this learner's end of what is dealt.
        last: items are read with last actions and rewards.
        pacing: indices of the samplers that take each row once.
        wait: how it waits for batches.
        first: rung when a share was copied.
        prefetch, assemblers: see ``StreamBatches``.
        clock: for the times that are measured.
    """

    def __init__(
        self,
        store: StreamStore,
        device: torch.device,
        *,
        dealing: Dealing,
        last: bool,
        pacing: list[int],
        wait: Wait | None,
        first: Bell,
        prefetch: int | Literal["auto"] = 0,
        assemblers: int | Literal["auto"] = 1,
        clock: Clock = WALL,
    ) -> None:
        self._store, self._device, self._dealing, self._last, self._pacing = store, device, dealing, last, pacing
        self.wait, self._first, self._clock = wait, first, clock
        self._number = self._dropped = 0
        control = make_prefetching(prefetch, assemblers, 0)
        self.ahead: Assembly | None = None if control is None else Assembly(self, control, clock=clock)

    def next(self, timeout_s: float) -> Batch | None:
        """The share of the next batch; None if there was none within the time."""
        if self.ahead is not None:
            return self.ahead.next(timeout_s)
        drawn = self.draw(timeout_s)
        if drawn is None:
            return None
        batch = self.copy(drawn)
        self.release(drawn)
        return self.move(batch)

    def prepare(self) -> None:
        """Load what reading needs."""
        prepare(self._store)

    def draw(self, timeout_s: float) -> Drawn | None:
        """The next batch that was dealt; None if there was none within the time."""
        begun_s = self._clock.now()

        def dealt() -> bool:
            return self._dealing.dealt() > self._number

        if not (dealt() if self.wait is None else self.wait.until("batch", dealt, timeout_s)):
            return None
        number, self._number = self._number, self._number + 1
        return Drawn((number, self._dealing.read(number)), begun_s, 0)

    def copy(self, drawn: Drawn) -> Batch:
        """Copy this learner's share."""
        share = drawn.parts[1].share(self._dealing.learner)
        batch, dropped = read_dealt(self._store, share, self._last, self._pacing)
        self._dropped += dropped
        return batch

    def release(self, drawn: Drawn) -> None:
        """It was copied; in the order of draws."""
        self._dealing.copied(drawn.parts[0])
        self._first.ring()

    def move(self, batch: Batch) -> Batch:
        """The share on the learner's device."""
        return moved(batch, self._device)

    def drop(self) -> bool:
        """What was dealt is trained on."""
        return False

    def done(self, batch: Batch) -> None:
        """The first learner keeps the books."""

    def skip(self, batch: Batch) -> None:
        """The first learner keeps the books."""

    def feedback(self, batch: Batch, found: TensorDict) -> None:
        """The first learner tells the samplers."""

    def steps(self) -> int:
        """The first learner counts."""
        return 0

    def frames(self) -> int:
        """The first learner counts."""
        return 0

    def stats(self) -> dict[str, float]:
        """Of its own assembly."""
        numbers = {"queue": 0.0} if self.ahead is None else self.ahead.stats()
        return numbers | {"stand_ins": float(self._dropped)}

    def missing(self) -> str:
        """What the next batch waits for, in one line."""
        return "the first learner, which draws the batches"

    def tallies(self) -> ArrayDict:
        """The first learner has the samplers."""
        return {}

    def state(self) -> tuple[ArrayDict | None, str]:
        """The first learner saves the streams."""
        return None, ""

    def close(self) -> None:
        """End the threads."""
        if self.ahead is not None:
            self.ahead.close()
