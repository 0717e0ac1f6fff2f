"""What the first, the second and the overdue signal do."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from offbeat.runtime import interrupts as module
from offbeat.runtime.conductor import EndNow, Overdue
from offbeat.runtime.interrupts import HANDLED, signals


def make_conductor() -> Any:
    """Takes notes."""
    notes = SimpleNamespace(asked=[], may_cut=False)
    notes.ask_to_stop = notes.asked.append
    return notes


@pytest.mark.parametrize("number", HANDLED)
def test_the_first_asks_to_stop_and_the_second_ends_at_once(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOGETHER_S", 0.05)
    said: list[str] = []
    conductor = make_conductor()
    before = signal.getsignal(number)
    with signals(said.append) as interrupts:
        interrupts.tell(conductor)
        os.kill(os.getpid(), number)
        assert conductor.asked == [number.name]
        assert said == [f"{number.name}: saving, then stopping; once more ends the run at once"]
        if number == signal.SIGHUP:  # a terminal that is closed counts for nothing: it may come with one of the others
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        with pytest.raises(EndNow):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_that_come_together_are_one(number: signal.Signals) -> None:
    """The kernel tells of a parent's death once for each of its threads."""
    conductor = make_conductor()
    with signals(lambda text: None) as interrupts:
        interrupts.tell(conductor)
        ended = False
        try:
            for _ in range(20):
                os.kill(os.getpid(), number)
        except EndNow:  # a KeyboardInterrupt, which would end the whole suite
            ended = True
        assert not ended
        assert conductor.asked == [number.name]


@pytest.mark.parametrize("first", HANDLED)
def test_a_terminal_that_is_closed_says_so_more_than_once(first: signal.Signals) -> None:
    with signals(lambda text: None) as interrupts:
        interrupts.tell(make_conductor())
        os.kill(os.getpid(), first)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)


def test_nohup_is_obeyed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals(lambda text: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_before_there_is_a_run_is_passed_on() -> None:
    conductor = make_conductor()
    with signals(lambda text: None) as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        interrupts.tell(conductor)
    assert conductor.asked == ["SIGTERM"]


def test_roles_in_this_thread_are_cut_off_when_they_do_not_come_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERDUE_S", 0.05)
    conductor = make_conductor()
    with signals(lambda text: None) as interrupts:
        interrupts.tell(conductor)
        conductor.may_cut = True
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Overdue):
            time.sleep(5)
        assert conductor.asked == ["SIGINT"]


def test_nothing_is_cut_off_while_it_is_saved_or_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVERDUE_S", 0.05)
    conductor = make_conductor()
    with signals(lambda text: None) as interrupts:
        interrupts.tell(conductor)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(module.TOGETHER_S + 0.1)
        with pytest.raises(EndNow):
            os.kill(os.getpid(), signal.SIGINT)
    monkeypatch.setattr(module, "OVERDUE_S", 0.2)
    with signals(lambda text: None):
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.4)


def test_other_threads_leave_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    found = []

    def run() -> None:
        with signals(lambda text: None):
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before]
