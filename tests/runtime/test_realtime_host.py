"""What realtime hosts have in common: latencies written down and replayed, and sleeping on the wall clock only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offbeat.errors import UserError
from offbeat.runtime.clock import WALL, VirtualClock
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.realtime_host import RealtimeHost, recording
from offbeat.runtime.shm import Bell, Wait


def services(folder: Path, free: bool, **options: Any) -> Any:
    """What an engine gives."""
    return SimpleNamespace(
        name="realtime_actor-1", index=1, free=free, clock=WALL if free else VirtualClock(),
        config=RealtimeConfig(**{"fps": 64.0} | options), wait=Wait(Bell(), lambda: False),
        realtime=lambda: SimpleNamespace(folder=folder), seeds=lambda *path: [hash(path) % 1000, 0],
    )  # fmt: skip


class Sleeper(RealtimeHost):
    """Yields moments of a recording."""

    def __init__(self, given: Any, moments: list[float]) -> None:
        self.timing_of(given, 0.25)
        self.woke: list[tuple[float, float]] = []
        super().__init__(given, self._loop(given.clock, moments))

    def _loop(self, clock: Any, moments: list[float]) -> Iterator[float]:
        for moment in moments:
            yield moment
            self.woke.append((moment, clock.now()))
            self.timing.ends(clock.now())
            self.punctual.done(moment, moment + 0.125)


def test_a_role_that_runs_freely_sleeps_and_others_leave_that_to_their_engine(tmp_path: Path) -> None:
    free = Sleeper(services(tmp_path, True), [now := WALL.now() + 0.02, now + 0.01])
    assert list(free.steps()) == [now], "it is given back before a sleep, not where there is none"
    assert [moment for moment, _ in free.woke] == [now, now + 0.01]
    assert all(woke >= moment for moment, woke in free.woke)
    other = Sleeper(services(tmp_path, False), [3.0])
    assert list(other.steps()) == [3.0]
    assert other.woke == [(3.0, 0.0)]


def test_latencies_are_written_down_and_replayed(tmp_path: Path) -> None:
    host = Sleeper(services(tmp_path / "run", True, record=True, jitter=0.5), [0.0] * 3)
    list(host.steps())
    host.close()
    durations = recording(tmp_path / "run", "realtime_actor-1", "durations")
    assert len(durations) == 3
    assert ((durations >= 0.124) & (durations <= 0.376)).all()
    assert recording(tmp_path / "run", "realtime_actor-1", "lateness").tolist() == [0.125] * 3
    again = services(tmp_path, False, replay=str(tmp_path / "run"))
    timing, punctual = Sleeper(again, []).timing_of(again, 0.25)
    np.testing.assert_array_equal([timing.durations.next() for _ in range(3)], durations)
    assert next(punctual.until(lambda: 1.0)) == 1.125
    unrecorded = Sleeper(services(tmp_path / "other", True), [0.0])
    list(unrecorded.steps())
    unrecorded.close()
    assert not (tmp_path / "other").exists()


def test_a_recording_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "actor.lateness.npy").write_text("no array")
    for name in ("durations", "lateness"):
        with pytest.raises(
            UserError, match=rf"actor\.{name}\.npy cannot be read .*--realtime\.record true.*RUN/realtime"
        ):
            recording(tmp_path, "actor", name)
