"""``offbeat play ENV``: what is played is written down, and what cannot be is refused in one line."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from offbeat.cli import main
from offbeat.storage.demonstrations import read_demonstration


def test_a_list_of_actions_becomes_a_demonstration(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    moves, demo = tmp_path / "moves.txt", tmp_path / "demo"
    moves.write_text("1*7")
    play = ["play", "toy/catch", "--actions", str(moves), "--record-demo", str(demo), "--env.length", "6"]
    assert main(play) == 0
    said = capsys.readouterr().out
    assert "played 7 actions; 1 episodes ended" in said and "7 actions of 2 episodes (the last one broken off)" in said
    made = read_demonstration(demo.with_suffix(".safetensors"))
    assert made.facts["played_by"] == "a list of actions, moves.txt" and made.facts["env"] == "toy/catch"
    assert made.facts["options"]["length"] == 6 and len(made.facts["returns"]) == 1
    assert main([*play, "--steps", "3", "--played-by", "nobody"]) == 0
    made = read_demonstration(demo.with_suffix(".safetensors"))
    assert (made.transitions, made.facts["played_by"], made.episodes) == (3, "nobody", 1)


@pytest.mark.parametrize(("arguments", "says"), [
    ([], "takes a run folder, to watch it, or an environment"),
    (["toy/catch"], "playing by hand needs a terminal"),
    (["toy/catch", "--fps", "0"], "--fps=0 is out of range; allowed: above 0"),
    (["toy/catch", "--policy", "x", "--actions", "y"], "both say who plays"),
    (["toy/continuous", "--actions", "x"], "has continuous actions"),
    (["toy/catsh", "--actions", "x"], "no environment is called 'toy/catsh'"),
    (["toy/catch", "--actions", "x", "--env.longth", "3"], "unknown option '--env.longth'"),
    (["toy/catch", "--actions", "/nowhere/x"], "cannot be read"),
    (["toy/catch", "--record-demo", "/proc/x/demo"], "cannot be written"),
])  # fmt: skip
def test_what_cannot_be_played_is_refused_in_one_line(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["play", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_person_at_a_terminal_plays_and_ctrl_c_keeps_what_there_is(tmp_path: Path):
    demo, (leader, follower) = tmp_path / "demo.safetensors", pty.openpty()
    command = [sys.executable, "-m", "offbeat", "play", "toy/catch", "--env.length", "6", "--record-demo", str(demo)]
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, start_new_session=True)
    os.close(follower)
    shown, deadline = b"", time.monotonic() + 120
    try:
        while b"return" not in shown and time.monotonic() < deadline:
            shown += os.read(leader, 4096)
        os.write(leader, b"2")
        while shown.count(b"return") < 2 and time.monotonic() < deadline:
            shown += os.read(leader, 4096)
        process.send_signal(2)
        while process.poll() is None and time.monotonic() < deadline:
            try:
                shown += os.read(leader, 4096)
            except OSError:
                break
        assert process.wait(60) == 0, shown.decode()
    finally:
        process.kill()
        os.close(leader)
    made = read_demonstration(demo)
    assert "▀".encode() in shown
    assert made.facts["played_by"] == "a person" and made.facts["broken_off"] == 1 and made.transitions >= 1
    assert made.arrays["action"][0] == 2
