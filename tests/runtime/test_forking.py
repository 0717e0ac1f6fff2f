"""Handlers of one process alone: what is forked, and what is executed, has those of before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from offbeat.runtime.forking import handle_here

ENDS_AT_ONCE_S = 20.0
SLEEPS = [sys.executable, "-c", "import time; print(flush=True); time.sleep(300)"]


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Numbers that came to this process meanwhile."""
    numbers: list[int] = []
    before = handle_here([signal.SIGTERM, signal.SIGHUP], lambda number, frame: numbers.append(number))
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


def end_one_that_was_forked() -> int | None:
    """Exit code of a fork that is told to end before it can have done anything.

    By ``os.fork``: of two threads that have processes of multiprocessing, one may reap the other's.
    """
    pid = os.fork()
    if pid == 0:
        try:
            threading.Event().wait(300)
        finally:
            os._exit(0)
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + ENDS_AT_ONCE_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def test_a_fork_has_the_handlers_of_before(received: list[int]) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    assert received == [signal.SIGTERM]
    assert [end_one_that_was_forked() for _ in range(20)] == [-signal.SIGTERM] * 20
    assert received == [signal.SIGTERM]


def test_a_fork_of_another_thread_has_them_too(received: list[int]) -> None:
    codes: list[int | None] = []
    threads = [threading.Thread(target=lambda: codes.append(end_one_that_was_forked())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [-signal.SIGTERM] * 4
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), "the mask is as before"


def test_what_is_executed_has_the_default(received: list[int]) -> None:
    with subprocess.Popen(SLEEPS, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(ENDS_AT_ONCE_S) == -signal.SIGTERM


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert handle_here([signal.SIGHUP], lambda number, frame: None) == {}
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
