"""Other commands carried out from this one; tests of campaigns kill and stop it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from offbeat.errors import UserError
from offbeat.run.passing_on import PASSED_ON, crew
from tests.faults.command import descendants


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["no-such-command"], 2)])
def test_its_exit_code_is_handed_back_and_our_signals_are_as_before(arguments: list[str], code: int) -> None:
    before = [signal.getsignal(number) for number in PASSED_ON]
    with crew() as commands:
        started = commands.start(arguments)
        assert commands.wait() is started
        assert (started.returncode, commands.running, commands.asked) == (code, [], [])
    assert [signal.getsignal(number) for number in PASSED_ON] == before


def test_in_a_thread_signals_are_left_to_the_main_one() -> None:
    found: list[int] = []

    def version() -> None:
        with crew() as commands:
            commands.start(["--version"])
            found.append(commands.wait().returncode)

    thread = threading.Thread(target=version)
    thread.start()
    thread.join()
    assert found == [0]


def test_several_end_each_in_its_time_and_write_to_their_logs(tmp_path: Path) -> None:
    logs = [tmp_path / "a.log", tmp_path / "b.log"]
    logs[0].write_text("before\n")
    with crew() as commands:
        started = {commands.start([word], log): log for word, log in zip(["--version", "nonsense"], logs, strict=True)}
        codes = {started[ended]: ended.returncode for ended in (commands.wait(), commands.wait())}
    assert codes == {logs[0]: 0, logs[1]: 2}
    assert logs[0].read_text().startswith("before\noffbeat ")
    assert "unknown command 'nonsense'" in logs[1].read_text()


def test_an_exception_ends_what_was_started(tmp_path: Path) -> None:
    options = ["--total-frames", "1000000000", "--evaluation.every-frames", "0", "--out", str(tmp_path / "run")]

    def two() -> None:
        with crew() as commands:
            commands.start(["train", "debug", *options], tmp_path / "log")
            commands.start(["--version"], tmp_path / "missing" / "log")

    before = descendants(os.getpid())
    with pytest.raises(UserError, match="log cannot be written: No such file"):
        two()
    assert descendants(os.getpid()) == before
