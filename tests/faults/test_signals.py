"""Ctrl-C, SIGTERM and SIGKILL of the command and of its roles, at rest and in the middle of things."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.faults.command import PATIENCE_S, Command, alive, intact, resumes, running, saved, training

SAVE_OFTEN = ("--checkpoint.every-updates", "20")


def check_stopped(command: Command, folder: Path, signal_name: str) -> None:
    """It saved, said how to go on, and ended well."""
    assert command.wait() == 0, command.output
    assert f"stopped ({signal_name}) and saved" in command.output
    assert f"go on with: offbeat resume {folder / 'run'}" in command.output
    assert "Traceback" not in command.output
    assert intact(folder)


def check_gone(pids: list[int]) -> None:
    """None of these processes stays."""
    deadline = time.monotonic() + PATIENCE_S
    while left := [pid for pid in pids if alive(pid)]:
        assert time.monotonic() < deadline, f"{left} of {pids} still live"
        time.sleep(0.05)


def test_ctrl_c_saves_and_the_run_goes_on_later(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with training(tmp_path, *SAVE_OFTEN) as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        with running("resume", str(tmp_path / "run"), folder=other) as second:
            assert second.wait() == 2
            assert "another process is training" in second.output
        command.press_ctrl_c()
        check_stopped(command, tmp_path, "SIGINT")
    steps = int(saved(tmp_path)[-1])
    assert steps > 0
    assert "finished" in resumes(tmp_path, steps + 100)
    assert int(saved(tmp_path)[-1]) >= steps + 100


@pytest.mark.slow
def test_a_run_that_was_stopped_and_continued_blames_nobody_for_silence(tmp_path: Path) -> None:
    with training(tmp_path, *SAVE_OFTEN, "--actor.hang-timeout-s", "5") as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        os.killpg(command.process.pid, signal.SIGTSTP)
        time.sleep(8)
        before = saved(tmp_path)[-1]
        os.killpg(command.process.pid, signal.SIGCONT)
        command.until(lambda: saved(tmp_path)[-1] > before, "another checkpoint")
        command.press_ctrl_c()
        check_stopped(command, tmp_path, "SIGINT")
        assert "showed no life" not in command.output


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads states from /proc")
def test_ctrl_z_stops_all_processes_of_a_run_and_fg_continues_them(tmp_path: Path) -> None:
    """A terminal tells the command's own group, and roles are in others."""

    def stopped() -> list[bool]:
        return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T" for pid in every]

    with training(tmp_path, *SAVE_OFTEN) as command:
        command.until(lambda: saved(tmp_path), "a checkpoint")
        every = [command.process.pid, *command.children()]
        for _ in range(2):
            os.killpg(command.process.pid, signal.SIGTSTP)
            command.until(lambda: all(stopped()), "all stood still")
            os.killpg(command.process.pid, signal.SIGCONT)
            command.until(lambda: not any(stopped()), "all went on")
        command.press_ctrl_c()
        check_stopped(command, tmp_path, "SIGINT")


@pytest.mark.parametrize("options", [(), ("--engine", "inline"), ("--deterministic", "true")])
def test_sigterm_while_the_run_starts_up(options: tuple[str, ...], tmp_path: Path) -> None:
    with training(tmp_path, *options) as command:
        command.until_said("progress waiting" if options == () else "weights on")
        command.process.send_signal(signal.SIGTERM)
        check_stopped(command, tmp_path, "SIGTERM")


@pytest.mark.parametrize(
    "after_s", [0.5, pytest.param(0.1, marks=pytest.mark.slow), pytest.param(2.0, marks=pytest.mark.slow)]
)
def test_ctrl_c_while_the_roles_start_up_reaches_none_of_them(after_s: float, tmp_path: Path) -> None:
    with training(tmp_path) as command:
        command.until(lambda: len(command.children()) == 3, "all roles were spawned")
        time.sleep(after_s)
        command.press_ctrl_c()
        check_stopped(command, tmp_path, "SIGINT")


