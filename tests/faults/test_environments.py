"""Environments that raise, hang or kill their actor, in real runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from offbeat.envs.faulty import ERRORS
from tests.faults.command import intact, resumes, saved, training

ENGINES = {"local": (), "inline": ("--engine", "inline"), "lockstep": ("--deterministic", "true")}


@pytest.mark.parametrize("engine", ["inline", "local", pytest.param("lockstep", marks=pytest.mark.slow)])
def test_an_environment_that_raises_ends_the_run_with_its_traceback(engine: str, tmp_path: Path) -> None:
    with training(tmp_path, "--env", "toy/raise@60", *ENGINES[engine]) as command:
        assert command.wait() == 1
        assert "RuntimeError: toy/raise: raised on purpose at step 60" in command.output
        assert "faulty.py" in command.output
    assert "raised on purpose" in (tmp_path / "run" / "run.log").read_text()
    assert int(saved(tmp_path)[-1]) > 0
    assert intact(tmp_path)
    if engine != "inline":
        assert "actor-0 failed" in command.output
    if engine == "lockstep":
        assert "finished" in resumes(tmp_path, int(saved(tmp_path)[-1]) + 60)


OWN = [("local", "pipe"), ("inline", "exit"), ("lockstep", "interrupt")]
OTHERS = [(engine, fault) for engine in ENGINES for fault in ("pipe", "eof", "exit", "interrupt")]


@pytest.mark.parametrize(
    ("engine", "fault"), OWN + [pytest.param(*each, marks=pytest.mark.slow) for each in OTHERS if each not in OWN]
)
def test_its_exceptions_are_its_own_whatever_their_class(engine: str, fault: str, tmp_path: Path) -> None:
    """None of them is taken for a parent that is gone, for a reader of the output that is gone, or for Ctrl-C."""
    with training(tmp_path, "--env", f"toy/{fault}@60", *ENGINES[engine]) as command:
        assert command.wait() == 1
        assert f"{ERRORS[fault].__name__}: toy/{fault}: raised on purpose at step 60" in command.output
        assert "faulty.py" in command.output
    assert "raised on purpose" in (tmp_path / "run" / "run.log").read_text()
    assert int(saved(tmp_path)[-1]) > 0
    assert intact(tmp_path)


@pytest.mark.slow
def test_two_that_raise_in_the_same_round_leave_a_checkpoint(tmp_path: Path) -> None:
    with training(tmp_path, "--env", "toy/raise@60", "--actor.workers", "2", *ENGINES["lockstep"]) as command:
        assert command.wait() == 1
        assert "saving failed too" not in command.output
        assert "raised on purpose at step 60" in command.output
    assert int(saved(tmp_path)[-1]) > 0
    assert intact(tmp_path)


@pytest.mark.parametrize("engine", ["local", "inline", pytest.param("lockstep", marks=pytest.mark.slow)])
def test_one_that_cannot_be_closed_is_complained_of(engine: str, tmp_path: Path) -> None:
    options = ("--env", "toy/close@1", "--total-frames", "200", *ENGINES[engine])
    with training(tmp_path, *options) as command:
        assert command.wait() == 0
        assert "actor-0: closing it failed:" in command.output
        assert "RuntimeError: toy/close: raised on purpose when closed" in command.output
        assert "finished" in command.output
    assert intact(tmp_path)


def test_a_hanging_actor_is_reported_with_its_stack_and_replaced_within_bounds(tmp_path: Path) -> None:
    options = ("--actor.hang-timeout-s", "2", "--actor.max-restarts", "1")
    with training(tmp_path, "--env", "toy/hang@60", *options) as command:
        assert command.wait() == 1
    log = (tmp_path / "run" / "run.log").read_text()
    assert log.count("actor-0 showed no life for") >= 2
    assert "in _break" in log, "the stack shows where it hung"
    assert "replaced (1 of at most 1 times)" in log
    assert "not replaced again because actor.max_restarts=1" in log
    assert intact(tmp_path)
    assert not list((tmp_path / "run").glob(".stack*"))


@pytest.mark.slow
def test_a_hanging_actor_ends_a_deterministic_run(tmp_path: Path) -> None:
    options = ("--actor.hang-timeout-s", "2", "--deterministic", "true")
    with training(tmp_path, "--env", "toy/hang@60", *options) as command:
        assert command.wait() == 1
        assert "actor-0 showed no life for" in command.output
        assert "in _break" in command.output
    assert intact(tmp_path)


def test_an_actor_that_keeps_dying_is_replaced_only_so_often(tmp_path: Path) -> None:
    with training(tmp_path, "--env", "toy/kill@60", "--actor.max-restarts", "1") as command:
        assert command.wait() == 1
        assert "actor-0 was killed by SIGKILL; replaced (1 of at most 1 times)" in command.output
        assert "not replaced again because actor.max_restarts=1" in command.output
    assert intact(tmp_path)


@pytest.mark.parametrize("engine", [pytest.param("local", marks=pytest.mark.slow), "inline"])
def test_rewards_that_are_no_numbers_stop_the_run_with_a_diagnosis(engine: str, tmp_path: Path) -> None:
    options = ("--env", "toy/nan@60", "--learner.nonfinite-limit", "3")
    with training(tmp_path, *options, *ENGINES[engine]) as command:
        assert command.wait() == 1
        assert "3 updates in a row were skipped because they were not finite" in command.output
        assert "weights finite: True" in command.output
    assert intact(tmp_path)
