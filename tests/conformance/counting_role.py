"""A role of somebody else's: it counts the updates that the learner posts and reports them. One file and one row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from offbeat.runtime.host import Host
from offbeat.runtime.ports import MetricSink, Notices, StopSignal
from offbeat.runtime.services import Services, Write
from offbeat.runtime.topology import Role

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


def run_counter(notices: Notices, pause: Any, metrics: MetricSink, stop: StopSignal, work: Counts) -> Iterator[None]:
    """Report how many updates there are, whenever there are more. Yields each time that it has looked."""
    while not stop.is_set():
        seen = notices.posted("updates")
        if seen != work.seen:
            work.seen, work.reports = seen, work.reports + 1
            metrics.write("counter", {"seen": seen, "reports": work.reports})
        yield
        pause()


class Counts:
    """What it carries."""

    seen = reports = 0


def build(services: Services) -> Counter:
    """It, from what its engine offers."""
    return Counter(services)


class Counter(Host):
    """It in steps."""

    def __init__(self, services: Services) -> None:
        self.work = Counts()
        if (loaded := services.loaded()) is not None:
            self.work.seen, self.work.reports = (int(number) for number in loaded.part["counts"])
        wait = services.wait
        pause = (lambda: None) if wait is None else (lambda: wait.until("updates", lambda: False, LOOK_S))
        loop = run_counter(services.notices, pause, services.metrics, services.stop(), self.work)
        super().__init__(services, loop)

    def save(self, write: Write) -> dict[str, Any]:
        """Both numbers."""
        write(self.name, {"counts": np.array([self.work.seen, self.work.reports])})
        return {}


def builds_nothing(services: Services) -> None:
    """No role."""


class Unsaved(Host):
    """Its row says that it is saved; it does not say how."""


def builds_one_that_cannot_save(services: Services) -> Unsaved:
    """A role that looks on."""
    return Unsaved(services, iter(lambda: None, 1))


def builds_one_that_ends(services: Services) -> Host:
    """A role that has nothing to do."""
    return Host(services, iter(()))
