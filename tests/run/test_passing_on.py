"""Another command carried out from this one; tests of campaigns kill and stop it."""

from __future__ import annotations

import signal
import threading

import pytest

from offbeat.run.passing_on import PASSED_ON, carry_out


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["no-such-command"], 2)])
def test_its_exit_code_is_handed_back_and_our_signals_are_as_before(arguments: list[str], code: int) -> None:
    before = [signal.getsignal(number) for number in PASSED_ON]
    assert carry_out(arguments) == (code, False)
    assert [signal.getsignal(number) for number in PASSED_ON] == before


def test_in_a_thread_signals_are_left_to_the_main_one() -> None:
    found: list[tuple[int, bool]] = []
    thread = threading.Thread(target=lambda: found.append(carry_out(["--version"])))
    thread.start()
    thread.join()
    assert found == [(0, False)]
