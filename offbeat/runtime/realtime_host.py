"""What the realtime roles' hosts have in common: their pace on the wall clock, and latencies noted or replayed."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.errors import UserError
from offbeat.runtime.host import Host
from offbeat.runtime.pacing import Drawn, Durations, Punctual, Recorded, Timing, WallPace
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.services import Services

AMPLE_S = 0.001
"""A role that has so long to sleep looks after commands before. Unit: seconds."""
SELDOM_S = 0.1
"""One that never has looks after them so often. Unit: seconds."""
SEED_PATH = 7
"""Tells the seeds of latencies from others of a role."""


class RealtimeHost(Host):
    """A role whose loop yields moments. Where roles run freely it sleeps until those itself; else the engine does."""

    timing: Timing
    punctual: Punctual
    _pace: WallPace | None = None
    _folder: Path | None = None

    def __init__(self, services: Services, loop: Iterator[float]) -> None:
        config: RealtimeConfig = services.config
        super().__init__(services, loop)
        if services.free:
            assert services.wait is not None, "a role that runs freely knows how to wait"
            self._pace = WallPace(services.wait, services.clock)
        if config.record:
            self._folder = services.realtime().folder

    def timing_of(self, services: Services, mean_s: float) -> tuple[Timing, Punctual]:
        """How long this role computes, at least ``mean_s``, and how late it is; or both as recorded."""
        config: RealtimeConfig = services.config
        durations: Durations = Drawn(mean_s, config.jitter, services.seeds(services.index, SEED_PATH)[0])
        lateness: Durations = Drawn(0.0, 0.0, 0)
        if config.replay and not services.free:
            folder = Path(config.replay)
            durations = Recorded(recording(folder, services.name, "durations"))
            lateness = Recorded(recording(folder, services.name, "lateness"))
        self.timing = Timing(services.clock, durations, record=config.record)
        self.punctual = Punctual(services.clock, lateness, record=config.record)
        return self.timing, self.punctual

    def steps(self) -> Iterator[Any]:
        """The loop; slept through on the wall clock. There it gives others a turn before a sleep, never after one."""
        if self._pace is None:
            yield from super().steps()
            return
        gc.collect()
        gc.freeze()  # what was built stays: the collector need not look through it between two frames
        last = 0.0
        for moment in super().steps():
            now = self._pace.now()
            if moment - now > AMPLE_S or now - last > SELDOM_S:
                last = now
                yield moment
            self._pace.sleep(moment)

    def close(self) -> None:
        """Write the latencies down, if that is wanted."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        found = {"durations": self.timing.taken, "lateness": self.punctual.noted}
        for name, record in found.items():
            if record is not None:
                np.save(self._folder / f"{self.name}.{name}.npy", record.values(), allow_pickle=False)


def recording(folder: Path, role: str, name: str) -> np.ndarray:
    """What ``role`` wrote down: float64 [n] seconds. UserError where that is not there."""
    path = folder / f"{role}.{name}.npy"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"realtime.replay={str(folder)!r}: {path.name} cannot be read ({error}); run with --realtime.record true "
            "and give the folder RUN/realtime"
        ) from error
    return np.asarray(found, np.float64)
