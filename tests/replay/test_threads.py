"""Sharing a loop out among threads: every index once, nothing returned before all of it is done."""

from __future__ import annotations

import threading

import pytest

from offbeat.replay.threads import share_out


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
@pytest.mark.parametrize("count", [0, 1, 5, 8])
def test_every_index_is_worked_on_once(count: int, threads: int) -> None:
    parts: list[tuple[int, int]] = []
    share_out(lambda begin, end: parts.append((begin, end)), count, threads)
    assert sorted(index for begin, end in parts for index in range(begin, end)) == list(range(count))
    assert len(parts) == max(1, min(count, threads))


def test_it_waits_for_the_other_threads() -> None:
    own_is_done, done = threading.Event(), []

    def work(begin: int, end: int) -> None:
        if begin == 0:
            threading.Timer(0.2, own_is_done.set).start()  # the other part ends well after this one
        else:
            assert own_is_done.wait(20.0)
        done.append(begin)

    share_out(work, 2, 2)
    assert done == [0, 1]


def test_what_goes_wrong_in_another_thread_is_told() -> None:
    def work(begin: int, end: int) -> None:
        if begin:
            raise ValueError("rows 1 to 2 are gone")

    with pytest.raises(ValueError, match="rows 1 to 2 are gone"):
        share_out(work, 2, 2)
