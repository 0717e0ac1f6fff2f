"""A role of somebody else's: it counts the updates that the learner posts and reports them. One file and one row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from offbeat.checkpoint import find, load, write_part
from offbeat.runtime.host import Stop
from offbeat.runtime.ports import MetricSink, StopSignal
from offbeat.runtime.topology import Role
from offbeat.runtime.world import World

LOOK_S = 0.02
"""It looks up so often where it runs freely. Unit: seconds."""
ROW = Role(
    "counter",
    "tests.conformance.counting_role:build",
    "tests.conformance.counting_role.run_counter",
    turn="after",
    saved=True,
    hang_timeout_s=30.0,
    replaced=2,
    limit="nothing",
)


def run_counter(board: Any, pause: Any, metrics: MetricSink, stop: StopSignal, work: Counts) -> Iterator[None]:
    """Report how many updates there are, whenever there are more. Yields each time that it has looked."""
    while not stop.is_set():
        seen = int(board["updates"][0])
        if seen != work.seen:
            work.seen, work.reports = seen, work.reports + 1
            metrics.write("counter", {"seen": seen, "reports": work.reports})
        yield
        pause()


class Counts:
    """What it carries."""

    seen = reports = 0


def build(
    world: World, name: str, metrics: MetricSink, *, free: bool, incarnation: int, checkpoint: Path | None
) -> Host:
    """Its host."""
    work = Counts()
    if checkpoint is not None:
        part = load(find(checkpoint, only=(name,)))[0][name]
        work.seen, work.reports = (int(number) for number in part["counts"])
    return Host(world, name, metrics, free, work)


class Host:
    """It in steps."""

    warm = True

    def __init__(self, world: World, name: str, metrics: MetricSink, free: bool, work: Counts) -> None:
        self.name, self.work = name, work
        wait = world.wait(name)
        pause = (lambda: wait.until("updates", lambda: False, LOOK_S)) if free else (lambda: None)
        self._loop = run_counter(world.board, pause, metrics, Stop(world, world.heart(name)), work)

    def steps(self) -> Iterator[None]:
        """The loop."""
        return self._loop

    def advance(self) -> dict[str, Any]:
        """One look."""
        next(self._loop, None)
        return {"finished": False}

    def save(self, folder: Path) -> dict[str, Any]:
        """Both numbers."""
        import numpy as np

        write_part(folder, self.name, {"counts": np.array([self.work.seen, self.work.reports])})
        return {}

    def close(self) -> None:
        """Nothing to free."""
