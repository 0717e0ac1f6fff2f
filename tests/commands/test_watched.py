"""``offbeat eval`` says how far it is, and Ctrl-C scores what has ended."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import offbeat
from offbeat.commands.watched import LINES_S, LIVE_S, Watched, watched
from offbeat.runtime.clock import VirtualClock


class Terminal(io.StringIO):
    """A person looks at it."""

    def isatty(self) -> bool:
        return True


def test_the_line_fits_into_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, line in {
        50: "3 of 10 episodes have ended, 1,200 frames",
        40: "3 of 10 episodes have ended",
    }.items():
        monkeypatch.setenv("COLUMNS", str(columns))
        clock, live = VirtualClock(), Terminal()
        watch = Watched(10, live, clock)
        clock.sleep(LIVE_S)
        watch.see(3, 1200)
        assert live.getvalue() == f"\r\x1b[K{line}"


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    clock, live, plain = VirtualClock(), Terminal(), io.StringIO()
    watches = Watched(10, live, clock), Watched(10, plain, clock)
    for _ in range(4):
        clock.sleep(LIVE_S / 2)
        for watch in watches:
            watch.see(3, 1200)
    line = "3 of 10 episodes have ended, 1,200 frames; Ctrl-C scores those"
    assert live.getvalue() == 2 * f"\r\x1b[K{line}" and plain.getvalue() == ""
    clock.sleep(LINES_S)
    watches[1].see(3, 1200)
    assert plain.getvalue() == f"offbeat: {line}\n"
    for watch in watches:
        watch.end()
    assert live.getvalue().endswith(f"{line}\r\x1b[K") and plain.getvalue() == f"offbeat: {line}\n"


def test_the_second_interrupt_ends_the_command() -> None:
    before = signal.getsignal(signal.SIGINT)
    with watched(3) as watch:
        assert not watch.stop()
        signal.raise_signal(signal.SIGINT)
        assert watch.stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_scores_what_has_ended(tmp_path: Path) -> None:
    options = {
        "total_frames": 400,
        "engine": "inline",
        "evaluation": {"every_frames": 0},
        "log": {"tensorboard": False},
    }
    run = offbeat.train("impala-cartpole", out=str(tmp_path / "run"), **options).run
    out = tmp_path / "scores.json"
    command = [sys.executable, "-m", "offbeat", "eval", str(run), "--episodes", "1000000", "--out", str(out)]
    ours, terminal = os.openpty()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True)
    os.close(terminal)
    seen = ""
    while not re.search(r"[1-9]\d* of 1000000 episodes have ended", seen):
        seen += os.read(ours, 1000).decode()
    process.send_signal(signal.SIGINT)
    while "stopped after" not in seen:
        seen += os.read(ours, 1000).decode()
    said, _ = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 130 and "Traceback" not in seen
    ended = len(json.loads(out.read_text())["returns"])
    assert f"stopped after {ended} of 1000000 episodes" in seen and said.startswith(f"{ended} episodes")
