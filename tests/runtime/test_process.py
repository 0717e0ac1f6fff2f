"""A role's process as its parent sees it: what it is told, how it dies, and a real one from start to end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from offbeat.runtime import child
from offbeat.runtime.local_services import offer
from offbeat.runtime.process import RoleProcess, remove_stacks
from tests.runtime.parts import small_config, small_world


def talking_half() -> RoleProcess:
    """A role of which nothing was spawned."""
    role = RoleProcess.__new__(RoleProcess)
    pipe, other = multiprocessing.Pipe()
    role.role = "learner"
    role._listen(pipe)
    other.close()
    return role


def test_a_dead_process_is_no_error_of_its_parent() -> None:
    role = talking_half()
    role.command("hello")
    assert not role.busy
    assert list(role.read()) == []
    role.pipe.close()
    assert list(role.read()) == []


@pytest.mark.parametrize(("code", "text"), [(-9, "was killed by SIGKILL"), (3, "ended with exit code 3")])
def test_deaths_are_told_in_words(code: int, text: str) -> None:
    role = talking_half()
    role.process = SimpleNamespace(exitcode=code)  # type: ignore[assignment]
    assert role.death() == text and role.was_killed() == (code < 0)


def test_the_longest_silence_is_that_between_two_signs_of_life() -> None:
    role, beats = talking_half(), [0.0]
    role.heart = SimpleNamespace(last=lambda: beats[-1])  # type: ignore[assignment]
    for beat in (0.0, 5.0, 5.0, 6.0, 9.0, 9.5):
        beats.append(beat)
        role.note_silence()
    assert role.longest_silence_s == 3.0
    role.excuse()
    for beat in (100.0, 101.0):
        beats.append(beat)
        role.note_silence()
    assert role.longest_silence_s == 3.0, "what comes before an excuse does not count"


def test_stacks_of_killed_runs_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".stack-actor-0-17").write_text("old")
    (tmp_path / "run.log").write_text("kept")
    remove_stacks(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.log"]


def test_a_real_role_works_shows_its_stack_and_ends(tmp_path: Path) -> None:
    world = small_world(tmp_path, small_config(engine="local"))
    role = RoleProcess(world, "learner", lockstep=True, offer=offer)
    try:
        role.command("hello")
        while role.result is None and role.alive():
            role.pipe.poll(1.0)
            assert list(role.read()) == []
        assert role.result == {}
        assert world.params.store.version() == 0, "it has published its first weights"
        assert "in take_orders" in role.stack(wait_s=20.0)
        os.kill(role.process.pid or 0, signal.SIGSTOP)
        while not role.is_stopped():
            time.sleep(0.01)
        os.kill(role.process.pid or 0, signal.SIGCONT)
        os.kill(role.process.pid or 0, signal.SIGTERM)  # the parent's business
        os.kill(role.process.pid or 0, signal.SIGHUP)
        os.kill(role.process.pid or 0, signal.SIGINT)
        role.command("advance")
        while role.result is None and role.alive():
            role.pipe.poll(1.0)
            assert list(role.read()) == []
        assert role.result == {
            "finished": False,
            "pretraining": False,
            "skipped": 0,
            "updates": 0,
            "agent_steps": 0,
            "frames": 0,
        }
        role.command("stop")
        assert role.join(20.0)
        assert not role.is_stopped()
        assert role.process.exitcode == 0
    finally:
        role.kill()
        role.free()
        world.close()
    assert not list(tmp_path.glob(".stack*"))
    assert child.ORDERS_S > 0


@pytest.mark.parametrize(("own", "expected"), [(0, 5), (7, 12), (18, 19)])
def test_a_role_never_stands_before_the_program_that_started_it(own: int, expected: int) -> None:
    """Where a whole run is to stand behind others."""
    asked = (
        "import os, subprocess; from offbeat.runtime.process import lower_priority; os.nice(int(os.environ['OWN']));"
        "role = subprocess.Popen(['sleep', '60']); lower_priority(role.pid, 5);"
        "print(os.getpriority(os.PRIO_PROCESS, role.pid) - int(os.environ['BEFORE'])); role.kill(); role.wait()"
    )
    before = os.getpriority(os.PRIO_PROCESS, 0)
    told = {**os.environ, "OWN": str(own), "BEFORE": str(before)}
    done = subprocess.run([sys.executable, "-c", asked], env=told, capture_output=True, text=True, check=True)
    assert int(done.stdout) == min(expected, 19 - before)
