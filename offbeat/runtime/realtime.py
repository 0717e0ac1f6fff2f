"""What the realtime roles of a run share: mailbox, action slots, stagger, and the turns that learning takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.agents.base import Agent
from offbeat.algorithms.stagger import Stagger, stagger_arrays
from offbeat.errors import UserError
from offbeat.replay.layout import StreamLayout
from offbeat.runtime.mailbox import ActionSlots, Mailbox, mailbox_arrays, slot_arrays
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.types import ArrayDict, ArraySpec, under

SLACK = 0.5
"""Slots on the grid of frames lie so large a part of a frame before it. An action may then be that late."""


def realtime_arrays(config: RealtimeConfig, layout: StreamLayout) -> dict[str, ArraySpec]:
    """The memory that realtime roles share: name -> spec."""
    workers = config.workers
    groups = {
        "mailbox": mailbox_arrays(layout.observation),
        "slots": slot_arrays(workers, layout.action, layout.extras),
        "stagger": {name: ArraySpec(shape, dtype) for name, (shape, dtype) in stagger_arrays(workers).items()},
        "shared": {
            "begin": ArraySpec((1,), "float64"),  # when frame 0 is due; 0: the environment has not begun
            "warm": ArraySpec((workers,), "float64"),  # longest inference of each process's warm-up; 0: not ready
            "process": ArraySpec((workers,), "int64"),
            "turns": ArraySpec((2,), "int64"),  # updates asked for, and made or found impossible
            "gone": ArraySpec((1,), "int64"),  # inference processes that lost their slots
        },
    }
    return {f"{group}/{name}": spec for group, specs in groups.items() for name, spec in specs.items()}


def check_realtime_agent(agent: Agent, core: Mapping[str, ArraySpec], name: str) -> None:
    """UserError for an agent whose next decision needs what the last one found, which is not there yet."""
    if core:
        raise UserError(
            f"agent {name!r} is recurrent, and inferences that overlap have no state to pass on: a realtime run takes "
            "agents without a core; delay.history shows it the newest actions, env.frame_stack more frames"
        )
    if agent.wants_last:
        raise UserError(
            f"agent {name!r} asks for the last action and reward, which are not known when an inference starts in a "
            "realtime run; switch agent.last_action and agent.last_reward off; delay.history shows the newest actions"
        )


@dataclass
class Realtime:
    """The realtime roles' ends of what they share. ``ring`` wakes those who wait for something here."""

    config: RealtimeConfig
    mailbox: Mailbox
    slots: ActionSlots
    shared: ArrayDict
    folder: Path
    ring: Callable[[], None]
    _stagger: ArrayDict
    _lock: AbstractContextManager[Any]

    @property
    def begun(self) -> bool:
        """Whether the environment has begun."""
        return bool(self.shared["begin"][0])

    @property
    def ready(self) -> bool:
        """Whether every inference process has warmed up."""
        return bool((self.shared["warm"] > 0).all())

    def begin(self, at_s: float) -> None:
        """The environment begins: frame 0 is due at ``at_s``, and the slots are dealt."""
        config = self.config
        longest = config.first_estimate_s or float(self.shared["warm"].max())
        self.stagger(fresh=True, initial_s=max(longest, config.inference_s), start_s=at_s)
        self.shared["begin"][0] = at_s
        self.ring()

    def stagger(self, *, fresh: bool = False, initial_s: float = 1.0, start_s: float | None = None) -> Stagger:
        """The slots of the inference processes; they are there once the environment has begun."""
        config = self.config
        period, padded = config.period_s, config.pad and config.mode == "async"
        begin = start_s if start_s is not None else float(self.shared["begin"][0])
        return Stagger(
            config.workers,
            config.estimator,
            initial_s,
            start_s=begin + SLACK * period,
            storage=self._stagger,
            fresh=fresh,
            guard=self._lock,
            quantile=config.quantile,
            least_s=config.workers * period if padded else 0.0,
            grid_s=period if padded else 0.0,
        )

    def forget_the_dead(self, stagger: Stagger, now_s: float) -> list[int]:
        """Take the slots from processes that are late and gone, or far too late; those."""
        config, found = self.config, []
        for worker, late in stagger.overdue(now_s).items():
            if late < config.patience_s or late < 2 * stagger.period_s:
                continue
            if late > max(10 * config.patience_s, 10 * stagger.period_s) or _gone(int(self.shared["process"][worker])):
                stagger.remove(worker)
                self.shared["gone"][0] += 1
                found.append(worker)
        return found

    def state(self) -> ArrayDict:
        """All of it."""
        parts = {"mailbox": self.mailbox.state(), "slots": self.slots.state(), "shared": self.shared}
        parts["stagger"] = self._stagger
        return {f"{group}/{name}": np.array(value) for group, part in parts.items() for name, value in part.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved state."""
        self.mailbox.load_state(under(state, "mailbox/"))
        self.slots.load_state(under(state, "slots/"))
        for own, group in ((self.shared, "shared/"), (self._stagger, "stagger/")):
            for name, value in under(state, group).items():
                own[name][...] = value


def make_realtime(
    config: RealtimeConfig,
    arrays: ArrayDict,
    *,
    folder: Path,
    ring: Callable[[], None],
    lock: AbstractContextManager[Any],
    guard: AbstractContextManager[Any] | None,
) -> Realtime:
    """Over memory as ``realtime_arrays`` describes it. ``lock``: of the stagger; ``guard``: see ``shm.make_guard``."""
    return Realtime(
        config,
        Mailbox(under(arrays, "mailbox/"), guard),
        ActionSlots(under(arrays, "slots/"), guard),
        under(arrays, "shared/"),
        folder,
        ring,
        under(arrays, "stagger/"),
        lock,
    )


def _gone(process: int) -> bool:
    """Whether there is no such process, or only what is left of it."""
    with suppress(OSError):
        os.kill(process, 0)
        with suppress(OSError, IndexError), open(f"/proc/{process}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
        return False
    return True
