"""Printing that neither raises nor waits for a reader."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from offbeat.runtime import terminal
from offbeat.runtime.terminal import Outlet, Screen, Through, guarded, output_broken, troubles_told


def until(ready: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_texts_arrive_whole_and_in_order() -> None:
    reading, writing = os.pipe()
    outlet = Outlet(writing, "pipe")
    texts = [f"{number} " * 500 + "\n" for number in range(200)]
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(reading, 10_000), b"")))
    reader.start()
    for text in texts:
        outlet.put(text)
    outlet.close()
    os.close(writing)
    reader.join()
    os.close(reading)
    assert b"".join(got).decode() == "".join(texts)


def test_a_reader_that_pauses_finds_a_note_of_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "MOST_WAITING", 20)
    monkeypatch.setattr(terminal, "STUCK_S", 0.05)
    reading, writing = os.pipe()
    outlet, said = Outlet(writing, "the pipe"), list[str]()
    outlet.notices.tell(said.append)
    line = "x" * 9_999 + "\n"
    began = time.monotonic()
    for _ in range(100):
        outlet.put(line)
    assert time.monotonic() - began < 10, "nobody waits for the reader"
    assert said == ["the pipe takes no more lines (nobody reads it); the run goes on without it"]
    left_out = outlet.notices.left_out
    assert 50 < left_out < 100
    os.set_blocking(reading, False)
    got = b""

    def read() -> bool:
        nonlocal got
        with suppress(BlockingIOError):
            got += os.read(reading, 1 << 16)
        return len(got) == (100 - left_out) * len(line)

    until(read)
    until(lambda: len(said) == 2)
    assert said[1] == f"the pipe works again; {left_out} lines were left out"
    outlet.put("hello\n")
    outlet.close()
    assert os.read(reading, 1000).decode() == f"({left_out} lines were left out here)\nhello\n"
    os.close(reading)
    os.close(writing)


def test_closing_does_not_wait_for_a_reader_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "STUCK_S", 0.05)
    reading, writing = os.pipe()
    outlet = Outlet(writing, "pipe")
    outlet.put("x" * 200_000)
    began = time.monotonic()
    outlet.close()
    assert time.monotonic() - began < 3
    os.close(reading)  # lets its thread go
    until(lambda: not outlet._thread.is_alive())
    os.close(writing)


def test_a_reader_that_left_is_said_once() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    outlet, said = Outlet(writing, "the pipe"), list[str]()
    for _ in range(5):
        outlet.put("hello\n")
    outlet.close()
    outlet.notices.tell(said.append)  # later: it is still told
    assert said == ["the pipe takes no more lines (Broken pipe); the run goes on without it"]
    assert outlet.notices.left_out == 5
    os.close(writing)


class Angry(io.StringIO):
    """A stream of somebody else's."""

    angry = True

    def write(self, text: str) -> int:
        if self.angry:
            raise RuntimeError("reentrant call")
        return super().write(text)


def test_a_stream_of_somebody_elses_cannot_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    out, said = Angry(), list[str]()
    monkeypatch.setattr(sys, "stdout", out)
    with guarded():
        with troubles_told(said.append):
            print("one")
            print("two")
            out.angry = False
            print("three")
        print("four")
    assert sys.stdout is out
    assert out.getvalue() == "three\nfour\n"
    assert said == [
        "standard output takes no more lines (RuntimeError: reentrant call); the run goes on without it",
        "standard output works again; 2 lines were left out",
    ]


def test_blocks_lie_within_each_other_and_lines_go_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with guarded(), guarded():
        screen = sys.stdout
        assert isinstance(screen, Screen)
        assert not screen.isatty()
        print("half", end="")
        assert out.getvalue() == ""
        print(" and half")
        assert out.getvalue() == "half and half\n"
        print("rest", end="")
    assert out.getvalue() == "half and half\nrest"
    print("late", file=screen)  # somebody kept it
    assert out.getvalue() == "half and half\nrestlate\n"


def test_a_closed_stream_is_said() -> None:
    said: list[str] = []
    place = Through(None, "standard output")
    place.put("x\n")
    place.put("y\n")
    place.notices.tell(said.append)
    assert said == ["standard output takes no more lines (it is closed); the run goes on without it"]


def test_output_that_works_is_not_broken() -> None:
    assert not output_broken()


def test_forked_children_print_too() -> None:
    code = (
        "import os, sys\nfrom offbeat.runtime.terminal import guarded\n"
        "with guarded():\n    print('one')\n    pid = os.fork()\n    print('two', pid == 0)\n"
        "    if pid == 0: os._exit(0)\n    os.waitpid(pid, 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == ["one", "two False", "two True"]