def test_ctrl_c_breaks_off_an_evaluation(tmp_path: Path) -> None:
    endless = ("--evaluation.every-frames", "40", "--evaluation.episodes", "100000000", "--deterministic", "true")
    with training(tmp_path, *endless) as command:
        command.until_said("frames=")
        time.sleep(2)
        command.press_ctrl_c()
        check_stopped(command, tmp_path, "SIGINT")


def test_a_second_ctrl_c_ends_the_run_at_once(tmp_path: Path) -> None:
    options = ("--env", "toy/hang@60", "--deterministic", "true", "--actor.hang-timeout-s", "10000")
    with training(tmp_path, *options, "--checkpoint.every-updates", "1") as command:
        seen: list[tuple[float, str]] = []

        def stands_still() -> bool:
            """Nothing new was saved for two seconds."""
            seen.append((time.monotonic(), (saved(tmp_path) or ["0"])[-1]))
            return int(seen[-1][1]) >= 150 and seen[-1][0] - next(t for t, n in seen if n == seen[-1][1]) > 2

        command.until(stands_still, "it hangs")
        children = command.children()
        command.press_ctrl_c()
        command.until_said("SIGINT: saving, then stopping; once more ends the run at once")
        time.sleep(1)  # signals that come together are one
        assert command.process.poll() is None
        command.press_ctrl_c()
        assert command.wait() == 130
        assert "ended without saving again; go on from the newest checkpoint" in command.output
    check_gone(children)
    assert intact(tmp_path)


def test_no_role_outlives_a_killed_command_not_even_one_that_hangs(tmp_path: Path) -> None:
    options = ("--env", "toy/hang@60", "--actor.workers", "2", "--actor.hang-timeout-s", "10000")
    with training(tmp_path, *options) as command:
        command.until(lambda: len(command.children()) == 4, "all roles were spawned")
        command.until_said("frames=")
        children = command.children()
        command.process.kill()
        command.wait()
        check_gone(children)


def test_a_killed_learner_that_nothing_is_kept_of_ends_the_run_and_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    with training(tmp_path, *SAVE_OFTEN, "--learner.mirror-every", "0") as command:
        command.until(lambda: len(saved(tmp_path)) >= 2, "two checkpoints")
        children = command.children()
        os.kill(children[0], signal.SIGKILL)
        assert command.wait() == 1
        assert "learner was killed by SIGKILL" in command.output
    check_gone(children)
    assert intact(tmp_path)
    newest, older = (tmp_path / "run" / "checkpoints" / name for name in (saved(tmp_path)[-1], saved(tmp_path)[-2]))
    with (newest / "learner.safetensors").open("r+b") as file:
        file.truncate(100)
    said = resumes(tmp_path, int(older.name) + 100)
    assert "skipped a broken checkpoint" in said
    assert newest.name in said
    assert "finished" in said


@pytest.mark.slow
def test_a_killed_learner_is_rebuilt_and_the_run_goes_on_from_what_it_saves_then(tmp_path: Path) -> None:
    with training(tmp_path, *SAVE_OFTEN) as command:
        command.until(lambda: len(saved(tmp_path)) >= 2, "two checkpoints")
        before = command.children()
        os.kill(before[0], signal.SIGKILL)
        command.until_said("learner was killed by SIGKILL; rebuilt")
        at = saved(tmp_path)[-1]
        command.until(lambda: saved(tmp_path)[-1] > at, "another checkpoint")
        assert set(before[1:]) < set(command.children()), "all others are those of before"
        command.press_ctrl_c()
        check_stopped(command, tmp_path, "SIGINT")
    assert "finished" in resumes(tmp_path, int(saved(tmp_path)[-1]) + 100)


@pytest.mark.parametrize("role", [pytest.param("evaluator", marks=pytest.mark.slow), "inference"])
def test_any_other_killed_role_ends_the_run_which_saves(role: str, tmp_path: Path) -> None:
    with training(tmp_path, "--actor.inference", "server") as command:
        command.until_said("frames=")
        os.kill(command.children()[("learner", "evaluator", "inference").index(role)], signal.SIGKILL)
        assert command.wait() == 1
        assert f"{role} was killed by SIGKILL" in command.output
    assert intact(tmp_path)
