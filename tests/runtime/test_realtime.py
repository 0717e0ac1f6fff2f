"""What realtime roles share: who is dead and who is only late, the beginning, saving, and agents that cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from offbeat.errors import UserError
from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.realtime import SLACK, check_realtime_agent
from offbeat.types import ArraySpec
from tests.runtime.parts import same_arrays
from tests.runtime.realtime_parts import PERIOD, make_shared, show

PATIENCE = 0.5


def late_world() -> tuple[Any, Any]:
    """Three processes in slots of one frame each, none of which does anything."""
    realtime = make_shared(inference=3, patience_s=PATIENCE, first_estimate_s=3 * PERIOD)
    realtime.begin(1.0)
    return realtime, realtime.stagger()


def started() -> Any:
    """A process that lives until it is killed."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def test_only_who_is_late_and_gone_loses_its_slots() -> None:
    realtime, stagger = late_world()
    processes = [started() for _ in range(3)]
    try:
        realtime.shared["process"][:] = [process.pid for process in processes]
        for process in processes[:2]:
            process.kill()
        processes[0].wait()  # gone altogether; the second stays a zombie until somebody asks for it
        due = 1.0 + SLACK * PERIOD + 3 * PERIOD
        assert realtime.forget_the_dead(stagger, due + 0.9 * PATIENCE) == [], "not late enough"
        now = due + PATIENCE + 3 * PERIOD
        os.waitid(os.P_PID, processes[1].pid, os.WEXITED | os.WNOWAIT)
        assert realtime.forget_the_dead(stagger, now) == [0, 1]
        assert [worker in stagger for worker in range(3)] == [False, False, True]
        assert realtime.shared["gone"].tolist() == [2]
        assert realtime.forget_the_dead(stagger, now + 0.1) == [], "alive, and late"
        assert realtime.forget_the_dead(stagger, now + 11 * PATIENCE) == [2], "alive, but far too late"
        assert realtime.forget_the_dead(stagger, now + 20 * PATIENCE) == []
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdin.close()


def test_nobody_is_forgotten_within_two_of_its_own_periods() -> None:
    realtime = make_shared(inference=1, patience_s=0.0, first_estimate_s=1.0)
    realtime.begin(1.0)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    realtime.shared["process"][0] = process.pid
    due = 1.0 + SLACK * PERIOD + 1.0
    assert realtime.forget_the_dead(realtime.stagger(), due + 1.9) == []
    assert realtime.forget_the_dead(realtime.stagger(), due + 2.1) == [0]


def test_who_has_not_said_its_number_yet_is_not_taken_for_dead() -> None:
    realtime, stagger = late_world()
    assert realtime.forget_the_dead(stagger, 1.0 + 2 * PATIENCE) == []


@pytest.mark.parametrize(
    ("options", "period"),
    [
        ({"first_estimate_s": 0.5}, 0.5),
        ({}, 0.25),
        ({"inference_s": 0.375}, 0.375),
        ({"first_estimate_s": PERIOD}, 3 * PERIOD),
        ({"first_estimate_s": PERIOD, "pad": False}, PERIOD),
    ],
)
def test_the_first_slots_are_as_far_apart_as_an_inference_is_long(options: dict[str, Any], period: float) -> None:
    realtime = make_shared(inference=3, **options)
    assert not realtime.ready
    realtime.shared["warm"][:] = [0.125, 0.25, 0.0]
    assert not realtime.ready
    realtime.shared["warm"][2] = 0.125
    assert realtime.ready
    assert not realtime.begun
    realtime.begin(2.0)
    assert realtime.begun
    stagger = realtime.stagger()
    assert stagger.period_s == period
    assert stagger.start_at(0) == 2.0 + SLACK * PERIOD
    assert stagger.start_at(1) == pytest.approx(stagger.start_at(0) + period / 3)
    assert realtime.ring.count == 1  # type: ignore[attr-defined]


def test_all_that_is_shared_goes_on_from_a_saved_state() -> None:
    realtime, stagger = late_world()
    show(realtime, 7, VirtualClock(3.0))
    stagger.remove(1)
    realtime.shared["turns"][:] = 4, 3
    other = make_shared(inference=3)
    saved = realtime.state()
    stagger.add(1)
    other.load_state(saved)
    same_arrays(other.state(), saved)
    assert (other.mailbox.read().frame, other.begun, 1 in other.stagger()) == (7, True, False)
    assert other.shared["turns"].tolist() == [4, 3]
    assert 1 in stagger, "what is saved is a copy"


def test_agents_whose_next_decision_needs_the_last_are_refused_by_name() -> None:
    plain, asking = SimpleNamespace(wants_last=False), SimpleNamespace(wants_last=True)
    check_realtime_agent(plain, {}, "dqn")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"'r2d2' is recurrent.*takes agents without a core.*env\.frame_stack"):
        check_realtime_agent(plain, {"hidden": ArraySpec((4,))}, "r2d2")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"'impala' asks for the last action.*agent\.last_action.*delay\.history"):
        check_realtime_agent(asking, {}, "impala")  # type: ignore[arg-type]
