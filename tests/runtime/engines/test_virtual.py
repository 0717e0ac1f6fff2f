"""The virtual engine: whose turn it is says the clock, and an update costs what it is said to."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from offbeat.runtime.conductor import Conductor
from offbeat.runtime.engines.virtual import LEARNER, VirtualRoles
from offbeat.runtime.realtime_books import DECISION
from tests.conformance.realtime_runs import realtime_config
from tests.runtime.engines.test_inline import Recorder
from tests.runtime.parts import small_world

PERIOD = 1 / 64


class Watched(VirtualRoles):
    """Notes down whose turn came when."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.turns: list[tuple[float, str]] = []

    def _next_event(self) -> None:
        before, (moment, role) = self.clock.now(), self._events.saved()[0][0]
        super()._next_event()
        assert self.clock.now() == pytest.approx(max(before, moment), abs=1e-12)
        assert self.clock.now() >= before
        self.turns.append((self.clock.now(), role))

    def of(self, role: str) -> list[float]:
        """When it had its turns."""
        return [moment for moment, name in self.turns if name == role]

    def decisions(self) -> Any:
        """All that were published, column by column."""
        rows = self.hosts["realtime_env"].work.books.kept.rows()  # type: ignore[attr-defined]
        return {name: rows[:, index] for index, name in enumerate(DECISION)}


def make_roles(folder: Path, **options: Any) -> Watched:
    """Roles of DQN on Catch, built."""
    options = {"agent": "dqn", "env__id": "toy/catch", "env__length": 6, "realtime__fps": 1 / PERIOD} | options
    options |= {"replay__samplers": [{"kind": "uniform", "min_rows": 8}], "replay__samples_per_insert": 0.0}
    options |= {"actor__workers": 1, "actor__envs_per_worker": 1}
    config = realtime_config(folder, realtime__jitter=0.0, **{"realtime__inference_s": 2 * PERIOD} | options)
    world = small_world(folder, config)
    conductor = Conductor(world, folder, Recorder(), lambda line: None, {})  # type: ignore[arg-type]
    roles = Watched(world, conductor, None)
    roles.build()
    return roles


def test_updates_come_as_far_apart_as_one_takes_and_a_round_ends_at_a_block(tmp_path: Path) -> None:
    roles = make_roles(tmp_path, realtime__learn_s=0.75 * PERIOD)
    store = roles._world.store
    for _ in range(10):
        head = int(store.head.sum())
        roles.act()
        assert int(store.head.sum()) == head + store.layout.block
        roles.learn()
    updates = roles.learner.work.updates  # type: ignore[attr-defined]
    moments = roles.of(LEARNER)
    assert updates > 20
    gaps = [round((after - before) / PERIOD, 9) for before, after in pairwise(moments)]
    idle = len(moments) - updates
    assert set(gaps[:idle]) <= {1.0, 0.75}
    assert set(gaps[-updates + 1 :]) == {0.75}
    env = roles.of("realtime_env")
    assert env == sorted(env)
    roles.close()


@pytest.mark.parametrize("mode", ["sequential", "learn_first"])
def test_in_turns_there_is_one_update_for_each_inference_and_they_take_as_long_as_both(
    tmp_path: Path, mode: str
) -> None:
    roles = make_roles(
        tmp_path, realtime__mode=mode, realtime__inference=1, realtime__learn_s=3 * PERIOD, realtime__pad=False
    )
    for _ in range(10):
        roles.act()
        roles.learn()
    work, found = roles.learner.work, roles.decisions()  # type: ignore[attr-defined]
    asked, answered = roles._shared["turns"].tolist()
    inferences = len(found["slot"])
    assert abs(answered - inferences) <= 1
    assert asked - answered <= 1
    assert len(roles.of(LEARNER)) == answered
    assert answered - 15 < work.updates <= answered, "none only while there were no rows"
    tail = found["published"][5:]
    assert tail[1:] - tail[:-1] == pytest.approx((2 + 3) * PERIOD), "inference and learning"
    versions = found["version"][-10:]
    assert (versions[1:] - versions[:-1] == 1).all()
    roles.close()


def test_in_the_background_learning_costs_inference_nothing(tmp_path: Path) -> None:
    roles = make_roles(tmp_path, realtime__mode="background", realtime__inference=1, realtime__learn_s=3 * PERIOD)
    for _ in range(5):
        roles.act()
        roles.learn()
    published = roles.decisions()["published"][5:]
    assert published[1:] - published[:-1] == pytest.approx(2 * PERIOD)
    assert roles.learner.work.updates > 1  # type: ignore[attr-defined]
    roles.close()


def test_a_round_ends_when_the_run_is_to_stop(tmp_path: Path) -> None:
    roles = make_roles(tmp_path, realtime__learn_s=PERIOD)
    roles._conductor.stop_reason = "asked to"
    roles.act()
    assert roles.turns == []
    roles.close()
