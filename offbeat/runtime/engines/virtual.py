"""The virtual engine: a realtime run in one thread, on a clock that stands still while anybody computes.

Roles yield moments; the engine lets the earliest of all have its turn and moves the clock there. What computing costs
says the configuration, or a recording. So a run is repeatable, can be saved and resumed exactly, and is as fast as the
machine allows; the schedule is that of the wall clock under the same latencies.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.conductor import Conductor
from offbeat.runtime.engines import inline
from offbeat.runtime.engines.inline import InlineRoles
from offbeat.runtime.events import Events
from offbeat.runtime.pacing import Drawn, Durations
from offbeat.runtime.topology import CLOCK_PART
from offbeat.runtime.world import World
from offbeat.storage.checkpoint import find, load, write_part
from offbeat.types import under

IDLE_FRAMES = 10_000
"""A round ends after so many frames if no block was appended: nobody decides anything."""
LEARNER = "learner"


class VirtualRoles(InlineRoles):
    """The roles of a realtime run, which have their turns by the virtual clock."""

    def __init__(self, world: World, conductor: Conductor, checkpoint: Path | None) -> None:
        super().__init__(world, conductor, checkpoint)
        self.clock = clock = VirtualClock()
        self._config = world.config.realtime
        self._events: Events[str] = Events(clock)

    def build(self) -> None:
        """Build every role, and bring the clock back to where the checkpoint had it."""
        super().build()
        paced = self._world.topology.that("turn", "paced")
        self._loops: dict[str, Iterator[float]] = {role: self.hosts[role].steps() for role in paced}
        config = self._config
        self._learning: Durations = Drawn(config.learn_s, config.jitter, seed=self._world.config.seed)
        if self._checkpoint is not None and self._go_on(self._checkpoint):
            return
        for role in [*paced, *([] if self._config.takes_turns else [LEARNER])]:
            self._events.add(0.0, role)

    def act(self) -> None:
        """Let time go by until a block of rows was appended."""
        head, store = int(self._world.store.head.sum()), self._world.store
        deadline = self.clock.now() + IDLE_FRAMES * self._config.period_s
        while self._events and int(store.head.sum()) == head and self.clock.now() < deadline:
            if self._conductor.stop_reason is not None or self.learner.work.finished():  # type: ignore[attr-defined]
                return
            self._next_event()

    def learn(self) -> dict[str, Any]:
        """Where the learner is: it has had its turns by the clock."""
        work = self.learner.work  # type: ignore[attr-defined]
        self._advance("after")
        counters: dict[str, Any] = work.point()._asdict()
        return {"finished": work.finished(), "skipped": work.skipped} | counters

    def _next_event(self) -> None:
        role = self._events.next()
        with self._at_work(role):
            if role == LEARNER:
                self._learn()
            else:
                self._events.passed(role, next(self._loops[role], None))
        if self._config.takes_turns:
            self._give_turn()
        self._events.wake(role)

    def _learn(self) -> None:
        """An update, which was begun as long ago as it takes."""
        event = next(self.learner.steps(), "ended")
        self.learner.post(event)
        if self._config.takes_turns:
            self._shared["turns"][1] = self._shared["turns"][0]
        elif event == "idle":
            self._events.add(self.clock.now() + self._config.period_s, LEARNER)
        elif event != "ended":
            self._events.add(self.clock.now() + self._learning.next(), LEARNER)

    def _give_turn(self) -> None:
        """Have the learner begin an update that was asked for."""
        asked, answered = self._shared["turns"]
        if asked > answered and LEARNER not in self._events:
            self._events.add(self.clock.now() + self._learning.next(), LEARNER)

    @property
    def _shared(self) -> dict[str, np.ndarray]:
        shared: dict[str, np.ndarray] = self.hosts["realtime_env"].realtime.shared  # type: ignore[attr-defined]
        return shared

    def save(self, folder: Path) -> dict[str, Any]:
        """Every role's part, and who goes on when."""
        answer = super().save(folder)
        (events, waiting), names = self._events.saved(), [*self._loops, LEARNER]
        state: dict[str, np.ndarray] = {
            "now": np.array([self.clock.now()]),
            "moments": np.array([moment for moment, _ in events], np.float64),
            "roles": np.array([names.index(role) for _, role in events], np.int64),
            "waiting": np.array([names.index(role) for role in waiting], np.int64),
        }
        state |= {f"learning/{name}": value for name, value in self._learning.state().items()}
        write_part(folder, CLOCK_PART, state)
        return answer | {"parts": [*answer["parts"], CLOCK_PART]}

    def _go_on(self, checkpoint: Path) -> bool:
        """From a checkpoint; False if it has nothing of the clock."""
        parts, _ = load(find(checkpoint, only=(CLOCK_PART,)))
        if CLOCK_PART not in parts:
            return False
        state = {name: np.asarray(value) for name, value in parts[CLOCK_PART].items()}
        names = [*self._loops, LEARNER]
        self.clock.sleep(float(state["now"][0]))
        for loop in self._loops.values():
            next(loop)  # up to the moment at which it was saved, which is among the events
        roles = [names[role] for role in state["roles"].tolist()]
        waiting = [names[role] for role in state["waiting"].tolist()]
        self._events.load(zip(state["moments"].tolist(), roles, strict=True), waiting)
        self._learning.load_state(under(state, "learning/"))
        return True


run = partial(inline.run, make_roles=VirtualRoles)
"""Run to the end or to a stop, as the inline engine does."""
