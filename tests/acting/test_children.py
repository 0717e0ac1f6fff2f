"""Which processes count as started by this one, and which as left over."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, ClassVar

import pytest

import offbeat
from offbeat.acting import children as module
from offbeat.acting.children import children, left_over
from tests.zoo.small import Small

SLEEP = ["sleep", "300"]
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems tell of multiprocessing's only")


@linux
def test_every_process_counts_until_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    before = children()
    one, two = subprocess.Popen(SLEEP), subprocess.Popen(SLEEP)
    assert children() - before == {one.pid, two.pid}
    one.terminate()
    assert left_over(before) == {two.pid}, "not reaped yet, but it does not go on"
    two.kill()
    assert left_over(before) == set()
    one.wait(), two.wait()


@linux
def test_what_python_starts_for_itself_does_not() -> None:
    resource_tracker._resource_tracker._stop()
    before = children()
    resource_tracker.ensure_running()
    assert left_over(before) == set(), "it looks like a copy of this process until it has replaced itself"


def test_those_of_multiprocessing_count_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Path", lambda path: Path("/nowhere") / path.lstrip("/"))
    before = children()
    process = multiprocessing.get_context("spawn").Process(target=sum, args=((),))
    process.start()
    assert children() - before == {process.pid}
    process.join()
    assert children() == before


class LeavesProcesses(Small):
    """Starts a process for each of its copies and ends none."""

    started: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        super().__init__()
        self.started.append(subprocess.Popen(SLEEP))


@linux
def test_a_check_tells_of_every_process_that_an_environment_leaves() -> None:
    try:
        report = offbeat.check_env(LeavesProcesses, steps=20)
        count = len(LeavesProcesses.started)
        assert count == 3
        (warning,) = (text for text in report.warnings if "go on after close()" in text)
        assert warning.startswith(f"0 threads and {count} processes go on after close()")
    finally:
        for process in LeavesProcesses.started:
            process.kill()
            process.wait()
