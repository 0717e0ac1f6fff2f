"""A command as a user starts it: its output, its end, its signals, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from offbeat.run.chaos.child import Child, descriptors, state
from offbeat.run.chaos.verdicts import Broken

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")


def test_a_command_that_ends(tmp_path: Path) -> None:
    child = Child(["--version"], tmp_path)
    assert child.wait() == 0
    assert child.last_line.startswith("offbeat ")
    assert child.left_behind() == ""
    assert child.roles() == {}
    with pytest.raises(Broken, match=r"expected the line 'something else', got exit code 0: offbeat"):
        child.until_said("something else")


def test_its_output_begins_where_it_began(tmp_path: Path) -> None:
    for text in ("first", "second"):
        child = Child([], tmp_path, shell=f"echo {text}")
        child.wait()
        assert child.output == f"{text}\n"


def test_what_it_leaves_behind_is_found_and_ended(tmp_path: Path) -> None:
    child = Child([], tmp_path, shell='sleep 300 & touch "$TMPDIR/left"')
    assert child.wait() == 0
    (pid,) = child.marked()
    assert child.left_behind(patience_s=0.2) == f"process {pid}, {tmp_path / 'tmp' / 'left'}"
    child.kill()
    (tmp_path / "tmp" / "left").unlink()
    assert child.left_behind() == ""


def test_one_that_waits_in_vain_is_broken(tmp_path: Path) -> None:
    child = Child([], tmp_path, shell="echo here; sleep 300")
    child.until_said("here")
    with pytest.raises(Broken, match=r"expected it within 0 s, got nothing of it; last line: here"):
        child.until(lambda: False, "it", patience_s=0.1)
    with pytest.raises(Broken, match=r"expected an end within 0 s, got it runs on"):
        child.wait(patience_s=0.1)
    child.kill()
    assert not child.running() and child.marked() == []


def test_a_role_is_found_by_the_file_that_it_holds_open(tmp_path: Path) -> None:
    child = Child([], tmp_path, shell='exec 9>"$TMPDIR/.stack-actor-12-345"; echo here; sleep 300 9>&-')
    child.until_said("here")
    assert child.roles() == {"actor-12": child.process.pid}
    assert descriptors(child.process.pid) >= 4
    os.kill(child.process.pid, signal.SIGSTOP)
    child.until(lambda: state(child.process.pid) == "T", "standing still", patience_s=10)
    child.kill()
    assert state(child.process.pid) == ""
    assert descriptors(child.process.pid) == 0
