"""What this machine adds to every exchange between two processes: wake-ups, beside the published way of exchanging.

``ping_s``: two bare processes wake each other through eventfds. ``manager_s``: an observation's number and an action go
through manager proxies, each value in a server process of its own, as the code published with Riemer et al. 2025 does.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.managers import SyncManager
from typing import Any

import numpy as np

from offbeat.runtime.pacing import fine_timers
from offbeat.runtime.shm import Bell, SharedArrays
from offbeat.types import ArraySpec

FRAME_S = 1 / 59.73
"""A Game Boy's frame: so often something happens. Unit: seconds."""
SLOT_SLEEP_S = 0.0005
"""How often the published inference loop looks whether there is a new observation; ours is told. Unit: seconds."""


def ping_s(count: int, every_s: float = FRAME_S) -> np.ndarray:
    """[count] seconds from ringing another process's bell to that process's clock, once every ``every_s``."""
    here, there = Bell(), Bell()
    shared = SharedArrays({"sent": ArraySpec((1,), "float64"), "took": ArraySpec((count,), "float64")})
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_answer, args=(here, there, shared, count), daemon=True)
    process.start()
    here.wait(60.0)
    fine_timers()
    next_s = time.monotonic() + every_s
    for _ in range(count):
        time.sleep(max(0.0, next_s - time.monotonic()))
        next_s += every_s
        shared["sent"][0] = time.monotonic()
        there.ring()
        here.wait(10.0)
    process.join(10.0)
    took = shared["took"].copy()
    for block in (shared, here, there):
        block.close()
    return took


def _answer(here: Bell, there: Bell, shared: SharedArrays, count: int) -> None:
    fine_timers()
    here.ring()
    for number in range(count):
        there.wait(60.0)
        shared["took"][number] = time.monotonic() - shared["sent"][0]
        here.ring()


def late_s(count: int, every_s: float = FRAME_S) -> np.ndarray:
    """[count] seconds by which a bare process that sleeps until absolute moments wakes late."""
    fine_timers()
    late, due = np.zeros(count), time.monotonic() + every_s
    for number in range(count):
        time.sleep(max(0.0, due - time.monotonic()))
        late[number] = time.monotonic() - due
        due = max(due + every_s, time.monotonic())
    return late


def manager_s(count: int, forward: Callable[[], Any], every_s: float = FRAME_S) -> np.ndarray:
    """Seconds from reading an observation to its published action, without the forward, through managers: [<= count],
    one for each frame that was seen. ``forward`` is called for each action, in this process.
    """
    context = multiprocessing.get_context("spawn")
    managers = [SyncManager(ctx=context) for _ in range(4)]
    for manager in managers:
        manager.start()
    newest, stamp, action, made = (manager.Value(kind, 0) for manager, kind in zip(managers, "idii", strict=True))
    process = context.Process(target=_tick, args=(newest, stamp, action, made, count, every_s), daemon=True)
    process.start()
    took, seen = np.zeros(count), 0
    deadline = time.monotonic() + 60 + 4 * count * every_s
    while seen < count and time.monotonic() < deadline:
        read = time.monotonic()
        number = newest.value
        if number <= seen:
            time.sleep(SLOT_SLEEP_S)
            continue
        _ = stamp.value
        started = time.monotonic()
        forward()
        ended = time.monotonic()
        action.value = number % 6
        made.value += 1
        took[number - 1] = time.monotonic() - ended + started - read
        seen = number
    process.join(10.0)
    for manager in managers:
        manager.shutdown()
    return took[took > 0]


def _tick(newest: Any, stamp: Any, action: Any, made: Any, count: int, every_s: float) -> None:
    due = time.monotonic() + every_s
    for number in range(1, count + 1):
        time.sleep(max(0.0, due - time.monotonic()))
        due += every_s
        stamp.value = time.monotonic()
        newest.value = number
        if made.value:
            _ = action.value
