"""How children start: threads, signals, and that they end with the thread that started them, whatever they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from offbeat.runtime.spawning import THREAD_VARIABLES, native_threads, signals_held
from tests.faults.command import PATIENCE_S, alive


def test_children_start_with_their_number_of_threads() -> None:
    before = dict(os.environ)
    with native_threads(5):
        assert [os.environ[name] for name in THREAD_VARIABLES] == ["5"] * len(THREAD_VARIABLES)
    assert dict(os.environ) == before


def test_signals_are_held_while_a_child_starts() -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with signals_held():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # another thread would take the process's own
            assert received == []
            assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert received == [signal.SIGTERM]
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGTERM, before)


PARENT = """
import multiprocessing, sys, threading, time
from multiprocessing import resource_tracker
from offbeat.runtime.spawning import tied_to_this_thread

if multiprocessing.current_process().name == "child" and {hangs_while_imported}:
    while True:
        time.sleep(1000)

def work():
    {work}

def start():
    resource_tracker.ensure_running()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=work, name="child")
    with tied_to_this_thread():
        child.start()
    print(child.pid, flush=True)
    time.sleep({after_s})

if __name__ == "__main__":
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    print("the thread has ended", flush=True)
    time.sleep(1000)
"""
HOLDS_THE_GIL = "import ctypes; ctypes.PyDLL(None).sleep(1000)"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux's kernel ends children")
@pytest.mark.parametrize(
    ("work", "hangs_while_imported"), [("time.sleep(1000)", False), (HOLDS_THE_GIL, False), ("pass", True)]
)
@pytest.mark.parametrize("ends", ["process", "thread"])
def test_a_child_ends_with_the_thread_that_started_it(
    work: str, hangs_while_imported: bool, ends: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    after_s = 1000 if ends == "process" else 3
    script.write_text(PARENT.format(work=work, hangs_while_imported=hangs_while_imported, after_s=after_s))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        try:
            time.sleep(1.5)
            assert alive(pid), "it works, or hangs"
            if not hangs_while_imported:
                os.kill(pid, signal.SIGSTOP)
            if ends == "process":
                parent.kill()
            deadline = time.monotonic() + PATIENCE_S
            while alive(pid):
                assert time.monotonic() < deadline, "it outlives the thread that started it"
                time.sleep(0.05)
        finally:
            parent.kill()
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
