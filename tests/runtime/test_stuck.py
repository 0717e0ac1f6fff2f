"""When a run counts as stuck: nobody moves although all are well, or rows come and never lead to an update."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.stuck import STUCK_S, NoProgress, ProgressWatch, rows_without_update
from tests.runtime.parts import small_config, small_world


@pytest.fixture
def run(tmp_path: Path) -> tuple[Any, ProgressWatch, VirtualClock]:
    """A world, a watch over it, and the time."""
    world = small_world(tmp_path, small_config())
    world.clock = clock = VirtualClock(100.0)
    return world, ProgressWatch(world), clock


def test_a_free_run_is_stuck_when_nobody_moves_for_long(run: Any) -> None:
    world, watch, clock = run
    world.board["idle"][0] = 1
    assert not watch.stuck_freely(0, True)
    clock.sleep(STUCK_S)
    assert not watch.stuck_freely(0, True)
    clock.sleep(1)
    assert watch.stuck_freely(0, True)


@pytest.mark.parametrize("moves", ["a row", "an update", "the learner works", "an actor is silent"])
def test_any_movement_or_work_is_waited_for(moves: str, run: Any) -> None:
    world, watch, clock = run
    world.board["idle"][0] = 1
    assert not watch.stuck_freely(0, True)
    clock.sleep(STUCK_S + 1)
    if moves == "a row":
        world.store.produced[2] += 1
    if moves == "the learner works":
        world.board["idle"][0] = 0
    assert not watch.stuck_freely(1 if moves == "an update" else 0, moves != "an actor is silent")
    world.board["idle"][0] = 1
    clock.sleep(STUCK_S - 1)
    assert not watch.stuck_freely(1 if moves == "an update" else 0, True), "the time starts again"


def test_rows_that_never_lead_to_an_update_are_noticed(run: Any) -> None:
    world, watch, _ = run
    enough = rows_without_update(world)
    assert enough >= 2 * world.layout.capacity * world.layout.num_streams
    world.board["idle"][0] = 1
    assert not watch.stuck_freely(7, True)
    world.store.head[0] = enough
    assert not watch.stuck_freely(7, True)
    world.store.head[1] = 1
    assert watch.stuck_freely(7, True)
    world.board["idle"][0] = 0
    assert not watch.stuck_freely(7, True), "the learner is in the middle of an update"


def test_rows_without_a_transition_are_noticed_though_updates_are_made(run: Any) -> None:
    world, watch, _ = run
    enough = rows_without_update(world)
    watch.stuck_freely(0, True)
    world.store.head[0] = enough
    assert not watch.stuck_freely(1, True) and not watch.fruitless
    world.store.head[0] += 1
    assert not watch.stuck_freely(2, True), "all of them were skipped"
    world.board["updates"][0] = 1
    assert watch.stuck_freely(3, True)
    assert f"{enough + 1:,} rows came and not one action was followed" in watch.fruitless


def test_a_round_that_changes_nothing_is_noticed_at_once(run: Any) -> None:
    world, watch, _ = run
    assert not watch.stuck_in_rounds(0)
    world.store.head[0] += 5
    assert not watch.stuck_in_rounds(0)
    assert not watch.stuck_in_rounds(1)
    assert watch.stuck_in_rounds(1)


def test_rate_control_and_least_rows_are_waited_for(tmp_path: Path) -> None:
    uniform = {"replay__samplers": [{"kind": "uniform", "min_rows": 50}], "replay__capacity": 60}
    slow = small_config(replay__samples_per_insert=0.001, **uniform)
    rows = slow.learner.batch_size * slow.learner.unroll_length
    assert rows_without_update(small_world(tmp_path, slow)) == 2 * 60 + 50 + 4000 * rows


def test_the_error_says_what_is_waited_for() -> None:
    assert "the learner waits for 20 rows" in str(NoProgress("20 rows"))
