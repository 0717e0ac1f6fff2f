"""Roles that hang or are stopped: noticed whatever their kind, and Ctrl-C saves what can be saved, soon."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults.command import Command, intact, resumes, running, saved, training

SOON_S = 15.0
"""Ctrl-C is answered within ten seconds; the rest is for processes to end on a busy machine. Unit: seconds."""
ROLES = ("learner", "evaluator", "actor-0")


def press_ctrl_c(command: Command) -> int:
    """Once; the exit code of the command, which ends soon."""
    started = time.monotonic()
    command.press_ctrl_c()
    code = command.wait()
    assert time.monotonic() - started < SOON_S, command.output
    return code


def stop(command: Command, role: str) -> None:
    """SIGSTOP for the process of one role."""
    os.kill(command.children()[ROLES.index(role)], signal.SIGSTOP)


def test_ctrl_c_does_not_wait_for_a_stopped_learner(tmp_path: Path) -> None:
    with training(tmp_path, "--checkpoint.every-updates", "20") as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        stop(command, "learner")
        assert press_ctrl_c(command) == 2
        assert "the part of learner is missing" in command.output
        assert "Traceback" not in command.output
    assert intact(tmp_path)
    assert "finished" in resumes(tmp_path, int(saved(tmp_path)[-1]) + 100)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["learner", "actor-0"])
def test_ctrl_c_in_lockstep_does_not_wait_for_a_stopped_role(role: str, tmp_path: Path) -> None:
    with training(tmp_path, "--deterministic", "true", "--checkpoint.every-updates", "20") as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        stop(command, role)
        time.sleep(1)
        code = press_ctrl_c(command)
        assert "Traceback" not in command.output
        if role == "learner":
            assert code == 2
            assert "the part of learner is missing" in command.output
        else:
            assert code == 0
            assert "the checkpoint has no part of actor-0" in command.output
    assert intact(tmp_path)
    assert "finished" in resumes(tmp_path, int(saved(tmp_path)[-1]) + 100)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(("--deterministic", "true"), id="lockstep"),
        pytest.param(("--engine", "inline"), id="inline", marks=pytest.mark.slow),
        pytest.param((), id="free", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_does_not_wait_for_a_slow_environment(engine: tuple[str, ...], tmp_path: Path) -> None:
    """A round of 40 steps would take 40 seconds more."""
    options = ("--env", "toy/slow@100", "--learner.unroll-length", "40", "--checkpoint.every-updates", "1")
    with training(tmp_path, *options, *engine) as command:
        command.until(lambda: int((saved(tmp_path) or ["0"])[-1]) >= 200, "two rounds were learnt")
        time.sleep(1)
        assert press_ctrl_c(command) == 0
        assert "stopped (SIGINT) and saved" in command.output
        assert ("has no part of actor-0" in command.output) == bool(engine)
        assert "Traceback" not in command.output
    assert intact(tmp_path)


@pytest.mark.slow
def test_an_evaluator_that_is_stopped_ends_a_lockstep_run(tmp_path: Path) -> None:
    options = ("--evaluation.every-frames", "400", "--evaluation.hang-timeout-s", "3")
    with training(tmp_path, "--deterministic", "true", *options) as command:
        command.until_said("evaluation evaluator")
        stop(command, "evaluator")  # another evaluation follows soon
        assert command.wait() == 1
        assert "evaluator showed no life for" in command.output
    assert intact(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["learner", "inference"])
def test_a_role_that_is_stopped_ends_a_free_run(role: str, tmp_path: Path) -> None:
    options = ("--actor.inference", "server", "--checkpoint.every-updates", "20")
    with training(tmp_path, *options, f"--{role}.hang-timeout-s", "3") as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        before = len(saved(tmp_path))
        os.kill(command.children()[("learner", "evaluator", "inference").index(role)], signal.SIGSTOP)
        assert command.wait() == 1
        assert f"{role} showed no life for" in command.output
    assert intact(tmp_path)
    assert before


def test_a_role_that_dies_while_the_learner_is_busy_leaves_a_checkpoint(tmp_path: Path) -> None:
    """The learner's answer to the order under way is not taken for its answer to the save."""
    preset = tmp_path / "busy.toml"
    preset.write_text(BUSY)
    arguments = ("train", str(preset), "--out", str(tmp_path / "run"))
    with running(*arguments, folder=tmp_path) as command:
        command.until(lambda: len(saved(tmp_path)) >= 1, "a checkpoint")
        time.sleep(0.7)  # of a round nearly all is the learner's
        os.kill(command.children()[2], signal.SIGKILL)
        assert command.wait() == 1
        assert "actor-0 was killed by SIGKILL" in command.output
        assert "actor-0 failed; saving before the run ends" in command.output
        assert "KeyError" not in command.output
        assert "saving failed too" not in command.output
    assert len(saved(tmp_path)) >= 2 or intact(tmp_path)
    assert intact(tmp_path)


BUSY = """
total_frames = 1000000
deterministic = true
[env]
id = "toy/catch"
[agent]
name = "r2d2"
core_size = 64
head_size = 32
feature_size = 32
length = 20
burn_in = 10
period = 10
[actor]
workers = 2
envs_per_worker = 2
[learner]
batch_size = 32
unroll_length = 20
[replay]
capacity = 4000
samples_per_insert = 64.0
[[replay.samplers]]
kind = "prioritised"
min_rows = 400
[evaluation]
every_frames = 0
at_end = false
episodes = 2
envs = 2
[checkpoint]
every_s = 0
every_updates = 20
[log]
tensorboard = false
dashboard = false
"""
